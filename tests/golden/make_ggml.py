"""Golden blocks of ggml's types: what they decode to, and what ggml itself encodes.

    python make_ggml.py FOLDER_WITH_LIBGGML

Made with gguf 0.19.0, numpy 2.4.6, safetensors 0.8.0, and the libraries that llama-cpp-python
0.3.36 builds (`site-packages/llama_cpp/lib`), Python 3.11.

`<type>.blocks` (u8, [4, bytes]) are random blocks whose floats are of a usual size, `<type>.values`
(f32, [4, weights]) what the gguf package decodes them to.

`<matrix>.weight` (f32, [12, 512]): `trained` are consecutive weights of block 2 `down_proj` of fable,
`normal` are drawn from N(0, 1). `importance` (f32, [512]) is drawn from a log-normal distribution.
`<matrix>.<type>.<plain|weighted>` (u8, [12, bytes]) is what `ggml_quantize_chunk` makes of a matrix,
without and with the importance.

Types: q4_0, q5_0, q8_0, q2_K to q6_K; of q4_1 and q5_1 only what they decode to.
"""

import ctypes
import json
import sys
from pathlib import Path

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType
from gguf.quants import dequantize
from safetensors.numpy import save_file

HERE = Path(__file__).resolve().parent
TYPES = ["q4_0", "q5_0", "q8_0", "q2_K", "q3_K", "q4_K", "q5_K", "q6_K"]
# Where the 16-bit floats of a block stand.
FLOATS = {
    "q4_0": [0], "q4_1": [0, 2], "q5_0": [0], "q5_1": [0, 2], "q8_0": [0],
    "q2_K": [80, 82], "q3_K": [108], "q4_K": [0, 2], "q5_K": [0, 2], "q6_K": [208],
}
ROWS, COLUMNS = 12, 512


def kind(name):
    return GGMLQuantizationType[name.upper()]


def decoded(rng):
    tensors = {}
    for name, places in FLOATS.items():
        weights, size = GGML_QUANT_SIZES[kind(name)]
        blocks = rng.integers(0, 256, (4, size), dtype=np.uint8)
        for place in places:
            floats = rng.normal(0, 0.02, (4, 1)).astype(np.float16)
            blocks[:, place : place + 2] = floats.view(np.uint8)
        values = dequantize(blocks, kind(name)).astype(np.float32)
        assert values.shape == (4, weights)
        tensors[f"{name}.blocks"], tensors[f"{name}.values"] = blocks, values
    return tensors


def trained():
    # bfloat16 is the upper half of float32; numpy has no such type.
    path = HERE.parent / "fixtures/fable/model.safetensors"
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    info = json.loads(data[8 : 8 + length])["model.layers.2.mlp.down_proj.weight"]
    assert info["dtype"] == "BF16"
    start, end = info["data_offsets"]
    half = np.frombuffer(data[8 + length + start : 8 + length + end], dtype="<u2")
    values = (half.astype(np.uint32) << 16).view(np.float32)
    return values[: ROWS * COLUMNS].reshape(ROWS, COLUMNS).copy()


def library(folder):
    for name in ["libggml-base.so", "libggml.so"]:
        for path in Path(folder).glob(name + "*"):
            lib = ctypes.CDLL(str(path), mode=ctypes.RTLD_GLOBAL)
            if hasattr(lib, "ggml_quantize_chunk"):
                break
        else:
            continue
        break
    floats = ctypes.POINTER(ctypes.c_float)
    lib.ggml_quantize_chunk.restype = ctypes.c_size_t
    lib.ggml_quantize_chunk.argtypes = [
        ctypes.c_int, floats, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64, ctypes.c_int64, floats,
    ]
    return lib, floats


def encoded(lib, floats, matrix, name, importance):
    weights, size = GGML_QUANT_SIZES[kind(name)]
    out = np.zeros((ROWS, COLUMNS // weights * size), dtype=np.uint8)
    pointer = None if importance is None else importance.ctypes.data_as(floats)
    written = lib.ggml_quantize_chunk(
        kind(name).value, matrix.ctypes.data_as(floats), out.ctypes.data, 0, ROWS, COLUMNS, pointer
    )
    assert written == out.size, (written, out.size)
    return out


def main():
    rng = np.random.default_rng(20261125)
    tensors = decoded(rng)
    matrices = {"trained": trained(), "normal": rng.normal(size=(ROWS, COLUMNS)).astype(np.float32)}
    importance = np.exp(1.5 * rng.normal(size=COLUMNS)).astype(np.float32)
    tensors["importance"] = importance
    lib, floats = library(sys.argv[1])
    for matrix, values in matrices.items():
        tensors[f"{matrix}.weight"] = values
        for name in TYPES:
            tensors[f"{matrix}.{name}.plain"] = encoded(lib, floats, values, name, None)
            tensors[f"{matrix}.{name}.weighted"] = encoded(lib, floats, values, name, importance)
    save_file(tensors, HERE / "ggml.safetensors")


main()
