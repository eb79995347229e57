"""Models on benchmarks, each benchmark with sections of its own; and HelpSteer2's published rows, which are RewardBench's."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.evaluation.benchmarks import pairs
from pipeline.evaluation.history import ASSET
from pipeline.evaluation.published import COMPUTE, PUBLISHED, PUBLISHED_SOURCE
from pipeline.evaluation.schema import CALIBRATION, CALIBRATION_BINS, CONTAMINATION, HISTORY, LEADERBOARD, LENGTH_BIAS
from pipeline.evaluation.summary import ACCURACY
from pipeline.store import Store

REWARDBENCH = "RewardBench"
RANKED = ("overall", "section", "subset")


@dataclass(frozen=True)
class Evaluated:
    """A model's figures.

    summary: schema SUMMARY; provenance: see `history.provenance`. rated_by: who gave the ratings that it learned from, where that is known.
    tuned_on: the benchmark that its attribute weights were searched on. compute: any of train_seconds, train_tokens, score_seconds, score_tokens,
    device. The other tables have the schemas of their names.
    """

    model: str
    summary: pa.Table
    provenance: Mapping[str, Any]
    rated_by: str | None = None
    tuned_on: str | None = None
    compute: Mapping[str, Any] = field(default_factory=dict)
    length_bias: pa.Table = field(default_factory=LENGTH_BIAS.empty_table)
    contamination: pa.Table = field(default_factory=CONTAMINATION.empty_table)
    calibration: pa.Table = field(default_factory=CALIBRATION.empty_table)
    calibration_bins: pa.Table = field(default_factory=CALIBRATION_BINS.empty_table)
    history: pa.Table = field(default_factory=HISTORY.empty_table)


def of_recipe(store: Store, recipe: str, rated_by: str) -> Evaluated:
    """What is published of a recipe: its benchmark scores, with the compute of its training. Raises `NotPublishedError`."""
    scores, model = store.manifest(ASSET, recipe), store.manifest("reward_model", recipe)
    tables = {
        name: store.read(ASSET, recipe, f"{name}.parquet") for name in ("summary", "length_bias", "contamination")
    }
    tables |= {name: store.read(ASSET, recipe, f"{name}.parquet") for name in ("calibration", "calibration_bins")}
    facts, trained = (manifest.info if manifest else {} for manifest in (scores, model))
    compute = {
        "train_seconds": trained.get("train_seconds"),
        "train_tokens": trained.get("tokens"),
        "score_seconds": facts.get("seconds"),
        "score_tokens": facts.get("tokens"),
        "device": facts.get("device"),
    }
    history = pa.Table.from_pylist(facts.get("history", []), schema=HISTORY)
    return Evaluated(
        recipe, provenance=facts["provenance"], rated_by=rated_by, compute=compute, history=history, **tables
    )


def board(models: Sequence[Evaluated]) -> pa.Table:
    """Models, the best of each benchmark first, then the published rows, in the schema LEADERBOARD."""
    rows = []
    for model in models:
        more = {
            name: model.compute.get(name)
            for name in ("train_seconds", "train_tokens", "score_seconds", "score_tokens", "device")
        }
        more |= {
            "rated_by": model.rated_by,
            "tuned_on": model.tuned_on,
            "model_version": model.provenance["model_version"],
        }
        rows += [
            {"model": model.model, "origin": "ours", "source": "this store", **_percent(row), **more}
            for row in model.summary.to_pylist()
        ]
    best = {
        (r["benchmark"], r["model"]): -r["accuracy"]
        for r in rows
        if (r["level"], r["measure"]) == ("overall", ACCURACY)
    }
    order = {benchmark: n for n, benchmark in enumerate(dict.fromkeys(r["benchmark"] for r in rows))}
    rows.sort(
        key=lambda r: (
            order[r["benchmark"]],
            best[r["benchmark"], r["model"]],
            r["model"],
            r["measure"] != ACCURACY,
            RANKED.index(r["level"]),
        )
    )
    return pa.Table.from_pylist(rows + published_rows(), schema=LEADERBOARD)


def _percent(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row of SUMMARY in percent, with LEADERBOARD's names."""
    kept = {name: row[name] for name in ("benchmark", "level", "name", "measure", "units")}
    figures = {
        "accuracy": "accuracy",
        "low": "low",
        "high": "high",
        "longest": "longest_accuracy",
        "random": "random_accuracy",
    }
    return kept | {name: 100 * row[figure] for name, figure in figures.items()}


def published_rows() -> list[dict[str, Any]]:
    """HelpSteer2's Table 3 as rows of LEADERBOARD."""
    rows = []
    for model, total, *sections in PUBLISHED:
        named = zip((*pairs.REWARDBENCH, pairs.PRIOR_SETS), sections, strict=True)
        figures = [
            ("overall", REWARDBENCH, total),
            *(("section", name, value) for name, value in named if value is not None),
        ]
        row = {
            "model": model,
            "origin": "published",
            "source": PUBLISHED_SOURCE,
            "benchmark": REWARDBENCH,
            "measure": ACCURACY,
        }
        rows += [
            {**row, "level": level, "name": name, "accuracy": value, "device": COMPUTE.get(model)}
            for level, name, value in figures
        ]
    return rows


def wide(table: pa.Table, benchmark: str, origin: str = "ours") -> pa.Table:
    """One benchmark's rows of a leaderboard for people: a row a model and measure, a column a section, in percent.

    The order of rows is the leaderboard's.
    """
    mine = table.filter(pc.and_(pc.equal(table["benchmark"], benchmark), pc.equal(table["origin"], origin)))
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for row in mine.to_pylist():
        at = rows.setdefault((row["model"], row["measure"]), {"model": row["model"], "measure": row["measure"]})
        if row["level"] == "overall":
            at |= {"overall": _shown(row), "longest": row["longest"], "random": row["random"]}
            at |= {
                name: row[name]
                for name in ("units", "train_seconds", "score_seconds", "device", "rated_by", "tuned_on")
            }
        elif row["level"] == "section":
            at[row["name"]] = _shown(row)
    sections = dict.fromkeys(r["name"] for r in mine.to_pylist() if r["level"] == "section")
    columns = [
        "model",
        "measure",
        "overall",
        *sections,
        "longest",
        "random",
        "units",
        "train_seconds",
        "score_seconds",
        "device",
        "rated_by",
    ]
    return pa.table({name: [row.get(name) for row in rows.values()] for name in [*columns, "tuned_on"]})


def _shown(row: Mapping[str, Any]) -> str:
    interval = f" ({row['low']:.1f} to {row['high']:.1f})" if row["low"] is not None else ""
    return f"{row['accuracy']:.1f}{interval}"


def is_rewardbench(summary: pa.Table, benchmark: str) -> bool:
    """Whether a benchmark of a summary is RewardBench, whole: only then may its figures stand among the published ones."""
    mine = [r for r in summary.to_pylist() if (r["benchmark"], r["level"]) == (benchmark, "subset")]
    return pairs.is_rewardbench({row["name"]: row["units"] for row in mine})
