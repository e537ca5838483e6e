"""Golden values of AWQ and HQQ on three inputs of block 2 of the fable fixture.

    python make_scaling.py

Made with torch 2.13.0, transformers 5.23.0, tokenizers 0.23.3, safetensors 0.8.0, Python 3.11.
Written after the publications: AWQ is arXiv 2306.00978 (scale search of section 3.2 and range
search, grids as in the authors' code), HQQ is https://mobiusml.github.io/hqq_blog/. Groups of 64
along the input dimension; the weights themselves are in the fixture.

Inputs (first 64 windows of 256 ids of calibration.txt): `attn` feeds q, k and v, `mlp` feeds gate
and up, `down` feeds down.

AWQ, per input and width 2, 3, 4. The rounding is affine with float32 scales: scale = (max - min) /
(2^b - 1), zero = clamp(-round(min / scale), 0, 2^b - 1). The scales are mean|x|^alpha, at least
1e-4, over the root of their largest times their smallest; alpha is the best of 0, 1/20, ... 19/20
by the mean square error of the outputs. The ranges shrink afterwards, max|w| per group to 1, 19/20,
... 11/20 of itself, by the error of the group's part of the output.

HQQ, per module and width 2, 3, 4: p = 0.7, beta = 10 * 1.01^i, up to 20 iterations, ended when the
mean |w - v| no longer falls. Start: scale = (max - min) / (2^b - 1), zero = -min / scale, rounded
for 4 bits. Scale and zero point are stored in float16. `int` is the same with the zero point
rounded and clamped to b bits, and codes chosen anew.

Tensors. `<input>.hessian` (f32): the upper triangle, row after row, of the mean of x x^T.
`<input>.awq.<bits>.scales` (f32 [in]). `<input>.awq.<bits>.errors` (f64 [3]): sum over tokens of the
squared output error, over that of the outputs, for plain rounding, for the scales, and for scales
and ranges. `<module>.hqq.<bits>.<float|int>` (f64 [2]): the same error, and the sum of |w - v|^0.7.
"""

from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM

HERE = Path(__file__).resolve().parent
FABLE = HERE.parent / "fixtures" / "fable"
GROUP = 64
WIDTHS = (2, 3, 4)
READERS = {
    "attn": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "mlp": ("mlp.gate_proj", "mlp.up_proj"),
    "down": ("mlp.down_proj",),
}


def collect(model, block):
    """Inputs [tokens, in] of every name in READERS."""
    text = (FABLE / "calibration.txt").read_bytes().decode("utf-8")
    ids = Tokenizer.from_file(str(FABLE / "tokenizer.json")).encode(text).ids[: 64 * 256]
    inputs = {name: [] for name in READERS}
    for name, readers in READERS.items():
        hook = lambda _m, args, _out, name=name: inputs[name].append(args[0].flatten(0, 1))
        block.get_submodule(readers[0]).register_forward_hook(hook)
    for windows in torch.tensor(ids).view(64, 256).split(16):
        model(windows)
    return {name: torch.cat(x) for name, x in inputs.items()}


def in_groups(w):
    return w.reshape(w.shape[0], -1, GROUP)


def rounded(w, bits, groups=None):
    """Decoded weights; the range of every group is that of `groups` where given."""
    g = in_groups(w)
    source = g if groups is None else groups
    low, high, top = source.amin(-1, keepdim=True), source.amax(-1, keepdim=True), 2**bits - 1
    scale = (high - low).clamp(min=1e-5) / top
    zero = (-(low / scale).round()).clamp(0, top)
    return ((((g / scale).round() + zero).clamp(0, top) - zero) * scale).reshape(w.shape)


def output_error(x, weights, decoded):
    """Squared error of all readers' outputs over their squares, summed in float64."""
    error = sum(((x @ (v - w).T).double() ** 2).sum() for w, v in zip(weights, decoded))
    return (error / sum(((x @ w.T).double() ** 2).sum() for w in weights)).item()


def awq_scales(x, weights, bits):
    size, best = x.abs().mean(0), None
    for step in range(20):
        s = size.pow(step / 20).clamp(min=1e-4)
        s = s / (s.max() * s.min()).sqrt()
        error = output_error(x, weights, [rounded(w * s, bits) / s for w in weights])
        if best is None or error < best[0]:
            best = error, s
    return best[1]


def awq_ranges(x, w, bits):
    """Decoded weights after the search for a shrunken, symmetrically clamped range per group."""
    n_groups = w.shape[1] // GROUP
    x = x[:: max(1, len(x) // 512)].reshape(-1, n_groups, GROUP)
    g = in_groups(w)
    largest = g.abs().amax(-1, keepdim=True)
    least = torch.full(g.shape[:2], torch.inf)
    kept = g.clone()
    for step in range(10):
        limit = largest * (1 - step / 20)
        clamped = g.clamp(-limit, limit)
        error = rounded(clamped.reshape(w.shape), bits).reshape(g.shape) - g
        error = torch.einsum("tgi,rgi->rgt", x, error).pow(2).mean(-1)
        better = error < least
        least[better] = error[better]
        kept[better] = clamped[better]
    return rounded(kept.reshape(w.shape), bits)


def hqq(w, bits, p=0.7, beta=10.0, growth=1.01, iterations=20):
    """Decoded weights with float zero points, and with integer ones."""
    g, top = in_groups(w), 2**bits - 1
    low, high = g.amin(-1, keepdim=True), g.amax(-1, keepdim=True)
    steps = (top / (high - low)).clamp(max=2e4)  # the inverse of the scale
    zero = -low * steps
    if bits == 4:
        zero = zero.round()
    least = torch.inf
    for _ in range(iterations):
        codes = (g * steps + zero).round().clamp(0, top)
        decoded = (codes - zero) / steps
        rest = g - decoded
        rest = rest.sign() * torch.relu(rest.abs() - rest.abs().pow(p - 1) / beta)
        zero = (codes - (g - rest) * steps).mean(-1, keepdim=True)
        beta *= growth
        error = (g - decoded).abs().mean().item()
        if error >= least:
            break
        least = error
    scale, whole = (1 / steps).half().float(), zero.round().clamp(0, top)
    codes = (g * steps + zero).round().clamp(0, top)
    floating = scale * (codes - zero.half().float())
    integer = scale * ((g / scale + whole).round().clamp(0, top) - whole)
    return floating.reshape(w.shape), integer.reshape(w.shape)


@torch.no_grad()
def main():
    torch.set_num_threads(1)
    model = AutoModelForCausalLM.from_pretrained(FABLE, dtype=torch.float32, attn_implementation="eager").eval()
    block = model.model.layers[2]
    tensors = {}
    f64 = lambda *values: torch.tensor(values, dtype=torch.float64)
    for name, x in collect(model, block).items():
        hessian = (x.double().T @ x.double() / len(x)).float()
        rows, columns = torch.triu_indices(*hessian.shape)
        tensors[f"{name}.hessian"] = hessian[rows, columns].contiguous()
        modules = {path.split(".")[-1]: block.get_submodule(path).weight for path in READERS[name]}
        weights = list(modules.values())
        for bits in WIDTHS:
            s = awq_scales(x, weights, bits)
            clipped = [awq_ranges(x / s, w * s, bits) / s for w in weights]
            errors = [
                output_error(x, weights, decoded)
                for decoded in (
                    [rounded(w, bits) for w in weights],
                    [rounded(w * s, bits) / s for w in weights],
                    clipped,
                )
            ]
            tensors[f"{name}.awq.{bits}.scales"] = s
            tensors[f"{name}.awq.{bits}.errors"] = f64(*errors)
            print(f"{name} {bits} bits: rounding {errors[0]:.5f}, scales {errors[1]:.5f}, ranges {errors[2]:.5f}")
            for module, w in modules.items():
                for kind, decoded in zip(("float", "int"), hqq(w, bits)):
                    lp = (w - decoded).double().abs().pow(0.7).sum().item()
                    values = f64(output_error(x, [w], [decoded]), lp)
                    tensors[f"{module}.hqq.{bits}.{kind}"] = values
                    print(f"  {module} hqq {kind}: output {values[0]:.5f}, |.|^0.7 {values[1]:.2f}")
    save_file(tensors, HERE / "scaling.safetensors")


if __name__ == "__main__":
    main()
