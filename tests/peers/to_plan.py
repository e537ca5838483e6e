"""Makes plan files of a peer's choices, one per budget.

    python to_plan.py --choices choices/MODEL.TOOL.json --scores scores.json --out DIR

`scores.json` is a score file of gamma for the same model with the same candidates: it knows the shapes, the
exact storage, and what else the model holds. Costs are copied from it, so they are gamma's and not the peer's.
Needs nothing but Python.
"""

import argparse
import json
import re
from pathlib import Path


def option(module, bits):
    for candidate in module["options"]:
        if int(re.match(r"(?:int|custom)(\d)", candidate["format"])[1]) == bits:
            return candidate
    raise SystemExit(f"`{module['name']}` has no option of {bits} bits in the score file")


def plan(scores, tool, budget, bits):
    if missing := {module["name"] for module in scores["modules"]} ^ bits.keys():
        raise SystemExit(f"modules that only one of the two files has: {sorted(missing)}")
    modules = []
    for module in scores["modules"]:
        chosen = option(module, bits[module["name"]])
        modules.append({"name": module["name"], "shape": module["shape"], **chosen})
    return {
        "format": "gamma.plan/1",
        "generator": tool,
        "budget": None,
        "stored_bits": sum(module["stored_bits"] for module in modules),
        "weights": sum(module["shape"][0] * module["shape"][1] for module in modules),
        "provenance": scores["provenance"] | {"learner": f"{tool}, budget of {budget} code bits"},
        "certificate": None,
        "remainder": scores.get("remainder"),
        "modules": modules,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--choices", type=Path, required=True)
    parser.add_argument("--scores", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    choices, scores = json.loads(args.choices.read_text()), json.loads(args.scores.read_text())
    args.out.mkdir(parents=True, exist_ok=True)
    for budget, entry in choices["budgets"].items():
        text = json.dumps(plan(scores, choices["tool"], budget, entry["bits"]), indent=2)
        (args.out / f"plan-{budget}cbw.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
