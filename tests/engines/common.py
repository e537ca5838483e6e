"""What the scripts that run the command share: gamma itself, windows of text, tensors, and losses."""

import json
import os
import subprocess
from pathlib import Path

import numpy as np

WINDOW, WINDOWS = 256, 48


def run(*arguments):
    # Models of a few million parameters run no faster on more threads, and far slower on a busy machine.
    one = os.environ | {"RAYON_NUM_THREADS": "1"}
    done = subprocess.run([str(a) for a in arguments], capture_output=True, text=True, env=one)
    if done.returncode != 0:
        raise RuntimeError(done.stderr.strip())
    return done.stdout


def windows_of(folder, text):
    """The windows that `gamma eval --length 256 --windows 48` judges on, as token numbers."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    ids = tokenizer.encode(text.read_text(encoding="utf-8")).ids
    whole = len(ids) // WINDOW
    count = min(whole, WINDOWS)
    return [ids[at * WINDOW :][:WINDOW] for at in (i * whole // count for i in range(count))]


def log_probabilities(logits):
    logits = np.asarray(logits, np.float32)
    logits = logits - logits.max(axis=-1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))


def judge(windows, own, teacher):
    """Perplexity, and mean divergence of `own` from `teacher`: log probabilities, window by window."""
    loss, divergence, count = 0.0, 0.0, 0
    for window, own, full in zip(windows, own, teacher, strict=True):
        loss -= float(own[np.arange(WINDOW - 1), window[1:]].sum())
        divergence += float((np.exp(full[:-1]) * (full[:-1] - own[:-1])).sum())
        count += WINDOW - 1
    return float(np.exp(loss / count)), divergence / count


def read_tensors(folder):
    """The tensors of a checkpoint as float32; numpy knows no bfloat16, the upper half of float32."""
    tensors = {}
    for path in sorted(Path(folder).glob("model*.safetensors")):
        data = path.read_bytes()
        length = int.from_bytes(data[:8], "little")
        header = json.loads(data[8 : 8 + length])
        header.pop("__metadata__", None)
        for name, info in header.items():
            start, end = (8 + length + offset for offset in info["data_offsets"])
            raw = data[start:end]
            if info["dtype"] == "BF16":
                values = (np.frombuffer(raw, "<u2").astype(np.uint32) << 16).view(np.float32)
            else:
                values = np.frombuffer(raw, {"F32": "<f4", "F16": "<f2"}[info["dtype"]]).astype(np.float32)
            tensors[name] = values.reshape(info["shape"])
    return tensors
