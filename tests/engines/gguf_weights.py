"""The gguf package decodes a written file to the weights that were planned.

    python gguf_weights.py OUT_FOLDER

OUT_FOLDER is what the example `engine_files` wrote.
"""

import json
import sys
from pathlib import Path

import numpy as np
from gguf import GGUFReader
from gguf.quants import dequantize

from common import read_tensors

ROLES = {
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def gguf_name(name):
    stem, part = name.rsplit(".", 1)
    outside = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
    if stem in outside:
        return f"{outside[stem]}.{part}"
    block, role = stem.removeprefix("model.layers.").split(".", 1)
    return f"blk.{block}.{ROLES[role]}.{part}"


def restored(values, heads):
    """The inverse of the converter's `reshape(heads, 2, half, ...).swapaxes(1, 2)`."""
    half = values.shape[0] // heads // 2
    return values.reshape(heads, half, 2, *values.shape[1:]).swapaxes(1, 2).reshape(values.shape)


def check(out, name):
    folder = out / f"{name}-weights"
    config = json.loads((folder / "config.json").read_text())
    heads = {"attn_q": config["num_attention_heads"], "attn_k": config["num_key_value_heads"]}
    expected = {}
    for key, value in read_tensors(folder).items():
        expected[gguf_name(key)] = value
    reader = GGUFReader(out / f"{name}.gguf")
    kinds = {}
    for tensor in reader.tensors:
        if tensor.name == "rope_freqs.weight":
            continue
        values = decoded(tensor)
        role = tensor.name.split(".")[2] if tensor.name.startswith("blk.") else ""
        if config["model_type"] == "llama" and role in heads:
            values = restored(values, heads[role])
        want = expected.pop(tensor.name)
        assert values.shape == want.shape, (tensor.name, values.shape, want.shape)
        # The sum makes one zero of both.
        assert np.array_equal(values + 0.0, want + 0.0), tensor.name
        kinds[tensor.tensor_type.name] = kinds.get(tensor.tensor_type.name, 0) + 1
    left = [key for key in expected if not (key == "output.weight" and config["tie_word_embeddings"])]
    assert not left, left
    made_by = reader.fields["gamma.made_by"].contents()
    print(f"{name}.gguf: {sum(kinds.values())} tensors bit by bit: {kinds}, made by {made_by}")


def decoded(tensor):
    values = dequantize(np.asarray(tensor.data), tensor.tensor_type).astype(np.float32)
    return values.reshape(tuple(int(side) for side in reversed(tensor.shape)))


if __name__ == "__main__":
    for name in ["mixed", "eight"]:
        check(Path(sys.argv[1]) / "gguf", name)
