"""Encoding speed of gamma and of ggml: the same weights and importances, one thread each, one run.

    python encode_speed.py SPEED_PROGRAM

SPEED_PROGRAM is the example `encode_speed` of gamma-ggml, built with `--release`. Also compares the
weighted errors of both.
"""

import ctypes
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import llama_cpp
import numpy as np

ROWS, COLUMNS = 512, 4096
TYPES = {"q4_0": 2, "q5_0": 6, "q8_0": 8, "q2_K": 10, "q3_K": 11, "q4_K": 12, "q5_K": 13, "q6_K": 14}
BLOCKS = {"q4_0": (32, 18), "q5_0": (32, 22), "q8_0": (32, 34), "q2_K": (256, 84), "q3_K": (256, 110),
          "q4_K": (256, 144), "q5_K": (256, 176), "q6_K": (256, 210)}


def ggml():
    for path in Path(llama_cpp.__file__).parent.rglob("*ggml-base*"):
        if path.suffix in (".so", ".dylib", ".dll"):
            return ctypes.CDLL(str(path))
    sys.exit("no ggml library beside llama_cpp")


def main():
    random = np.random.default_rng(7)
    weights = (random.standard_normal((ROWS, COLUMNS)) * 0.02).astype(np.float32)
    importance = np.exp(random.standard_normal(COLUMNS) * 2).astype(np.float32)
    library = ggml()
    library.ggml_quantize_chunk.restype = ctypes.c_size_t
    library.ggml_quantize_chunk.argtypes = [
        ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p,
    ]
    from gguf import GGMLQuantizationType
    from gguf.quants import dequantize

    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "weights"
        path.write_bytes(weights.tobytes() + importance.tobytes())
        out = Path(scratch) / "blocks"
        ours = subprocess.run([sys.argv[1], path, str(COLUMNS), out], check=True, capture_output=True, text=True)
        ours = {name: float(speed) for name, speed in (line.split() for line in ours.stdout.splitlines())}
        print("| type | gamma, M weights/s | ggml | ratio | weighted error to ggml's |")
        print("|---|---:|---:|---:|---:|")
        for name, number in TYPES.items():
            block, size = BLOCKS[name]
            theirs = np.zeros(ROWS * COLUMNS // block * size, np.uint8)
            fastest = float("inf")
            for _ in range(3):
                start = time.perf_counter()
                library.ggml_quantize_chunk(
                    number, weights.ctypes.data, theirs.ctypes.data, 0, ROWS, COLUMNS, importance.ctypes.data
                )
                fastest = min(fastest, time.perf_counter() - start)
            speed = weights.size / fastest / 1e6

            def error(blocks):
                decoded = dequantize(blocks.reshape(ROWS, -1), GGMLQuantizationType(number)).reshape(ROWS, COLUMNS)
                return float((importance * (weights - decoded) ** 2).sum())

            own = np.frombuffer((out / name).read_bytes(), np.uint8)
            ratio = error(own) / error(theirs)
            print(f"| `{name}` | {ours[name]:.1f} | {speed:.1f} | {ours[name] / speed:.2f} | {ratio:.3f} |")


main()
