"""How long GPTQ takes elsewhere, on request of the example `bench_gptq`.

    python bench_gptq.py FOLDER THREADS

Prints a line `has METHOD` for `loop`, the published loop of `gptq_reference.py`, and for
`gptqmodel` where that package is installed, `peak GFLOPS` for a plain product of matrices, and
`ready`. Then reads lines `LAYER METHOD`, takes `weight` and `hessian` of FOLDER/LAYER.safetensors,
and answers `done SECONDS SECONDS`, to factor the Hessian and for the rest, after it has written
`decoded` to FOLDER/decoded.safetensors. 3 bits, asymmetric, groups of 128, damping 0.01, act-order
with static groups.
"""

import os
import sys
import time

REPLY = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)  # packages that greet do so elsewhere
os.environ.setdefault("GPTQMODEL_CPU_WORKERS", "4")  # its default is a division by zero on two cores

import torch
from safetensors.torch import load_file, save_file

from gptq_reference import factor, prepare, solve

BITS, GROUP, DAMPING = 3, 128, 0.01


def reply(*words):
    print(*words, file=REPLY, flush=True)


def loop(weight, hessian):
    start = time.perf_counter()
    w, h, order = prepare(weight, hessian, act_order=True)
    hinv = factor(h[order][:, order], DAMPING)
    between = time.perf_counter()
    decoded = solve(w, hinv, BITS, False, GROUP, order)
    return decoded, between - start, time.perf_counter() - between


def gptqmodel(weight, hessian):
    from gptqmodel.quantization import GPTQ, QuantizeConfig

    config = QuantizeConfig(
        bits=BITS, group_size=GROUP, sym=False, desc_act=True, act_group_aware=False, damp_percent=DAMPING,
        static_groups=True, fallback=None,
    )  # fmt: skip
    layer = torch.nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    layer.weight.data = weight
    task = GPTQ(layer, config)
    task.quantizer.configure(perchannel=True)
    # As if the tokens had been counted already.
    task.H, task.nsamples, task._hessian_total_samples = hessian.clone(), 1, 1
    seconds = []
    invert = task.hessian_inverse

    def timed(h):
        start = time.perf_counter()
        result = invert(h)
        seconds.append(time.perf_counter() - start)
        return result

    task.hessian_inverse = timed
    start = time.perf_counter()
    decoded = task.quantize()[0]
    total = time.perf_counter() - start
    return decoded, sum(seconds), total - sum(seconds)


def peak(repeats=5):
    a, b = torch.rand(2048, 2048), torch.rand(2048, 2048)
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        a @ b
        times.append(time.perf_counter() - start)
    return 2 * 2048**3 / min(times) * 1e-9


@torch.no_grad()
def main():
    folder = sys.argv[1]
    torch.set_num_threads(int(sys.argv[2]))
    methods = {"loop": loop}
    reply("has loop PyTorch", torch.__version__)
    try:
        import gptqmodel as package

        methods["gptqmodel"] = gptqmodel
        reply("has gptqmodel GPTQModel", package.__version__)
    except Exception as error:  # it is not there, or not in working order
        print("no gptqmodel:", error, file=sys.stderr)
    torch.set_num_threads(int(sys.argv[2]))
    reply("peak", peak())
    reply("ready")
    for line in sys.stdin:
        layer, method = line.split()
        tensors = load_file(f"{folder}/{layer}.safetensors")
        decoded, to_factor, rest = methods[method](tensors["weight"], tensors["hessian"])
        save_file({"decoded": decoded.contiguous()}, f"{folder}/decoded.safetensors")
        reply("done", to_factor, rest)


if __name__ == "__main__":
    main()
