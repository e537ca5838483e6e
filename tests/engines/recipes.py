"""Recipes, read by the parsers of the tools that they are for, as far as these are installed.

    python recipes.py GAMMA MODEL_FOLDER PLAN

GAMMA is the command, PLAN one of symmetric integers of 2, 3, 4 or 8 bits for the model. What the environment
does not have is said and skipped.
"""

import fnmatch
import json
import re
import runpy
import subprocess
import sys
import tempfile
from pathlib import Path


def main():
    gamma, folder, plan = sys.argv[1], Path(sys.argv[2]), sys.argv[3]
    formats = {}
    for module in json.loads(Path(plan).read_text())["modules"]:
        bits, group, symmetry, _ = re.fullmatch(r"int(\d):g(\d+):(sym|asym):(f16)", module["format"]).groups()
        formats[module["name"]] = (int(bits), int(group), symmetry == "sym")
    with tempfile.TemporaryDirectory() as scratch:
        def recipe(name):
            path = Path(scratch) / name
            subprocess.run([gamma, "export", plan, "--recipe", name, "--out", path], check=True, capture_output=True)
            return path

        for check in [llm_compressor, auto_round, model_optimizer, gptqmodel, mlx, exllamav3]:
            try:
                print(f"{check.__name__}: {check(recipe, formats, folder)}")
            except ImportError as error:
                print(f"{check.__name__}: not checked, {error}")


def llm_compressor(recipe, formats, _):
    """llm-compressor parses groups with the scheme of compressed-tensors."""
    from compressed_tensors.quantization import QuantizationConfig

    modifier = json.loads(recipe("llm-compressor").read_text())["quant_stage"]["quant_modifiers"]["GPTQModifier"]
    config = QuantizationConfig.model_validate(modifier)
    found = {}
    for group in config.config_groups.values():
        for target in group.targets:
            found[target] = (group.weights.num_bits, group.weights.group_size, group.weights.symmetric)
    assert found == formats
    return f"{len(config.config_groups)} groups for {len(found)} modules"


def auto_round(recipe, formats, folder):
    import torch
    from auto_round.compressors.utils import set_layer_config
    from transformers import AutoConfig, AutoModelForCausalLM

    layer_config = json.loads(recipe("auto-round").read_text())
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder))
    kinds = (torch.nn.Linear,)
    resolved, _, _ = set_layer_config(model, layer_config, "W4A16", torch.float16, kinds, (), quant_lm_head=False)
    found = {name: entry for name, entry in resolved.items() if int(entry["bits"]) < 16}
    assert {name: (entry["bits"], entry["group_size"], entry["sym"]) for name, entry in found.items()} == formats
    return f"{len(found)} modules"


def model_optimizer(recipe, formats, folder):
    import modelopt.torch.quantization as mtq
    import torch
    import yaml
    from modelopt.torch.quantization.config import QuantizeConfig
    from transformers import AutoConfig, AutoModelForCausalLM

    config = yaml.safe_load(recipe("model-optimizer").read_text())
    QuantizeConfig(**config)
    model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder)).float()
    mtq.quantize(model, config, forward_loop=None)
    found = {}
    for name, module in model.named_modules():
        quantizer = getattr(module, "weight_quantizer", None)
        if quantizer is not None and quantizer.is_enabled:
            found[name] = (quantizer.num_bits, quantizer.block_sizes[-1], True)
        inputs = getattr(module, "input_quantizer", None)
        assert inputs is None or not inputs.is_enabled, name
    assert found == formats
    return f"{len(found)} weights of a model quantized as planned, no activations"


def gptqmodel(recipe, formats, _):
    """Not its own parser, which needs the package: its documented rule, the first pattern that matches counts."""
    config = json.loads(recipe("gptqmodel").read_text())
    for name, expected in [*formats.items(), ("lm_head", None)]:
        found = (config["bits"], config["group_size"], config["sym"])
        for rule, values in config["dynamic"].items():
            if re.match(rule[2:], name):
                found = None if rule.startswith("-:") else (values["bits"], values["group_size"], values["sym"])
                break
        assert found == expected, name
    try:
        from gptqmodel import QuantizeConfig
    except ImportError:
        return f"{len(formats)} modules by the documented rule, not by the package"
    parsed = QuantizeConfig(**config)
    for name, (bits, group, _) in formats.items():
        assert parsed.dynamic_get(name, "bits", parsed.bits) == bits
        assert parsed.dynamic_get(name, "group_size", parsed.group_size) == group
    return f"{len(formats)} modules"


def mlx(recipe, formats, _):
    path = recipe("mlx")
    predicate = runpy.run_path(str(path))["quant_predicate"]
    for name, (bits, group, _) in formats.items():
        assert predicate(name, None) == {"bits": bits, "group_size": group}, name
    assert predicate("model.embed_tokens", None) is False
    return f"{len(formats)} modules, called as mlx_lm.convert does"


def exllamav3(recipe, formats, _):
    """As recompile.py reads it; its globs know only `*`."""
    import yaml

    spec = yaml.safe_load(recipe("exllamav3").read_text())
    sources = {source["id"]: source["model_dir"] for source in spec["sources"]}
    overrides = {override["key"]: sources[override["source"]] for override in spec["overrides"]}
    for name, (bits, _, _) in formats.items():
        found = {folder for key, folder in overrides.items() if fnmatch.fnmatchcase(f"{name}.trellis", key)}
        assert found == {f"MODEL-{bits}bpw"}, name
    return f"{len(formats)} modules from {len(sources)} models"


main()
