"""Times one learning step of a Llama block in PyTorch, as a partner for a benchmark in Rust.

    python learn_step.py --dim 192 --heads 6 --kv-heads 2 --ffn 512 --batch 8 --tokens 256 --threads 1

A step: every one of the seven modules takes one of K candidate weights, chosen at random; the block runs
forward and backward in float32 with a mean squared error against given outputs; then the K inner products
`<G, Q_k - W>` per module, with `G` the gradient of the chosen weight. The block's input needs no gradient,
unless `--input-gradient`. Prints JSON.

What counts as FLOP: two per multiplication of the matrix products that the step needs, of attention over
the whole square (so a kernel that skips the future looks faster than it is), and of the inner products.
"""

import argparse
import json
import resource
import statistics
import time

import torch
import torch.nn.functional as F


def shapes(a):
    head = a.head_dim or a.dim // a.heads
    q, kv = a.heads * head, a.kv_heads * head
    return {
        "q": (q, a.dim), "k": (kv, a.dim), "v": (kv, a.dim), "o": (a.dim, q),
        "gate": (a.ffn, a.dim), "up": (a.ffn, a.dim), "down": (a.dim, a.ffn),
    }  # fmt: skip


def rotary(tokens, head, base=10000.0):
    angles = torch.outer(torch.arange(tokens).float(), base ** (-torch.arange(0, head, 2).float() / head))
    angles = torch.cat([angles, angles], dim=-1)
    return angles.cos(), angles.sin()


def rotate(x, cos, sin):
    half = x.shape[-1] // 2
    return x * cos + torch.cat([-x[..., half:], x[..., :half]], dim=-1) * sin


def norm(x):
    return F.rms_norm(x, x.shape[-1:], eps=1e-5)


def block(x, w, a, cos, sin):
    batch, tokens, _ = x.shape

    def split(y, heads):
        return y.view(batch, tokens, heads, -1).transpose(1, 2)

    h = norm(x)
    q = rotate(split(F.linear(h, w["q"]), a.heads), cos, sin)
    k = rotate(split(F.linear(h, w["k"]), a.kv_heads), cos, sin)
    v = split(F.linear(h, w["v"]), a.kv_heads)
    y = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=a.heads != a.kv_heads)
    x = x + F.linear(y.transpose(1, 2).reshape(batch, tokens, -1), w["o"])
    h = norm(x)
    return x + F.linear(F.silu(F.linear(h, w["gate"])) * F.linear(h, w["up"]), w["down"])


def step(x, target, weights, candidates, a, cos, sin):
    """The K inner products of every module, at one random choice."""
    chosen = {}
    for name, options in candidates.items():
        chosen[name] = options[torch.randint(len(options), ())].detach().requires_grad_()
    F.mse_loss(block(x, chosen, a, cos, sin), target).backward()
    with torch.no_grad():
        products = {}
        for name, options in candidates.items():
            gradient = chosen[name].grad.flatten()
            # <G, Q_k - W> = <G, Q_k> - <G, W>
            products[name] = options.flatten(1) @ gradient - weights[name].flatten() @ gradient
    x.grad = None
    return products


def flop(a):
    sizes = {name: rows * columns for name, (rows, columns) in shapes(a).items()}
    every = sum(sizes.values())
    to_inputs = sum(n for name, n in sizes.items() if a.input_gradient or name not in ("q", "k", "v"))
    head = a.head_dim or a.dim // a.heads
    attention = 2 * 2 * a.batch * a.heads * a.tokens**2 * head  # forward; backward is twice that
    return 2 * a.batch * a.tokens * (2 * every + to_inputs) + 3 * attention + 2 * (a.candidates + 1) * every


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in dict(dim=192, heads=6, kv_heads=2, ffn=512, batch=8, tokens=256, threads=1).items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=default)
    parser.add_argument("--head-dim", type=int, help="dim / heads if not given")
    parser.add_argument("--candidates", type=int, default=6)
    parser.add_argument("--input-gradient", action="store_true")
    parser.add_argument("--warmup", type=int, default=2)
    parser.add_argument("--steps", type=int, default=10)
    a = parser.parse_args()
    torch.set_num_threads(a.threads)
    torch.manual_seed(0)

    weights = {name: torch.randn(shape) / shape[1] ** 0.5 for name, shape in shapes(a).items()}
    candidates = {
        name: torch.stack([w + torch.randn_like(w) * 0.5 ** (k + 2) / w.shape[1] ** 0.5 for k in range(a.candidates)])
        for name, w in weights.items()
    }
    x = torch.randn(a.batch, a.tokens, a.dim)
    cos, sin = rotary(a.tokens, a.head_dim or a.dim // a.heads)
    with torch.no_grad():
        target = block(x, weights, a, cos, sin)

    x.requires_grad_(a.input_gradient)
    seconds = []
    for _ in range(a.warmup + a.steps):
        began = time.perf_counter()
        step(x, target, weights, candidates, a, cos, sin)
        seconds.append(time.perf_counter() - began)
    seconds = seconds[a.warmup :]
    median, fastest = statistics.median(seconds), min(seconds)
    result = {
        "what": f"PyTorch {torch.__version__}, float32, one learning step of a Llama block",
        "settings": {**vars(a), "weights": sum(w.numel() for w in weights.values())},
        "seconds_median": median,
        "seconds_min": fastest,
        "tokens_per_second": a.batch * a.tokens / median,
        "gflop_per_step": flop(a) * 1e-9,
        "gflop_per_second": flop(a) * 1e-9 / median,
        "gflop_per_second_fastest": flop(a) * 1e-9 / fastest,
        "peak_rss_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
