"""rewardbench's side of `measurements/rewardbench_oracle.py`, which runs it with an interpreter that has rewardbench.

Takes cases as JSON on standard input, gives what rewardbench's own functions make of them as one JSON object. The functions are taken out of
the package's source one by one: importing it would take a GPU's libraries.
"""

import ast
import importlib.util
import json
import math
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from datasets import Dataset

FUNCTIONS = ("calculate_scores_per_section", "reroll_and_score_dataset", "sample_stats", "process_single_model")
CONSTANTS = ("EXAMPLE_COUNTS", "SUBSET_MAPPING")


def taken(path: Path, names: tuple[str, ...], given: dict[str, Any]) -> dict[str, Any]:
    """Functions and constants of these names as a module's source defines them, with nothing else of it."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    tree.body = [
        node
        for node in tree.body
        if (isinstance(node, ast.FunctionDef) and node.name in names)
        or (isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id in names)
    ]
    exec(compile(tree, str(path), "exec"), given)  # noqa: S102  rewardbench's own code, in an environment made for it
    if missing := [name for name in names if name not in given]:
        raise SystemExit(f"{path} has no {', '.join(missing)}")
    return given


def main() -> None:
    """Answer every case."""
    spec = importlib.util.find_spec("rewardbench")
    if spec is None or spec.origin is None:
        raise SystemExit("this Python interpreter has no package rewardbench; name one that has it with --python")
    folder = Path(spec.origin).parent
    constants = taken(folder / "constants.py", CONSTANTS, {})
    theirs = taken(folder / "utils.py", FUNCTIONS, {"np": np, "pd": pd, "math": math, "Dataset": Dataset})
    cases = json.load(sys.stdin)
    counts, mapping = constants["EXAMPLE_COUNTS"], constants["SUBSET_MAPPING"]
    groups = cases["best_of"]
    flat = Dataset.from_dict(
        {
            "text": ["x" for group in groups for _ in group],
            "scores": [score for group in groups for score in group],
            "id": [str(n) for n, group in enumerate(groups) for _ in group],
        }
    )
    answers = {
        "version": version("rewardbench"),
        "counts": counts,
        "mapping": mapping,
        "sections": [theirs["calculate_scores_per_section"](counts, mapping, case) for case in cases["sections"]],
        "best_of": list(theirs["reroll_and_score_dataset"](flat, [len(group) for group in groups])["results"]),
        "ties": [float(theirs["process_single_model"](rows)[1]) for rows in cases["ties"]],
    }
    print(json.dumps(answers))


if __name__ == "__main__":
    main()
