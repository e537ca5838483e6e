"""transformers loads a compressed-tensors or AutoRound folder, and its logits are those of the decoded weights.

    python transformers_logits.py OUT_FOLDER [FOLDER_NAME]

OUT_FOLDER is what the example `engine_files` wrote; FOLDER_NAME is `compressed-tensors` by default.
"""

import sys
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM


def logits(folder, dtype):
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).eval()
    ids = torch.arange(5, 69).reshape(1, -1) % model.config.vocab_size
    with torch.no_grad():
        return model(ids).logits.float(), model


def main():
    out = Path(sys.argv[1])
    name = sys.argv[2] if len(sys.argv) > 2 else "compressed-tensors"
    # auto-round computes in float16 whatever is asked for.
    dtype = torch.float16 if name == "auto-round" else torch.float32
    expected, _ = logits(out / f"{name}-weights", dtype)
    found, model = logits(out / name, dtype)
    kinds = {type(module).__name__ for module in model.modules()}
    worst = (found - expected).abs().max().item()
    print(f"{name}: logits differ by at most {worst:.3g}; they spread by {expected.std().item():.3g}")
    print(f"  modules: {sorted(kind for kind in kinds if 'inear' in kind)}")
    tolerance = 1e-2 if name == "auto-round" else 1e-6
    assert worst <= tolerance * expected.std().item(), "not the planned weights"


main()
