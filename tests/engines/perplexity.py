"""Mixed plans in real engines: their weights bit for bit, their perplexity and divergence beside gamma's.

    python perplexity.py ENGINE GAMMA MODEL_FOLDER CALIBRATION EVALUATION SCRATCH [OPTIONS OF LEARN]

ENGINE is `llama.cpp`, `transformers`, `mlx`, or the path of the program `logits` of `examples/candle-load`.
GAMMA is the command. Plans of 3.5 and 4.5 stored bits, or the nearest that the engine's formats allow, are
exported and loaded three times: the model in full precision, the decoded weights as 32-bit floats, and
the file itself. All read the same windows of EVALUATION, as token numbers. Prints rows of Markdown.
"""

import json
import re
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np

from common import WINDOW, WINDOWS, judge, log_probabilities, read_tensors, run, windows_of

BITS = [3.5, 4.5]
HEADER = """\
| engine | model | stored bits | bytes | weights | perplexity, gamma | engine, 32-bit weights | engine, file | KL, gamma | KL, file | KL of activations |
|---|---|---:|---:|---|---:|---:|---:|---:|---:|---:|"""


class LlamaCpp:
    """Files of GGUF; products of quantized weights are taken with activations of 8 bits."""

    name, target, options, exact = "llama.cpp", "gguf", ["--quantizer", "ggml"], False

    def __init__(self, gamma):
        self.gamma, self.version = gamma, f"llama-cpp-python {version('llama-cpp-python')}"

    def floats(self, folder):
        """A file of the checkpoint as it is."""
        path = folder.parent / f"{folder.name}.gguf"
        run(self.gamma, "export", "--target", "gguf", "--model", folder, "--out", path, "--overwrite")
        return path

    def logits(self, path, windows):
        from llama_cpp import Llama

        model = Llama(model_path=str(path), logits_all=True, verbose=False, n_ctx=WINDOW, n_threads=1)
        for window in windows:
            model.reset()
            model.eval(window)
            yield model.scores[:WINDOW]

    def weights(self, path, folder):
        """Matrices by the names of the checkpoint, decoded by ggml itself."""
        import ctypes

        import llama_cpp
        from gguf import GGUFReader

        library = next(path for path in Path(llama_cpp.__file__).parent.rglob("*ggml-base*") if ".so" in path.name)
        library = ctypes.CDLL(str(library))

        def decode(tensor):
            kind, data = tensor.tensor_type.name, np.ascontiguousarray(tensor.data)
            if kind in ("F32", "F16", "BF16"):
                raw = data.reshape(-1).view(np.uint8)
                parts = {"F32": "<f4", "F16": "<f2", "BF16": "<u2"}[kind]
                values = raw.view(parts)
                return (values.astype(np.uint32) << 16).view(np.float32) if kind == "BF16" else values.astype(np.float32)
            out = np.empty(tensor.n_elements, np.float32)
            decode = getattr(library, f"dequantize_row_{kind.lower().replace('_k', '_K')}")
            decode(ctypes.c_void_p(data.ctypes.data), ctypes.c_void_p(out.ctypes.data), ctypes.c_int64(out.size))
            return out

        return by_checkpoint(GGUFReader(path).tensors, decode, folder)


class Candle(LlamaCpp):
    """The same files."""

    name = "candle"

    def __init__(self, gamma, program):
        self.gamma, self.program, self.version = gamma, program, run(program, "--version").strip()

    def logits(self, path, windows):
        out, tokens = Path(f"{path}.logits"), Path(f"{path}.tokens")
        tokens.write_text("\n".join(" ".join(map(str, window)) for window in windows))
        run(self.program, path, "--tokens", tokens, "--logits", out)
        values = np.memmap(out, np.float32, "r").reshape(len(windows), WINDOW, -1)
        yield from values
        out.unlink()

    def weights(self, path, folder):
        from gguf import GGUFReader

        out = Path(f"{path}.weights")
        run(self.program, path, "--weights", out)
        values = np.fromfile(out, np.float32)
        place = 0

        def decode(tensor):
            nonlocal place
            place += tensor.n_elements
            return values[place - tensor.n_elements : place]

        return by_checkpoint(GGUFReader(path).tensors, decode, folder)


def by_checkpoint(tensors, decode, folder):
    from gguf_weights import gguf_name, restored

    config = json.loads((folder / "config.json").read_text())
    heads = {"attn_q": config["num_attention_heads"], "attn_k": config["num_key_value_heads"]}
    names = {gguf_name(name): name for name in read_tensors(folder)}
    found = {}
    for tensor in tensors:
        values = decode(tensor)
        if tensor.name not in names:
            continue
        values = values.reshape(tuple(int(side) for side in reversed(tensor.shape)))
        role = tensor.name.split(".")[2] if tensor.name.startswith("blk.") else ""
        if config["model_type"] == "llama" and role in heads:
            values = restored(values, heads[role])
        found[names[tensor.name]] = values
    return found


class Transformers:
    """Folders of compressed-tensors, decoded to dense weights at the first pass."""

    name, target, exact = "transformers", "compressed-tensors", True
    options = ["--quantizer", "gptq-clip", "--symmetric", "--group-size", "64"]

    def __init__(self, gamma):
        versions = [f"{name} {version(name)}" for name in ("transformers", "compressed-tensors", "torch")]
        self.gamma, self.version = gamma, ", ".join(versions)

    def floats(self, folder):
        return folder

    def load(self, folder):
        import torch
        from transformers import AutoModelForCausalLM

        torch.set_num_threads(1)
        return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()

    def logits(self, folder, windows):
        import torch

        model = self.load(folder)
        with torch.no_grad():
            for window in windows:
                yield model(torch.tensor([window])).logits[0].numpy()

    def weights(self, path, folder):
        import torch

        model = self.load(path)
        with torch.no_grad():
            model(torch.tensor([[1, 2, 3]]))
        state = model.state_dict()
        return {name: state[name].numpy() for name in read_tensors(folder) if name in state}


class Mlx(Transformers):
    """Folders of mlx-lm; scales and offsets are widened, so that all arithmetic is in 32 bits."""

    name, target = "mlx", "mlx"

    def __init__(self, gamma):
        self.gamma, self.version = gamma, f"mlx {version('mlx')}, mlx-lm {version('mlx-lm')}"

    def load(self, folder):
        import mlx.core as mx
        from mlx_lm.utils import load_model

        model, _ = load_model(Path(folder))
        model.set_dtype(mx.float32)
        return model

    def logits(self, folder, windows):
        import mlx.core as mx

        model = self.load(folder)
        for window in windows:
            yield np.array(model(mx.array([window]))[0])

    def weights(self, path, folder):
        import mlx.core as mx

        found = {}
        for name, module in self.load(path).named_modules():
            if hasattr(module, "scales"):
                arguments = {"group_size": module.group_size, "bits": module.bits}
                decoded = mx.dequantize(module.weight, module.scales, module.biases, **arguments)
                found[f"{name}.weight"] = np.array(decoded)
            elif hasattr(module, "weight"):
                found[f"{name}.weight"] = np.array(module.weight)
        return found


def widened(model, out):
    """The checkpoint with 32-bit floats, which say the same."""
    if not out.exists():
        out.mkdir(parents=True)
        for path in model.iterdir():
            if path.suffix == ".json" and "safetensors" not in path.name:
                (out / path.name).write_bytes(path.read_bytes())
        config = json.loads((model / "config.json").read_text())
        config.pop("dtype", None)
        (out / "config.json").write_text(json.dumps(config | {"torch_dtype": "float32"}))
        from safetensors.numpy import save_file

        save_file(read_tensors(model), out / "model.safetensors", metadata={"format": "pt"})
    return out


def planned(gamma, engine, scores, bits, plans):
    """A plan of so many stored bits, or of the fewest that the formats allow."""
    target = {"transformers": "transformers", "mlx": "mlx"}.get(engine.name, "llama.cpp")
    try:
        run(gamma, "project", "--scores", scores, "--engine", target, "--budget", f"{bits}bpw", "--out", plans)
    except RuntimeError as error:
        fewest = re.search(r"smallest plan needs \d+ \(([\d.]+) bits", str(error))
        if fewest is None:
            raise
        # A tenth more than the least, so that there is something to choose.
        bits = round(float(fewest[1]) + 0.1, 2)
        run(gamma, "project", "--scores", scores, "--engine", target, "--budget", f"{bits}bpw", "--out", plans)
    return plans / f"plan-{bits}bpw.json"


def measured(gamma, model, evaluation, checkpoints):
    """Perplexity and divergence of the model and of checkpoints, by gamma."""
    flags = [part for folder in checkpoints for part in ("--checkpoint", folder)]
    protocol = ["--length", WINDOW, "--windows", WINDOWS]
    text = run(gamma, "eval", "--model", model, "--evaluation", evaluation, *protocol, *flags)
    rows = [[cell.strip() for cell in line.split("|")] for line in text.splitlines() if line.startswith("|")]
    columns = rows[0]
    return [(float(row[columns.index("perplexity")]), row[columns.index("KL, nats")]) for row in rows[2:]]


def same(found, expected):
    """In words, whether all matrices are equal bit for bit; adding zero makes one zero of both."""
    differ, worst = 0, 0.0
    matrices = {name: values for name, values in expected.items() if values.ndim == 2}
    assert matrices.keys() <= found.keys(), matrices.keys() - found.keys()
    for name, values in matrices.items():
        if not np.array_equal(found[name] + 0.0, values + 0.0):
            differ += 1
            worst = max(worst, float(np.abs(found[name] - values).max() / np.abs(values).max()))
    return f"{len(matrices)} equal" if differ == 0 else f"{differ} of {len(matrices)} differ by up to {worst:.1g}"


def main():
    name, gamma, model, calibration, evaluation, scratch = sys.argv[1], *(Path(a) for a in sys.argv[2:7])
    engines = {"llama.cpp": LlamaCpp, "transformers": Transformers, "mlx": Mlx}
    engine = engines[name](gamma) if name in engines else Candle(gamma, name)
    scratch = scratch / model.name
    scratch.mkdir(parents=True, exist_ok=True)
    text = ["--model", model, "--calibration", calibration, "--sequences", 32, "--length", WINDOW]
    kind = engine.options[1]
    scores, plans, here = scratch / f"{kind}.json", scratch / f"plans-{engine.name}", scratch / engine.target
    if not scores.exists():
        run(gamma, "learn", *engine.options, *text, *sys.argv[7:], "--out", scores)
    windows = windows_of(model, evaluation)
    cases = []
    for bits in BITS:
        plan = planned(gamma, engine, scores, bits, plans)
        plain, file = here / f"{plan.stem}-weights", here / (plan.stem + (".gguf" if engine.target == "gguf" else ""))
        here.mkdir(exist_ok=True)
        flags = ["--untied"] if engine.target == "compressed-tensors" else []
        run(gamma, "export", plan, "--target", engine.target, *text, "--out", file, "--overwrite", *flags)
        run(gamma, "apply", "--plan", plan, *text, "--out", plain, "--overwrite")
        cases.append((plan, plain, file))
    own = measured(gamma, model, evaluation, [plain for _, plain, _ in cases])
    full = engine.floats(widened(model, scratch / "full"))
    teacher = [log_probabilities(logits) for logits in engine.logits(full, windows)]
    base, _ = judge(windows, teacher, teacher)
    assert abs(base / own[0][0] - 1) < 0.005, f"full precision: {base} here, {own[0][0]} by gamma"
    print(HEADER)
    for (plan, plain, file), (ours, divergence) in zip(cases, own[1:], strict=True):
        weights = same(engine.weights(file, plain), read_tensors(plain))
        exact = [log_probabilities(logits) for logits in engine.logits(engine.floats(plain), windows)]
        final = [log_probabilities(logits) for logits in engine.logits(file, windows)]
        floats, _ = judge(windows, exact, exact)
        loss, kl = judge(windows, final, teacher)
        _, activations = judge(windows, final, exact)
        size = sum(part.stat().st_size for part in file.glob("model*.safetensors")) if file.is_dir() else file.stat().st_size
        decided = json.loads(plan.read_text())
        print(
            f"| {engine.version} | {model.name} | {decided['stored_bits'] / decided['weights']:.2f} | {size} | {weights} | {ours:.3f} "
            f"| {floats:.3f} | {loss:.3f} | {divergence} | {kl:.4f} | {activations:.1e} |",
            flush=True,
        )
        assert abs(floats / ours - 1) < 0.005, "the same weights in 32-bit floats"
        assert not engine.exact or abs(loss / ours - 1) < 0.005, "the file, in full precision"


main()
