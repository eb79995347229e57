"""Complexity by the heuristic against labelled prompts, beside the length alone and, if one is named, a model as rater.

`python -m measurements.complexity [--model CHECKPOINT]`: a checkpoint of the profile. The prompts are this project's own, with their numbers of
intentions and constraints. The heuristic's words, densities and levels were chosen on one half of them; the other half, by a hash of the prompt, is
held out. In a quarter of them length misleads: much text with little to do, or a lot to do in few words. Prints tables and, as its last line, one
JSON object.
"""

import argparse
import hashlib
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from rich.console import Console
from rich.table import Table
from upath import UPath

from pipeline.engines.spec import EngineSpec
from pipeline.prompts.complexity import agreement, complexity
from pipeline.prompts.rater import ComplexitySpec, work
from pipeline.settings import load_profile
from pipeline.store import read_table, write_table

EXAMPLES = Path(__file__).parents[1] / "tests" / "prompts" / "complexity.jsonl"
RESAMPLES = 2000
Levels = npt.NDArray[np.int64]


def interval(labels: Levels, found: Levels) -> tuple[float, float]:
    """95 % bootstrap interval of weighted kappa, over prompts."""
    draws = np.random.default_rng(1).integers(0, len(labels), (RESAMPLES, len(labels)))
    kappas = [agreement(labels[rows], found[rows])[0]["weighted kappa"] for rows in draws]
    low, high = np.quantile([k for k in kappas if k is not None], [0.025, 0.975])
    return round(float(low), 3), round(float(high), 3)


def rated(turns: list[list[str]], checkpoint: str, console: Console) -> Levels:
    """Levels by a checkpoint of the profile; 0 where it gave none."""
    profile = load_profile()
    with tempfile.TemporaryDirectory() as folder:
        ids = [str(n) for n in range(len(turns))]
        write_table(pa.table({"prompt_id": ids, "turns": turns}), UPath(folder) / "prompts.parquet")
        place = UPath(folder)
        engine = EngineSpec.of(profile, checkpoint, place / "cache")
        spec = ComplexitySpec(input=place / "prompts.parquet", work=place / "work", engine=engine, out=place)
        work(spec, console.print)
        return np.asarray(read_table(UPath(folder) / "ratings.parquet")["complexity"].fill_null(0), dtype=np.int64)


def main() -> None:
    """Compare, print, JSON last."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument(
        "--model",
        help="checkpoint of the profile, by its name, that rates the prompts too (default: only the heuristic rates)",
    )
    options, console = parser.parse_args(), Console()
    examples = [json.loads(line) for line in EXAMPLES.read_text(encoding="utf-8").splitlines()]
    labels = np.array([e["complexity"] for e in examples])
    turns = [[e["prompt"]] for e in examples]
    lengths = np.array([len(e["prompt"]) for e in examples])
    raters = {
        "heuristic": np.asarray(complexity(pa.array(turns)), dtype=np.int64),
        "length, by fifths": 1 + np.searchsorted(np.quantile(lengths, [0.2, 0.4, 0.6, 0.8]), lengths),
    }
    if options.model:
        raters[options.model] = rated(turns, options.model, console)
    tells = np.array([e["length_tells"] for e in examples])
    held_out = np.array([hashlib.sha256(e["prompt"].encode()).digest()[0] % 2 == 1 for e in examples])
    parts = {"chosen on": ~held_out, "held out": held_out}
    parts |= {"held out, length tells": held_out & tells, "held out, length misleads": held_out & ~tells}
    shown = Table(
        "rater", "prompts", "n", "weighted kappa", "95 %", "same level", "within one", title="Against the labels"
    )
    figures: dict[str, dict[str, Any]] = {}
    for name, found in raters.items():
        for part, inside in parts.items():
            has = (found > 0) & inside
            agreed, confusion = agreement(labels[has], found[has])
            low, high = interval(labels[has], found[has])
            ours = {**agreed, "interval": [low, high], "prompts": int(has.sum()), "confusion": confusion.to_pylist()}
            figures.setdefault(name, {})[part] = ours
            cells = [agreed["weighted kappa"], f"{low} to {high}", agreed["same level"], agreed["within one level"]]
            shown.add_row(name, part, str(has.sum()), *map(str, cells))
    console.print(shown)
    counts = Table(
        "label", "1", "2", "3", "4", "5", title="The heuristic's level (columns) of each label (rows), held out"
    )
    for row in figures["heuristic"]["held out"]["confusion"]:
        counts.add_row(*(str(value) for value in row.values()))
    console.print(counts)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
