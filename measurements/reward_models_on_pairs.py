"""Reward models trained on people's ratings, and plain baselines, on pairs that someone else has judged.

`python -m measurements.reward_models_on_pairs PAIRS --rated FILE [--profile FILE --recipe NAME ... --work FOLDER] [--precision P]`. PAIRS has
`prompt`, `chosen`, `rejected` and `subset`, as RewardBench publishes them; FILE has rows of nvidia/HelpSteer2. Recipes and baselines are those of
`measurements/reward_models.py`, trained on the same four folds of FILE; with its work folder, its models are taken. A response's score is its
predicted helpfulness. The train mean scores all alike, and a tie loses: it orders nothing.

Prints tables and, as its last line, one JSON object: for each model `accuracy` by subset, section and overall as [value, low, high] with a 95 %
bootstrap interval over pairs, and `length_bias` by figure, in the same form.
"""

import argparse
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from rich.console import Console
from rich.table import Table
from upath import UPath

from measurements.reward_models import BASELINES, profile_of, rated, shown, trained
from pipeline.benchmarks import loading
from pipeline.evaluation import summary
from pipeline.evaluation.scorers.specs import ModelSpec
from pipeline.evaluation.scorers.starting import scorer_of
from pipeline.evaluation.scoring import score, table_of
from pipeline.settings import Profile

NAME = "pairs"
SEED = 0


def baseline_scores(name: str, train: pd.DataFrame, items: pa.Table) -> pa.Table:
    """Scores of all responses by a baseline that learned from the training rows."""
    prompts = [messages[-1]["content"] for messages in items["messages"].to_pylist()]
    responses = items["responses"].to_pylist()
    asked = pd.DataFrame(
        {
            "prompt": np.repeat(np.array(prompts, dtype=object), [len(r) for r in responses]),
            "response": [text for r in responses for text in r],
        }
    )
    found = BASELINES[name](train, asked)[["helpfulness"]].to_numpy()
    return table_of(items, found, ["helpfulness"], np.ones(1))


def model_scores(spec: ModelSpec, items: pa.Table, work: Path, console: Console) -> pa.Table:
    """Scores of all responses by a trained model; what `work` has of them isn't scored again."""
    scorer = scorer_of(spec, console.print)
    weights = {"helpfulness": 1.0} if "helpfulness" in scorer.outputs else None
    return score(scorer, items, UPath(work) / "scores", console.print, weights)[0]


def figures(items: pa.Table, scores: pa.Table, form: loading.Form) -> dict[str, dict[str, list[float]]]:
    """Accuracy and length bias with intervals."""
    tables = summary.figures(items, scores, {NAME: form}, SEED)
    found = tables["summary.parquet"].to_pylist()
    accuracy = {f"{r['level']} {r['name']}": [r["accuracy"], r["low"], r["high"]] for r in found}
    bias = {r["figure"]: [r["value"], r["low"], r["high"]] for r in tables["length_bias.parquet"].to_pylist()}
    return {"accuracy": accuracy, "length_bias": bias}


def scores_of_all(
    options: argparse.Namespace, profile: Profile | None, items: pa.Table, console: Console
) -> Iterator[tuple[str, pa.Table]]:
    """Name and scores of each baseline and recipe."""
    frame = rated(options.rated)
    train, held = frame[frame["fold"] != 0], frame[frame["fold"] == 0]
    for name in BASELINES:
        yield name, baseline_scores(name, train, items)
    with tempfile.TemporaryDirectory() as temporary:
        work = options.work or Path(temporary)
        for name in options.recipe:
            folder = trained(name, profile, options.profile, train, held, work)[2]
            spec = {
                "model": str(folder),
                "max_tokens": profile.recipes[name].max_tokens,
                "precision": options.precision,
            }
            yield name, model_scores(ModelSpec.model_validate(spec), items, work, console)


def tables(found: dict[str, dict[str, dict[str, list[float]]]], console: Console) -> None:
    """Print accuracies, and length bias."""
    for kind, title in (("accuracy", "Accuracy"), ("length_bias", "Length bias")):
        names = list(next(iter(found.values()))[kind])
        table = Table("", *(name.removeprefix("subset ") for name in names), title=f"{title} \\[95 % interval]")
        for model, by in found.items():
            table.add_row(model, *(shown(by[kind][name]) for name in names))
        console.print(table)


def main() -> None:
    """Score, print, JSON last."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "pairs", type=Path, help="file of pairs with prompt, chosen, rejected and subset, as RewardBench publishes them"
    )
    parser.add_argument(
        "--rated", type=Path, required=True, help="file of rated responses in HelpSteer2's form, two for each prompt"
    )
    parser.add_argument("--profile", type=Path, help="path of the profile that has the recipes")
    parser.add_argument(
        "--recipe", action="append", default=[], metavar="NAME", help="recipe to train; may be given several times"
    )
    parser.add_argument(
        "--work", type=Path, help="folder that keeps the models and scores (default: they are removed at the end)"
    )
    parser.add_argument(
        "--precision",
        choices=["float32", "bfloat16"],
        default="float32",
        help="floating-point type in which models score (default: %(default)s)",
    )
    options = parser.parse_args()
    profile = profile_of(parser, options.profile, options.recipe)
    console = Console(width=max(Console().width, 180))
    benchmark = loading.named(str(options.pairs))
    loaded = loading.load(NAME, benchmark, pa.table({}))
    for row in loaded.rejected.to_pylist():
        console.print(f"set aside: line {row['line']}: {row['reason']}", markup=False)
    found: dict[str, dict[str, Any]] = {}
    for name, scores in scores_of_all(options, profile, loaded.items, console):
        found[name] = figures(loaded.items, scores, loading.form(benchmark))
    tables(found, console)
    counts = {s["values"]: s["counts"] for s in pc.value_counts(loaded.items["subset"]).to_pylist()}
    print(json.dumps({"pairs": counts, "models": found}))


if __name__ == "__main__":
    main()
