"""Golden output errors of GPTQ for one matrix of the fable fixture.

    python make_gptq.py

Made with torch 2.13.0, transformers 5.23.0, tokenizers 0.23.3, safetensors 0.8.0, Python 3.11,
on one thread; `gptq_reference.py` is the algorithm.

The matrix is block 2 `down_proj`, its Hessian the mean of x xT over the inputs it gets from the
first 64 windows of 256 ids of the fable `calibration.txt`, in float64, stored in float32.

Tensors: `weight` bf16 [64, 192] as the model stores it, `hessian` f32 [192, 192], and for every
case an error f64 [1], tr(D H DT) with D the difference of the decoded weights, in float64:
`<asym|sym>.g<group>.<stored|act>.<bits>` with `stored` or `act` order. In the stored order only
groups of 128 are made: the published loop takes the grid of a group that begins inside a block
of 128 columns from weights that lack the block's own errors.
"""

from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM

from gptq_reference import gptq

HERE = Path(__file__).resolve().parent
FABLE = HERE.parent / "fixtures" / "fable"
WINDOW, WINDOWS = 256, 64


@torch.no_grad()
def main():
    stored = AutoModelForCausalLM.from_pretrained(FABLE, dtype=torch.bfloat16)
    weight = stored.model.layers[2].mlp.down_proj.weight.detach().clone()
    model = AutoModelForCausalLM.from_pretrained(FABLE, dtype=torch.float32, attn_implementation="eager").eval()
    module = model.model.layers[2].mlp.down_proj
    text = (FABLE / "calibration.txt").read_bytes().decode("utf-8")
    ids = Tokenizer.from_file(str(FABLE / "tokenizer.json")).encode(text).ids
    windows = torch.tensor(ids[: WINDOW * WINDOWS]).view(WINDOWS, WINDOW)

    sums = torch.zeros(192, 192, dtype=torch.float64)

    def gather(_module, inputs):
        x = inputs[0].reshape(-1, 192).double()
        sums.add_(x.T @ x)

    hook = module.register_forward_pre_hook(gather)
    for batch in windows.split(8):
        model(batch)
    hook.remove()
    hessian = (sums / windows.numel()).float()

    tensors = {"weight": weight, "hessian": hessian}
    w, h = weight.float(), hessian.double()

    def error(quantized):
        d = (w - quantized).double()
        return torch.trace(d @ h @ d.T).reshape(1)

    for scheme in ("asym", "sym"):
        for group, order in ((128, "stored"), (128, "act"), (64, "act")):
            for bits in (2, 3, 4, 8):
                case = f"{scheme}.g{group}.{order}.{bits}"
                tensors[case] = error(gptq(w, hessian, bits, scheme == "sym", group, order == "act"))
                print(f"{case:20} {tensors[case].item():.6e}")
    save_file({k: v.contiguous() for k, v in tensors.items()}, HERE / "gptq.safetensors")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
