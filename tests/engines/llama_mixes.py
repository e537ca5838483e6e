"""Plans of gamma against the uniform types and the mixes of llama-quantize, at equal file sizes.

    python llama_mixes.py GAMMA MODEL_FOLDER CALIBRATION EVALUATION SCRATCH_FOLDER [OPTIONS OF LEARN]

GAMMA is the command. llama.cpp quantizes (its own library, with the importance matrix that gamma wrote
and without) and llama.cpp judges: perplexity and mean divergence from full precision on EVALUATION.
Each of its files sets a budget to the byte; gamma's plan keeps the types that llama-quantize gave to
embedding and head, so that the files differ in the modules of the blocks alone.
"""

import ctypes
import subprocess
import sys
from pathlib import Path

import llama_cpp
import numpy as np
from gguf import GGUFReader
from llama_cpp import Llama

# Name, number of the mix, whether it is uniform.
MIXES = [
    ("Q2_K pure", 10, True), ("Q2_K", 10, False), ("Q3_K_S", 11, False), ("Q3_K_M", 12, False),
    ("Q4_0 pure", 2, True), ("Q4_K pure", 15, True), ("Q4_K_M", 15, False), ("Q5_K pure", 17, True),
    ("Q5_K_M", 17, False), ("Q6_K", 18, False), ("Q8_0", 7, False),
]
WINDOW, WINDOWS = 256, 48


def run(*arguments):
    done = subprocess.run([str(a) for a in arguments], capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(done.stderr.strip())
    return done


def importance(path):
    reader = GGUFReader(path)
    tensors = {tensor.name: np.array(tensor.data).reshape(-1) for tensor in reader.tensors}
    names = [name.removesuffix(".in_sum2") for name in tensors if name.endswith(".in_sum2")]
    return {name: (tensors[name + ".in_sum2"] / tensors[name + ".counts"][0]).astype(np.float32) for name in names}


def quantize(source, target, mix, pure, matrix):
    parameters = llama_cpp.llama_model_quantize_default_params()
    parameters.nthread, parameters.ftype, parameters.pure = 2, mix, pure
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
    model = Llama(model_path=str(path), logits_all=True, verbose=False, n_ctx=WINDOW, n_threads=2)
    for window in windows:
        model.reset()
        model.eval(window)
        logits = np.asarray(model.scores[:WINDOW], np.float32)
        logits = logits - logits.max(axis=1, keepdims=True)
        yield logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))


def judge(path, windows, teacher):
    loss, divergence, count = 0.0, 0.0, 0
    for window, own, full in zip(windows, logs(path, windows), teacher):
        loss -= float(own[np.arange(WINDOW - 1), window[1:]].sum())
        divergence += float((np.exp(full[:-1]) * (full[:-1] - own[:-1])).sum())
        count += WINDOW - 1
    return float(np.exp(loss / count)), divergence / count


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
    print(f"{model.name}: full precision {judge(full, windows, teacher)[0]:.3f}, {len(windows)} windows of {WINDOW}")
    print("| llama-quantize | bytes | perplexity | with imatrix | gamma, bytes | perplexity | KL with imatrix | KL gamma |")
    print("|---|---:|---:|---:|---:|---:|---:|---:|")
    for name, mix, pure in MIXES:
        theirs = scratch / "theirs.gguf"
        plain = judge(theirs, windows, teacher) if quantize(full, theirs, mix, pure, {}) else None
        size = quantize(full, theirs, mix, pure, weighted)
        with_matrix = judge(theirs, windows, teacher)
        kinds = types(theirs)
        outside = {"token_embd.weight": "model.embed_tokens", "output.weight": "lm_head"}
        keep = [f"{module}={kinds[tensor]}" for tensor, module in outside.items() if tensor in kinds]
        keep = [argument for entry in keep for argument in ("--keep", entry)]
        ours, plans = scratch / "ours.gguf", scratch / "plans"
        try:
            run(gamma, "project", "--scores", scores, "--budget", f"gguf:{size}B", *keep, "--out", plans)
        except RuntimeError as error:
            print(f"| {name} | {size} | {plain[0]:.3f} | {with_matrix[0]:.3f} | no plan: {str(error)[:120]} | | | |")
            continue
        run(gamma, "export", plans / f"plan-gguf-{size}B.json", "--target", "gguf", "--out", ours, "--overwrite", *data)
        own = judge(ours, windows, teacher)
        assert ours.stat().st_size <= size
        print(
            f"| {name} | {size} | {plain[0]:.3f} | {with_matrix[0]:.3f} | {ours.stat().st_size} | {own[0]:.3f} "
            f"| {with_matrix[1]:.4f} | {own[1]:.4f} |",
            flush=True,
        )


main()
