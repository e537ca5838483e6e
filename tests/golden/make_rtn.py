"""Golden round-to-nearest values of two matrices of the fable fixture.

    python make_rtn.py

Made with numpy 2.4.6, torch 2.13.0, safetensors 0.8.0, Python 3.11. The rounding
itself is numpy in float32; torch only reads bfloat16 and writes the file.

Groups of 64 along the input dimension. Rounding is half away from zero.

asymmetric: low = min(0, min w), high = max(0, max w)
            scale = float16((high - low) / (2^b - 1)); if 0, the smallest subnormal
            zero  = clamp(round(-low / scale), 0, 2^b - 1)
            code  = clamp(round(w / scale) + zero, 0, 2^b - 1)
symmetric:  scale = float16(max|w| / ((2^b - 1) / 2)); if 0, the smallest subnormal
            code  = clamp(round(w / scale) + 2^(b-1), 0, 2^b - 1)

Tensors: `<matrix>.weight` (float32), and for every scheme and width
`<matrix>.<asym|sym>.<bits>.codes` (u8, the shape of the matrix), `.scales` (f16,
[rows, groups]) and, asymmetric only, `.zeros` (u8, [rows, groups]).
"""

from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file

HERE = Path(__file__).resolve().parent
GROUP = 64
MATRICES = {
    "down_proj": "model.layers.2.mlp.down_proj.weight",
    "q_proj": "model.layers.2.self_attn.q_proj.weight",
}
SMALLEST = np.float16(2.0**-24)
f32 = np.float32


def round_half_away(x):
    # trunc(x) + (|frac| >= 0.5) is exact where floor(|x| + 0.5) in float32 is not.
    whole = np.trunc(x)
    return whole + np.sign(x) * (np.abs(x - whole) >= f32(0.5))


def half_scale(x):
    scale = x.astype(np.float16)
    return np.where(scale == 0, SMALLEST, scale)


def asymmetric(w, bits):
    top = f32(2**bits - 1)
    low = np.minimum(w.min(-1, keepdims=True), f32(0))
    high = np.maximum(w.max(-1, keepdims=True), f32(0))
    scale = half_scale((high - low) / top)
    s = scale.astype(f32)
    zero = np.clip(round_half_away(-low / s), 0, top)
    code = np.clip(round_half_away(w / s) + zero, 0, top)
    return {"codes": code, "scales": scale, "zeros": zero}


def symmetric(w, bits):
    top = f32(2**bits - 1)
    scale = half_scale(np.abs(w).max(-1, keepdims=True) / (top / f32(2)))
    code = np.clip(round_half_away(w / scale.astype(f32)) + f32(2 ** (bits - 1)), 0, top)
    return {"codes": code, "scales": scale}


def main():
    stored = load_file(HERE.parent / "fixtures" / "fable" / "model.safetensors")
    tensors = {}
    for name, path in MATRICES.items():
        weight = stored[path].float().numpy()
        rows, columns = weight.shape
        groups = weight.reshape(rows, columns // GROUP, GROUP)
        tensors[f"{name}.weight"] = weight
        for scheme, rule in (("asym", asymmetric), ("sym", symmetric)):
            for bits in (2, 3, 4, 5, 6, 8):
                for part, value in rule(groups, bits).items():
                    assert value.dtype == (np.float16 if part == "scales" else f32)
                    if part != "scales":
                        value = value.astype(np.uint8)
                    shape = weight.shape if part == "codes" else (rows, columns // GROUP)
                    tensors[f"{name}.{scheme}.{bits}.{part}"] = value.reshape(shape)
    save_file({k: torch.from_numpy(np.ascontiguousarray(v)) for k, v in tensors.items()}, HERE / "rtn.safetensors")


if __name__ == "__main__":
    main()
