"""llama.cpp loads written files, tokenizes as the checkpoint does, and loses as much on a text.

    python gguf_llama.py MODEL_FOLDER OUT_FOLDER

OUT_FOLDER is what the example `engine_files` wrote for MODEL_FOLDER. Where the model's folder has a
`reference.json` with texts, their tokens, and the loss of every token of a sequence, both are compared.
"""

import json
import sys
from pathlib import Path

import numpy as np
from llama_cpp import Llama


def losses(path, ids):
    model = Llama(model_path=str(path), logits_all=True, verbose=False, n_ctx=max(64, len(ids)))
    model.eval(ids)
    logits = np.asarray(model.scores[: len(ids)], dtype=np.float64)
    logits -= logits.max(axis=1, keepdims=True)
    logs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    return model, -logs[np.arange(len(ids) - 1), ids[1:]]


def main():
    folder, out = Path(sys.argv[1]), Path(sys.argv[2]) / "gguf"
    reference = folder / "reference.json"
    reference = json.loads(reference.read_text()) if reference.exists() else None
    ids = reference["forward"]["ids"] if reference else list(range(1, 33))
    for name in ["eight", "recoded", "mixed"]:
        model, found = losses(out / f"{name}.gguf", ids)
        assert np.isfinite(found).all()
        if reference is None:
            print(f"{name}.gguf: mean loss {found.mean():.4f} of 31 arbitrary tokens")
            continue
        expected = np.asarray(reference["forward"]["nll"])
        print(
            f"{name}.gguf: mean loss {found.mean():.4f}, full precision {expected.mean():.4f}, "
            f"largest difference of a token {np.abs(found - expected).max():.4f}, "
            f"correlation {np.corrcoef(found, expected)[0, 1]:.5f}"
        )
        if name != "mixed":
            assert abs(found.mean() - expected.mean()) < 0.03, name
        if name == "eight":
            for case in reference["encode"]:
                tokens = model.tokenize(case["text"].encode(), add_bos=True, special=False)
                same = tokens == case["ids"]
                print(f"  {'same tokens' if same else 'OTHER TOKENS'}: {case['text']!r}")
                if not same:
                    print("   ", tokens, case["ids"])


main()
