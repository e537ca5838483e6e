"""MLX decodes a written folder to the weights that were planned.

    python mlx_weights.py OUT_FOLDER

OUT_FOLDER is what the example `engine_files` wrote. Zero points are biases rounded to 16 bits; the
symmetric codes of the example lose nothing.
"""

import json
import sys
from pathlib import Path

import mlx.core as mx
import numpy as np


def read(folder):
    tensors = {}
    for shard in folder.glob("*.safetensors"):
        tensors.update(mx.load(str(shard)))
    return tensors


def main():
    out = Path(sys.argv[1])
    config = json.loads((out / "mlx/config.json").read_text())["quantization"]
    packed, expected = read(out / "mlx"), read(out / "mlx-weights")
    worst, count, kinds = 0.0, 0, set()
    for name in packed:
        if not name.endswith(".scales"):
            continue
        module = name.removesuffix(".scales")
        bits, group = config[module]["bits"], config[module]["group_size"]
        kinds.add((bits, group))
        part = lambda part: packed[f"{module}.{part}"].astype(mx.float32 if part != "weight" else mx.uint32)
        decoded = mx.dequantize(part("weight"), part("scales"), part("biases"), group_size=group, bits=bits)
        want = np.array(expected[f"{module}.weight"])
        worst = max(worst, float(np.abs(np.array(decoded) - want).max() / np.abs(want).max()))
        count += 1
    print(f"mlx: {count} modules in {sorted(kinds)}, at most {worst:.2g} of the largest weight apart")
    assert count == len([key for key in config if key not in ("group_size", "bits")]) and worst < 1e-6


main()
