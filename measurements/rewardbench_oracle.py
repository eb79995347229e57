"""Our arithmetic of RewardBench and RewardBench 2 beside rewardbench's own code, on random accuracies and scores.

`python -m measurements.rewardbench_oracle [--cases N] [--python INTERPRETER]`. Makes an environment of its own in a temporary folder (its
versions are not ours) and asks rewardbench there, see `rewardbench_theirs.py`; with `--python` an interpreter that has it already. Scores
are drawn so that equal ones are common. Ends with 1 where a figure differs by more than 1e-9. Prints a table and, as its last line, one
JSON object: for `sections`, `best_of` and `ties` the figures compared, `largest_difference`, and those that are undefined there: the score of
Ties is NaN where there are questions with both prompts, but none with several right responses. Ours leaves such a term out.
"""

import argparse
import json
import math
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from rich.console import Console
from rich.table import Table

from pipeline.benchmarks import pairs, rewardbench2
from pipeline.benchmarks.schema import ITEMS

VERSION = "0.1.4"
MOST = 1e-9


def interpreter(folder: Path) -> str:
    """An environment with rewardbench, and of what it needs only what the compared functions use."""
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    python = str(folder / "bin" / "python")
    pip = [python, "-m", "pip", "--disable-pip-version-check", "-q", "install"]
    subprocess.run([*pip, "datasets", "numpy", "pandas"], check=True)
    subprocess.run([*pip, "--no-deps", f"rewardbench=={VERSION}"], check=True)
    return python


def drawn_scores(draw: np.random.Generator, n: int) -> list[float]:
    """Scores: of few levels, so that many are equal, or of a continuous range."""
    return (draw.integers(0, 4, n) / 2 if draw.random() < 0.5 else draw.normal(size=n)).tolist()


def drawn_cases(n: int, seed: int = 0) -> dict[str, list[Any]]:
    """Random cases: accuracies of some of the subsets; groups of scores, the right one first; questions of Ties, some without a partner."""
    draw = np.random.default_rng(seed)
    sections = []
    for _ in range(n):
        there = draw.permutation(sorted(pairs.SECTION.keys() - set(pairs.PRIOR)))[: draw.integers(1, 24)]
        sections.append({str(subset): float(draw.random()) for subset in there})
    best_of = [drawn_scores(draw, int(draw.integers(2, 7))) for _ in range(n)]
    ties = []
    for _ in range(n):
        rows = []
        for question in range(int(draw.integers(1, 12))):
            for kind in ("ref", "tied"):
                if draw.random() < 0.9:
                    good = 1 if kind == "ref" or draw.random() < 0.1 else int(draw.integers(2, 6))
                    scores = drawn_scores(draw, good + int(draw.integers(1, 5)))
                    if draw.random() < 0.5:  # a model that knows: else hardly any question has its margins right
                        scores[:good] = [score + 3 for score in scores[:good]]
                    rows.append({"id": f"{kind}:{question}", "num_correct": good, "scores": scores})
        if rows:
            ties.append(rows)
    return {"sections": sections, "best_of": best_of, "ties": ties}


def our_values(rows: list[tuple[str, str, int, list[float]]]) -> list[float]:
    """Values of RewardBench 2's units. rows: subset, id, number of right responses, scores with the right ones first."""
    items = [
        {"benchmark": "b", "subset": subset, "item_id": item_id, "messages": [], "responses": ["x"] * len(scores),
         "good": [n < good for n in range(len(scores))]}
        for subset, item_id, good, scores in rows
    ]  # fmt: skip
    flat = [score for *_, scores in rows for score in scores]
    found: list[float] = rewardbench2.outcomes(pa.Table.from_pylist(items, schema=ITEMS), flat)["value"].to_pylist()
    return found


def compared(cases: dict[str, list[Any]], theirs: dict[str, Any]) -> dict[str, list[tuple[float, float]]]:
    """Our figure and theirs, for every figure of every case."""
    sections = []
    for case, answer in zip(cases["sections"], theirs["sections"], strict=True):
        ours = pairs.sections(case, dict.fromkeys(case, 1))
        sections += [(value, answer[name]) for name, value in ours.items()]
        sections += [
            (0.0, value) for name, value in answer.items() if name not in ours
        ]  # theirs is 0 where there is no subset
    best = our_values([("Math", str(n), 1, scores) for n, scores in enumerate(cases["best_of"])])
    ties = []
    for rows, answer in zip(cases["ties"], theirs["ties"], strict=True):
        values = our_values([("Ties", row["id"], row["num_correct"], row["scores"]) for row in rows])
        ties.append((sum(values) / len(values), answer))
    return {"sections": sections, "best_of": list(zip(best, theirs["best_of"], strict=True)), "ties": ties}


def main() -> None:
    """Compare, print, and fail where something differs."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--cases", type=int, default=1000, help="number of random cases of each kind (default: %(default)s)"
    )
    parser.add_argument(
        "--python",
        help="path of a Python interpreter that has rewardbench (default: one in an environment made for it)",
    )
    args = parser.parse_args()
    cases = drawn_cases(args.cases)
    with tempfile.TemporaryDirectory() as folder:
        python = args.python or interpreter(Path(folder) / "peer")
        script = str(Path(__file__).with_name("rewardbench_theirs.py"))
        done = subprocess.run([python, script], input=json.dumps(cases), capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"rewardbench's side failed:\n{done.stderr[-2000:]}")
    theirs = json.loads(done.stdout)
    same = theirs["counts"] == {s: pairs.WEIGHTS[s] for s in theirs["counts"]} and {
        section: set(subsets) for section, subsets in theirs["mapping"].items()
    } == {section: set(subsets) for section, subsets in pairs.REWARDBENCH.items()}
    figures: dict[str, Any] = {"rewardbench": theirs["version"], "same_constants": same}
    table = Table("", "figures", "largest difference", "undefined there", title=f"rewardbench {theirs['version']}")
    for name, found in compared(cases, theirs).items():
        known = [(ours, other) for ours, other in found if math.isfinite(other)]
        largest = max(abs(ours - other) for ours, other in known)
        figures[name] = {"figures": len(known), "largest_difference": largest, "undefined": len(found) - len(known)}
        table.add_row(name, str(len(known)), f"{largest:.1e}", str(len(found) - len(known)))
    Console().print(table)
    print(f"subsets, weights and sections are {'the same' if same else 'NOT the same'}")
    print(json.dumps(figures))
    if not same or any(figures[name]["largest_difference"] > MOST for name in ("sections", "best_of", "ties")):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
