"""What every peer is given alike: the model, the calibration tokens, the candidates, the output format."""

import argparse
import json
import random
import time
from pathlib import Path

import torch
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM

CANDIDATES = (2, 3, 4, 5, 6, 8)
GROUP = 64
BATCH = 8


def arguments(description):
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--model", type=Path, required=True, help="Hugging Face folder")
    parser.add_argument("--calibration", type=Path, required=True, help="text file")
    parser.add_argument("--budget", type=float, nargs="+", required=True, help="average code bits per weight")
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    parser.add_argument("--sequences", type=int, default=128)
    parser.add_argument("--length", type=int, default=256, help="tokens per sequence")
    parser.add_argument("--bits", type=int, nargs="+", default=CANDIDATES, help="candidates")
    parser.add_argument("--threads", type=int, default=1)
    return parser


def start(args):
    """Fixes seeds and threads. Weights of 16 bits are widened: every peer computes in float32."""
    random.seed(0)
    torch.manual_seed(0)
    torch.set_num_threads(args.threads)
    model = AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.float32, attn_implementation="sdpa")
    return model.eval()


def sequences(args):
    """`[sequences, length]` ids, the same that gamma reads: one call of the tokenizer for the whole
    file, cut into windows without overlap, of which some are taken, spread evenly."""
    tokenizer = Tokenizer.from_file(str(args.model / "tokenizer.json"))
    tokenizer.no_truncation()
    ids = tokenizer.encode(args.calibration.read_text(encoding="utf-8")).ids
    windows = len(ids) // args.length
    if windows < args.sequences:
        raise SystemExit(f"`{args.calibration}` has {windows} windows of {args.length} tokens, not {args.sequences}")
    ids = torch.tensor(ids[: windows * args.length]).view(windows, args.length)
    return ids[[i * windows // args.sequences for i in range(args.sequences)]]


def block_linears(model):
    """Weights per module, by exact name: the linear modules of the blocks, so neither head nor embeddings."""
    return {
        name: module.weight.numel()
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and ".layers." in name
    }


class Record:
    """The neutral file: what was chosen, under which settings, and how long it took."""

    def __init__(self, args, tool, model, **settings):
        self.out, self.weights = args.out, block_linears(model)
        self.json = {
            "tool": tool,
            "model": args.model.resolve().name,
            "settings": {
                "candidates": list(args.bits),
                "group": GROUP,
                "sequences": args.sequences,
                "length": args.length,
                "calibration": args.calibration.name,
                "threads": args.threads,
                **settings,
            },
            "scoring_seconds": None,
            "budgets": {},
        }
        self.began = time.perf_counter()

    def scored(self):
        self.json["scoring_seconds"] = round(time.perf_counter() - self.began, 1)

    def add(self, budget, bits, seconds):
        """`bits` by module name; `seconds` of the solve alone."""
        if bits.keys() != self.weights.keys():
            raise SystemExit(f"modules that differ: {sorted(bits.keys() ^ self.weights.keys())}")
        if stray := sorted(set(bits.values()) - set(self.json["settings"]["candidates"])):
            raise SystemExit(f"bit-widths that were not offered: {stray}")
        average = sum(self.weights[name] * b for name, b in bits.items()) / sum(self.weights.values())
        self.json["budgets"][f"{budget:g}"] = {
            "average_bits": round(average, 6),
            "within_budget": average <= budget + 1e-9,
            "seconds": round(self.json["scoring_seconds"] + seconds, 1),
            "bits": {name: bits[name] for name in self.weights},
        }
        print(f"budget {budget:g}: {average:.4f} bits")

    def write(self):
        self.out.parent.mkdir(parents=True, exist_ok=True)
        self.out.write_text(json.dumps(self.json, indent=1) + "\n")
