"""How long the published GPTQ loop takes in torch, for comparison with the example `bench_gptq`.

    python bench_gptq.py [threads, default 2]

Best of three; 3 bits, asymmetric, groups of 128, act-order with static groups.
"""

import sys
import time

import torch

from gptq_reference import factor, prepare, solve

TOKENS = 32768


def best(job, repeats=3):
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        result = job()
        times.append(time.perf_counter() - start)
    return result, min(times)


def inputs(channels, tokens=4096):
    x = torch.rand(tokens, channels) * 2 - 1
    for channel in range(1, channels):
        x[:, channel] += 0.6 * x[:, channel - 1]
    x[:, :: channels // 8] *= 8
    return x


def statistics(x, tokens=TOKENS):
    h = torch.zeros(x.shape[1], x.shape[1])
    for _ in range(tokens // x.shape[0]):
        h += x.T @ x / tokens
    return h


@torch.no_grad()
def main():
    torch.set_num_threads(int(sys.argv[1]) if len(sys.argv) > 1 else 2)
    torch.manual_seed(0)
    a, b = torch.rand(2048, 2048), torch.rand(2048, 2048)
    peak = 2 * 2048**3 / best(lambda: a @ b, 5)[1] * 1e-9
    print(f"{torch.get_num_threads()} threads; plain product of 2048 x 2048 matrices: {peak:.0f} GFLOP/s\n")
    print("| out x in | factor, s | one width, s | GFLOP/s | of the plain product |")
    print("|---|---:|---:|---:|---:|")
    for rows, columns in ((2048, 2048), (2048, 8192)):
        repeats = 3 if columns < 4096 else 1
        weight = 0.02 * (torch.rand(rows, columns) * 2 - 1)
        hessian = statistics(inputs(columns, 8192 if columns > 4096 else 4096))
        w, h, order = prepare(weight, hessian, act_order=True)
        h = h[order][:, order]
        hinv, to_factor = best(lambda: factor(h.clone()), repeats)
        _, to_solve = best(lambda: solve(w, hinv, 3, False, 128, order), repeats)
        rate = rows * columns**2 / to_solve * 1e-9
        print(f"| {rows} x {columns} | {to_factor:.3f} | {to_solve:.3f} | {rate:.0f} | {rate / peak:.2f} |", flush=True)
    x = inputs(2048)
    _, gathering = best(lambda: statistics(x))
    print(f"\nstatistics of {TOKENS} tokens of 2048 channels: {gathering:.3f} s")


if __name__ == "__main__":
    main()
