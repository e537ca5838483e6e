"""Plans of gamma against the uniform types and the mixes of llama-quantize, at equal file sizes.

    python llama_mixes.py GAMMA MODEL_FOLDER CALIBRATION EVALUATION SCRATCH_FOLDER [OPTIONS OF LEARN]

GAMMA is the command. llama.cpp quantizes (its own library, with the importance matrix that gamma wrote
and without) and llama.cpp judges: perplexity and mean divergence from full precision on EVALUATION.
Each of its files sets a budget to the byte, for two plans of gamma: one with the types that llama-quantize
gave to embedding and head, so that the files differ in the modules of the blocks alone, and one that
chooses these as well.
"""

import ctypes
import sys
from pathlib import Path

import llama_cpp
import numpy as np
from gguf import GGUFReader
from llama_cpp import Llama

from common import WINDOW, WINDOWS, judge, log_probabilities, run

# Name, number of the mix, whether it is uniform.
MIXES = [
    ("Q2_K", 10, False), ("Q3_K_M", 12, False), ("Q4_K, uniform", 15, True), ("Q4_K_M", 15, False),
    ("Q5_K_M", 17, False), ("Q6_K", 18, False),
]


def importance(path):
    reader = GGUFReader(path)
    tensors = {tensor.name: np.array(tensor.data).reshape(-1) for tensor in reader.tensors}
    names = [name.removesuffix(".in_sum2") for name in tensors if name.endswith(".in_sum2")]
    return {name: (tensors[name + ".in_sum2"] / tensors[name + ".counts"][0]).astype(np.float32) for name in names}


def quantize(source, target, mix, pure, matrix):
    parameters = llama_cpp.llama_model_quantize_default_params()
    parameters.nthread, parameters.ftype, parameters.pure = 1, mix, pure
    entries = (llama_cpp.llama_model_imatrix_data * (len(matrix) + 1))()
    for entry, (name, values) in zip(entries, matrix.items()):
        entry.name = name.encode()
        entry.data = values.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
        entry.size = values.size
    if matrix:
        parameters.imatrix = entries
    assert llama_cpp.llama_model_quantize(str(source).encode(), str(target).encode(), ctypes.byref(parameters)) == 0
    return target.stat().st_size


def types(path):
    return {tensor.name: tensor.tensor_type.name for tensor in GGUFReader(path).tensors}


def logs(path, windows):
    model = Llama(model_path=str(path), logits_all=True, verbose=False, n_ctx=WINDOW, n_threads=1)
    for window in windows:
        model.reset()
        model.eval(window)
        yield log_probabilities(model.scores[:WINDOW])


def planned(gamma, scores, size, keep, scratch, data):
    """The file of the plan for as many bytes; what was in the way where there is none."""
    ours, plans = scratch / "ours.gguf", scratch / "plans"
    keep = [argument for entry in keep for argument in ("--keep", entry)]
    try:
        run(gamma, "project", "--scores", scores, "--budget", f"gguf:{size}B", *keep, "--out", plans)
    except RuntimeError as error:
        print(f"no plan of {size} bytes: {str(error)[:160]}", file=sys.stderr)
        return None
    run(gamma, "export", plans / f"plan-gguf-{size}B.json", "--target", "gguf", "--out", ours, "--overwrite", *data)
    assert ours.stat().st_size <= size
    return ours


def main():
    gamma, model, calibration, evaluation, scratch = (Path(a) for a in sys.argv[1:6])
    options = sys.argv[6:]
    scratch.mkdir(parents=True, exist_ok=True)
    full, matrix, scores = scratch / "full.gguf", scratch / "imatrix.gguf", scratch / "scores.json"
    data = ["--model", model, "--calibration", calibration]
    # What says which text it is concerns the export as well.
    for flag, value in zip(options, options[1:]):
        data += [flag, value] if flag in ("--sequences", "--length", "--seed") else []
    if not scores.exists():
        run(gamma, "export", "--target", "gguf", "--out", full, "--overwrite", "--imatrix", matrix, *data)
        run(gamma, "learn", "--quantizer", "ggml", "--out", scores, *data[:4], *options)
    weighted = importance(matrix)
    tokenizer = Llama(model_path=str(full), vocab_only=True, verbose=False)
    tokens = tokenizer.tokenize(evaluation.read_bytes(), add_bos=False)
    step = max(WINDOW, (len(tokens) - WINDOW) // WINDOWS)
    windows = [tokens[at : at + WINDOW] for at in range(0, len(tokens) - WINDOW, step)][:WINDOWS]
    teacher = list(logs(full, windows))
    print(f"{model.name}: full precision {judge(windows, teacher, teacher)[0]:.3f}, {len(windows)} windows of {WINDOW}")
    print(
        "| llama-quantize | bytes | perplexity | with imatrix | KL | gamma, its embedding and head | KL "
        "| gamma, all chosen | KL | embedding, head |"
    )
    print("|---|---:|---:|---:|---:|---:|---:|---:|---:|---|")
    for name, mix, pure in MIXES:
        theirs = scratch / "theirs.gguf"
        quantize(full, theirs, mix, pure, {})
        plain, _ = judge(windows, logs(theirs, windows), teacher)
        size = quantize(full, theirs, mix, pure, weighted)
        with_matrix = judge(windows, logs(theirs, windows), teacher)
        outside = {"token_embd.weight": "model.embed_tokens", "output.weight": "lm_head"}
        kinds = {module: types(theirs)[tensor] for tensor, module in outside.items() if tensor in types(theirs)}
        cells, chosen = [], []
        for keep in ([f"{module}={kind}" for module, kind in kinds.items()], []):
            ours = planned(gamma, scores, size, keep, scratch, data)
            own = ours and judge(windows, logs(ours, windows), teacher)
            cells += [f"{own[0]:.3f}", f"{own[1]:.4f}"] if own else ["–", "–"]
            chosen = [types(ours)[tensor] for tensor in outside if tensor in types(ours)] if ours else ["–"]
        cells = [name, size, f"{plain:.3f}", f"{with_matrix[0]:.3f}", f"{with_matrix[1]:.4f}", *cells]
        kinds = f"{', '.join(kinds.values())} → {', '.join(chosen)}"
        print("| " + " | ".join(map(str, [*cells, kinds])) + " |", flush=True)


main()
