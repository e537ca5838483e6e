"""The bits that `auto_quantize` of NVIDIA Model-Optimizer chooses.

    python choose_modelopt.py --model DIR --calibration FILE --budget 2.5 3 --out FILE
        [--method gradient|kl_div] [--rounding asymmetric|native]

`native` is the integer format of the package: symmetric, so that 2 bits have three levels. `asymmetric`
plugs round-to-nearest with a zero point and a float16 scale, the rule of `../golden/make_rtn.py`, into the
package as a backend.
"""

import importlib.metadata
import time

import torch

import shared

import modelopt.torch.quantization as mtq
from modelopt.torch.quantization.algorithms import AutoQuantizeGradientSearcher, AutoQuantizeKLDivSearcher
from modelopt.torch.quantization.nn.modules.tensor_quantizer import register_quant_backend

SMALLEST = 2.0**-24  # the smallest float16 above zero


def asymmetric(weight, bits):
    """`weight`, `[rows, columns]`, rounded in groups; a last, shorter group keeps its own scale."""
    top, result = float(2**bits - 1), []
    for group in weight.split(shared.GROUP, dim=-1):
        low = group.amin(-1, keepdim=True).clamp(max=0)
        high = group.amax(-1, keepdim=True).clamp(min=0)
        scale = ((high - low) / top).half().float().clamp(min=SMALLEST)
        zero = (-low / scale).round().clamp(0, top)
        code = ((group / scale).round() + zero).clamp(0, top)
        result.append((code - zero) * scale)
    return torch.cat(result, dim=-1)


def asymmetric_backend():
    """The function above as a backend. Every quantizer has one weight, which stays as it is: round it once."""
    known = {}

    def backend(weight, quantizer):
        if quantizer not in known:
            known[quantizer] = asymmetric(weight.detach(), quantizer.num_bits)
        return known[quantizer]

    return backend


def weight_only(bits, rounding):
    if rounding == "native":
        quantizer = {"num_bits": bits, "block_sizes": {-1: shared.GROUP}}
    else:
        quantizer = {"num_bits": bits, "backend": "asymmetric"}
    return {
        "quant_cfg": [
            {"quantizer_name": "*", "enable": False},
            {"quantizer_name": "*weight_quantizer", "cfg": quantizer, "enable": True},
        ],
        "algorithm": "max",
        "effective_bits": float(bits),  # codes alone count, as in every peer
    }


def chosen(state, budget):
    """Bits by module name, by the package's own re-solve."""
    config = mtq.get_auto_quantize_config(state, {"effective_bits": budget})
    suffix = ".weight_quantizer"
    return {
        entry["quantizer_name"].removesuffix(suffix): entry["cfg"]["num_bits"]
        for entry in config["quant_cfg"]
        if entry["quantizer_name"].endswith(suffix) and entry["enable"]
    }


def main():
    parser = shared.arguments(__doc__)
    parser.add_argument("--method", choices=("gradient", "kl_div"), default="gradient")
    parser.add_argument("--rounding", choices=("asymmetric", "native"), default="asymmetric")
    args = parser.parse_args()
    model = shared.start(args)
    batches = [{"input_ids": ids} for ids in shared.sequences(args).split(shared.BATCH)]
    version = importlib.metadata.version("nvidia-modelopt")
    record = shared.Record(
        args, f"nvidia-modelopt {version} auto_quantize {args.method}", model, rounding=args.rounding
    )

    # By default q/k/v share a format, and so do gate/up.
    AutoQuantizeGradientSearcher.quant_grouping_rules = []
    AutoQuantizeKLDivSearcher.quant_grouping_rules = []
    if args.rounding == "asymmetric":
        register_quant_backend("asymmetric", asymmetric_backend())

    def loss(output, batch):
        logits, targets = output.logits[:, :-1], batch["input_ids"][:, 1:]
        return torch.nn.functional.cross_entropy(logits.reshape(-1, logits.shape[-1]), targets.reshape(-1))

    def forward(model, batch):
        output = model(**batch, use_cache=False)
        return output.logits if args.method == "kl_div" else output

    formats = [weight_only(bits, args.rounding) for bits in args.bits]
    record.began = time.perf_counter()
    _, state = mtq.auto_quantize(
        model,
        constraints={"effective_bits": max(args.budget), "cost": {"excluded_module_name_patterns": ["*lm_head*"]}},
        quantization_formats=formats,
        # Without this, 16 bits are one more candidate.
        module_search_spaces=[
            {"module_name_patterns": ["*.layers.*"], "quantization_formats": formats, "allow_no_quant": False}
        ],
        data_loader=batches,
        forward_step=forward,
        loss_func=None if args.method == "kl_div" else loss,
        disabled_layers=["*lm_head*"],
        num_calib_steps=1,  # a weight-only format learns nothing from tokens
        num_score_steps=len(batches),
        method=args.method,
        checkpoint=None,  # it would be reused for other weights without a word
        verbose=False,
    )
    record.scored()
    for budget in args.budget:
        solve = time.perf_counter()
        bits = chosen(state, budget)
        record.add(budget, bits, time.perf_counter() - solve)
    record.write()


if __name__ == "__main__":
    main()
