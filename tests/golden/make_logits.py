"""Golden values from Hugging Face transformers, an implementation outside this project.

    python make_logits.py            # everything
    python make_logits.py random     # only the random models
    python make_logits.py judged     # only tokenizers and perplexities of random models
    python make_logits.py fable      # only the fable fixture
    python make_logits.py real DIR   # only perplexities of the checkpoints in DIR/models

Made with torch 2.13.0, transformers 5.23.0, tokenizers 0.23.3, safetensors 0.8.0, Python 3.11.
Everything is computed in float32 from the weights as stored (float16 or bfloat16
widened), with eager attention, on one CPU thread.
"""

import json
import math
import sys
from collections import Counter
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from tokenizers import Tokenizer, models
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
)

HERE = Path(__file__).resolve().parent
FABLE = HERE.parent / "fixtures" / "fable"

TINY = dict(
    vocab_size=64,
    hidden_size=32,
    intermediate_size=80,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=128,
    tie_word_embeddings=False,
    bos_token_id=0,
    eos_token_id=0,
)
LLAMA3_ROPE = dict(
    rope_type="llama3",
    factor=8.0,
    low_freq_factor=1.0,
    high_freq_factor=4.0,
    original_max_position_embeddings=32,
)


def load(folder):
    """The stored model as transformers reads it, widened to float32."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    return model.eval()


def randomize(model, seed):
    """Weights large enough that attention is sharp and logits are of order 1 to 5."""
    generator = torch.Generator().manual_seed(seed)
    for name, p in model.named_parameters():
        noise = torch.randn(p.shape, generator=generator)
        if "norm" in name:
            p.data = 1 + 0.2 * noise
        elif "bias" in name:
            p.data = 0.7 * noise
        else:
            p.data = noise * {"embed_tokens": 1.0, "lm_head": 0.4}.get(name.split(".")[-2], 1.3 / p.shape[-1] ** 0.5)


def save_logits(folder, length, seed):
    """Write ids [2, length] and their logits; returns both."""
    ids = torch.randint(TINY["vocab_size"], (2, length), generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        logits = load(folder)(ids).logits
    save_file({"ids": ids.int(), "logits": logits.contiguous()}, folder / "logits.safetensors")
    print(f"{folder.name}: logits std {logits.std():.3f}, largest {logits.abs().max():.3f}")
    return ids, logits


def make_qwen2():
    folder = HERE / "qwen2-random"
    model = Qwen2ForCausalLM(Qwen2Config(**TINY, rope_parameters={"rope_type": "default", "rope_theta": 1e6}))
    randomize(model, seed=1)
    model.half().save_pretrained(folder)
    save_logits(folder, 48, seed=2)


def make_llama3():
    """Two shards; config.json is rewritten with the older key names (rope_scaling, torch_dtype).

    Head dimension 24 gives rotary wavelengths in all three ranges of the rule:
    kept (6.3), interpolated (18.7), divided by the factor (56 and longer).
    """
    folder = HERE / "llama3-random"
    rope = {**LLAMA3_ROPE, "rope_theta": 500000.0}
    model = LlamaForCausalLM(LlamaConfig(**TINY, head_dim=24, attention_bias=False, rope_parameters=rope))
    randomize(model, seed=3)
    model.bfloat16().save_pretrained(folder, max_shard_size="44KB")
    assert len(list(folder.glob("model-*-of-00002.safetensors"))) == 2

    path = folder / "config.json"
    config = json.loads(path.read_text())
    del config["rope_parameters"], config["dtype"]
    config |= {"rope_scaling": LLAMA3_ROPE, "rope_theta": 500000.0, "torch_dtype": "bfloat16"}
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    ids, logits = save_logits(folder, 96, seed=4)

    model = load(folder)
    assert model.config.rope_parameters["rope_type"] == "llama3"
    model.config.rope_parameters = {"rope_type": "default", "rope_theta": 500000.0}
    plain = LlamaForCausalLM(model.config).eval()
    plain.load_state_dict(model.state_dict())
    with torch.no_grad():
        difference = (plain(ids).logits - logits).abs()
    print(f"  without rope scaling logits differ by {difference.mean():.4f} on average, at most {difference.max():.3f}")
    assert difference.mean() > 0.05


@torch.no_grad()
def make_qwen3():
    """Heads wider than the hidden size over their number, and biases, which published models lack:
    they tell a norm before the bias from one after it."""
    folder = HERE / "qwen3-random"
    rope = {"rope_type": "default", "rope_theta": 1e6}
    model = Qwen3ForCausalLM(Qwen3Config(**TINY, head_dim=16, attention_bias=True, rope_parameters=rope))
    randomize(model, seed=5)
    model.bfloat16().save_pretrained(folder)
    ids, logits = save_logits(folder, 48, seed=6)

    plain = load(folder)
    for layer in plain.model.layers:
        layer.self_attn.q_norm.weight.fill_(1.0)
        layer.self_attn.k_norm.weight.fill_(1.0)
    difference = (plain(ids).logits - logits).abs()
    print(f"  without weights of q_norm and k_norm logits differ by {difference.mean():.4f} on average")
    assert difference.mean() > 0.05


@torch.no_grad()
def make_mistral():
    """A window shorter than the sequences."""
    folder = HERE / "mistral-random"
    rope = {"rope_type": "default", "rope_theta": 1e4}
    model = MistralForCausalLM(MistralConfig(**TINY, head_dim=8, sliding_window=12, rope_parameters=rope))
    randomize(model, seed=7)
    model.bfloat16().save_pretrained(folder)
    ids, logits = save_logits(folder, 48, seed=8)

    model = load(folder)
    model.config.sliding_window = None
    difference = (model(ids).logits - logits).abs()
    print(f"  without the window logits differ by {difference[:, 12:].mean():.4f} on average from token 12 on")
    assert difference[:, :12].max() < 1e-5 and difference[:, 12:].mean() > 0.05


def experts_of(folder):
    """The tensors of experts and routers as they stand in the file."""
    with safe_open(folder / "model.safetensors", "pt") as file:
        return [name for name in file.keys() if ".experts." in name or name.endswith(".gate.weight")]


@torch.no_grad()
def make_qwen3_moe():
    """Four blocks of which only the second has experts: the first and the third by the step, the last
    one by the list of exceptions. Shares of the chosen experts are left as they are."""
    folder = HERE / "qwen3-moe-random"
    sizes = TINY | dict(num_hidden_layers=4, intermediate_size=40)
    experts = dict(num_experts=6, num_experts_per_tok=2, moe_intermediate_size=16, norm_topk_prob=False)
    blocks = dict(decoder_sparse_step=2, mlp_only_layers=[3])
    rope = {"rope_type": "default", "rope_theta": 1e6}
    model = Qwen3MoeForCausalLM(Qwen3MoeConfig(**sizes, **experts, **blocks, head_dim=8, rope_parameters=rope))
    randomize(model, seed=9)
    model.bfloat16().save_pretrained(folder)
    names = experts_of(folder)
    assert len(names) == 6 * 3 + 1 and all(name.startswith("model.layers.1.mlp.") for name in names), names
    ids, logits = save_logits(folder, 48, seed=10)

    model = load(folder)
    model.model.layers[1].mlp.gate.norm_topk_prob = True
    difference = (model(ids).logits - logits).abs()
    print(f"  with shares that sum to one logits differ by {difference.mean():.4f} on average")
    assert difference.mean() > 0.01


@torch.no_grad()
def make_mixtral():
    folder = HERE / "mixtral-random"
    sizes = TINY | dict(intermediate_size=24)
    rope = {"rope_type": "default", "rope_theta": 1e6}
    model = MixtralForCausalLM(MixtralConfig(**sizes, num_local_experts=4, num_experts_per_tok=2, rope_parameters=rope))
    randomize(model, seed=11)
    model.bfloat16().save_pretrained(folder)
    names = experts_of(folder)
    assert "model.layers.1.block_sparse_moe.experts.3.w2.weight" in names, names
    save_logits(folder, 48, seed=12)


def mean_loss(model, windows, batch=16):
    """Mean negative log-likelihood, in nats, of all tokens but the first of each window."""
    total = 0.0
    for part in windows.split(batch):
        log_p = model(part).logits[:, :-1].log_softmax(-1)
        total -= log_p.gather(-1, part[:, 1:, None]).double().sum().item()
    return total / (windows.shape[0] * (windows.shape[1] - 1))


@torch.no_grad()
def make_perplexity(name, window=64, count=32):
    """A tokenizer that knows characters, and the perplexity of the first windows of a text."""
    folder = HERE / name
    text = (FABLE / "evaluation.txt").read_bytes().decode("utf-8")
    common = [letter for letter, _ in Counter(sorted(text)).most_common(TINY["vocab_size"] - 1)]
    vocabulary = {"<unk>": 0} | {letter: id for id, letter in enumerate(common, start=1)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token="<unk>"))
    tokenizer.save(str(folder / "tokenizer.json"), pretty=False)

    ids = tokenizer.encode(text).ids
    assert len(ids) == len(text)
    loss = mean_loss(load(folder), torch.tensor(ids[: window * count]).view(count, window))
    result = {
        "text": "evaluation.txt",
        "window": window,
        "windows": count,
        "predicted": count * (window - 1),
        "mean_loss": loss,
        "perplexity": math.exp(loss),
    }
    (folder / "perplexity.json").write_text(json.dumps(result, indent=2) + "\n")
    print(f"{name}:", result)


REAL = ["stories260K", "stories3M-sharded", "qwen2-3M", "qwen3-3M"]


@torch.no_grad()
def make_real(data, length=30_000, window=256, count=24):
    """The first windows of the beginning of a text, for checkpoints that are not in the repository."""
    rows = []
    for name in REAL:
        folder = data / "models" / name
        text = (data / "corpora" / "tinystories-eval.txt").read_bytes()[:length].decode("ascii")
        ids = Tokenizer.from_file(str(folder / "tokenizer.json")).encode(text).ids
        loss = mean_loss(load(folder), torch.tensor(ids[: window * count]).view(count, window))
        rows.append({"model": name, "file": "tinystories-eval.txt", "bytes": length, "window": window})
        rows[-1] |= {"windows": count, "predicted": count * (window - 1), "mean_loss": loss}
        print(rows[-1])
    (HERE / "real_perplexities.json").write_text(json.dumps(rows, indent=2) + "\n")


@torch.no_grad()
def make_fable(window=256):
    model = load(FABLE)
    text = (FABLE / "evaluation.txt").read_bytes().decode("utf-8")
    ids = Tokenizer.from_file(str(FABLE / "tokenizer.json")).encode(text).ids

    # Hooks, because output_hidden_states gives the last block after the final norm.
    blocks = []
    hooks = [
        layer.register_forward_hook(lambda _m, _i, out: blocks.append(out[0] if isinstance(out, tuple) else out))
        for layer in model.model.layers
    ]
    first = torch.tensor([ids[:64]])
    logits = model(first).logits[0]
    for hook in hooks:
        hook.remove()
    hidden = torch.stack([h.reshape(64, -1) for h in blocks])
    tensors = {"ids": first[0].int(), "logits": logits.contiguous(), "hidden_states": hidden}
    save_file(tensors, HERE / "fable_logits.safetensors")

    windows = torch.tensor(ids[: len(ids) // window * window]).view(-1, window)
    loss = mean_loss(model, windows)
    result = {
        "text": "evaluation.txt",
        "protocol": f"window {window}",
        "ids": len(ids),
        "windows": windows.shape[0],
        "predicted": windows.shape[0] * (window - 1),
        "mean_loss": loss,
        "perplexity": math.exp(loss),
    }
    (HERE / "fable_perplexity.json").write_text(json.dumps(result, indent=2) + "\n")
    print("fable:", result)


if __name__ == "__main__":
    torch.set_num_threads(1)
    what = sys.argv[1] if len(sys.argv) > 1 else "all"
    if what in ("all", "random"):
        make_qwen2()
        make_llama3()
        make_qwen3()
        make_mistral()
        make_qwen3_moe()
        make_mixtral()
    if what in ("all", "random", "judged"):
        for name in ("mistral-random", "qwen3-moe-random", "mixtral-random"):
            make_perplexity(name)
    if what in ("all", "fable"):
        make_fable()
    if what == "real":
        make_real(Path(sys.argv[2]))
