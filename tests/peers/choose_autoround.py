"""The bits that `AutoScheme` of Intel AutoRound chooses.

    python choose_autoround.py --model DIR --calibration FILE --budget 2.5 3 --out FILE

Calls the generator of schemes itself, on a model in float32. `AutoRound(scheme=AutoScheme(..))` calls it
too, but computes in bfloat16 by default, and first fixes modules whose sides 32 does not divide at 16 bits.
"""

import importlib.metadata
import os
import tempfile
import time

# The cache knows a model by the name of its folder, not by its weights.
CACHE = tempfile.TemporaryDirectory()
os.environ["AR_AUTO_SCHEME_CACHE"] = CACHE.name
os.environ["AR_DISABLE_DATASET_SUBPROCESS"] = "1"  # the tokens are already here
os.environ["AR_ALLOW_W8_ASYM"] = "1"

import shared

from auto_round import AutoScheme
from auto_round.auto_scheme.gen_auto_scheme import GenScheme
from auto_round.calib_dataset import register_dataset
from auto_round.schemes import QuantizationScheme
from datasets import Dataset
from transformers import AutoTokenizer

TOKENS = "given_tokens"


def main():
    args = shared.arguments(__doc__).parse_args()
    model = shared.start(args)
    ids = shared.sequences(args)
    version = importlib.metadata.version("auto-round")
    record = shared.Record(args, f"auto-round {version} AutoScheme", model, rounding="asymmetric")

    @register_dataset(TOKENS)
    def given(**_):
        return Dataset.from_dict({"input_ids": ids.tolist(), "attention_mask": [[1] * args.length] * len(ids)})

    def layer_config(budget):
        scheme = AutoScheme(
            avg_bits=budget,
            options=[
                QuantizationScheme(bits=bits, group_size=shared.GROUP, sym=False, data_type="int", act_bits=16)
                for bits in args.bits
            ],
            ignore_scale_zp_bits=True,  # codes alone count, as in every peer
            nsamples=args.sequences,
            seqlen=args.length,
            batch_size=shared.BATCH,
            low_cpu_mem_usage=False,  # it would read the weights again, at 16 bits
            low_gpu_mem_usage=False,  # block by block, with the same gradients, but several times slower
        )
        generator = GenScheme(
            scheme,
            model,
            list(record.weights),
            fixed_layer_scheme={},
            dataset=TOKENS,
            device_map="cpu",
            tokenizer=AutoTokenizer.from_pretrained(args.model),
            enable_torch_compile=False,
        )
        return {name: config["bits"] for name, config in generator.get_layer_config().items()}

    record.began = time.perf_counter()
    layer_config(max(args.budget))
    record.scored()
    for budget in args.budget:
        solve = time.perf_counter()
        bits = layer_config(budget)  # from the scores in the cache
        record.add(budget, bits, time.perf_counter() - solve)
    record.write()


if __name__ == "__main__":
    main()
