"""What people are shown of attribute weights, benchmark scores and the leaderboard."""

from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline import plots
from pipeline.benchmarks.schema import TOTALS
from pipeline.evaluation import summary
from pipeline.evaluation.leaderboard import REWARDBENCH, wide
from pipeline.evaluation.results import Results
from pipeline.shown import Markdown, Rows, Shown, counts, labelled

SCORING = {
    "conversations": "different conversations",
    "scored_before": "conversations scored in earlier runs",
    "scored": "conversations scored in this run",
    "not_scored": "conversations without a score",
    "cut": "conversations whose beginning was cut",
    "empty": "conversations with an empty response",
    "tokens": "tokens without padding",
    "seconds": "seconds of this run",
    "seconds_of_all": "seconds of all scoring",
    "peak_memory_gib": "peak memory, GiB",
}
"""Labels of what the scoring worker says."""

EXPORT = {
    "compared": "conversations scored by both models",
    "largest_difference": "largest difference of their scores",
    "peak_memory_gib": "peak memory, GiB",
}
"""Labels of what the exporting worker says."""


def weights(table: pa.Table, accuracies: pa.Table, rated_by: str) -> dict[str, Shown]:
    """Of WEIGHTS: beside the published ones, and how often each orders preferences. accuracies: schema WEIGHT_ACCURACY."""
    names = ("weight", "published_70b", "published_340b")
    series = {name: table[name].to_pylist() for name in names if not table[name].null_count}
    title = f"Attribute weights, ratings by {rated_by}"
    return {
        "weights": table,
        "accuracy on development preferences": accuracies,
        "chart of weights": plots.grouped_bars(table["attribute"].to_pylist(), series, title, "weight"),
        "note on the published weights": "They were found by a search on RewardBench itself (HelpSteer2, section 3).",
    }


def scores(results: Results, facts: Mapping[str, Any], rated_by: str) -> dict[str, Shown]:
    """Of SCORES: every accuracy with its doubt. facts: what the scoring worker said."""
    total = results.tables["summary.parquet"].to_pandas().round(3)
    return {
        **labelled({name: value for name, value in facts.items() if value is not None}, SCORING),
        "accuracy": Rows(pa.Table.from_pandas(total, preserve_index=False), 60),
        "length bias": Rows(results.tables["length_bias.parquet"], 60),
        "contamination": Rows(results.tables["contamination.parquet"], 20),
        "calibration": Rows(results.tables["calibration.parquet"], 20),
        "comparison with the run before": Rows(results.compared, 20),
        "ties left out": results.ties,
        "unusable records by reason": counts(results.rejected["reason"], "reason"),
        "provenance": dict(results.provenance),
        "rated by": rated_by,
    }


def exported(figures: Mapping[str, Any], rated_by: str) -> dict[str, Shown]:
    """Of a model with one output: how far its scores are from the original's. figures: the worker's."""
    return {**labelled(figures, EXPORT), "rated by": rated_by}


def leaderboard(table: pa.Table, recipes: int, rated_by: str) -> dict[str, Shown]:
    """Of LEADERBOARD: a table and a plot a benchmark, and HelpSteer2's published rows."""
    ours = table.filter(pc.equal(table["origin"], "ours"))
    names = pc.unique(ours["benchmark"]).to_pylist()
    return {
        **{f"models on {name}": Rows(wide(table, name), 60) for name in names},
        **{f"chart of {name}": _plot(ours, name) for name in names},
        "published models on RewardBench": Rows(wide(table, REWARDBENCH, "published"), 60),
        "recipes": recipes,
        "rated by": rated_by,
    }


def _plot(ours: pa.Table, benchmark: str) -> Markdown:
    """Overall figures of a benchmark with their intervals, beside what length and chance reach."""
    rows = [r for r in ours.to_pylist() if r["benchmark"] == benchmark and r["level"] in TOTALS]
    labels = [r["model"] if r["measure"] == summary.ACCURACY else f"{r['model']}, {r['measure']}" for r in rows]
    marks = {"the longest response": [r["longest"] for r in rows], "random scores": [r["random"] for r in rows]}
    ends = [(r["low"], r["high"]) for r in rows]
    return plots.interval_chart(
        labels, [r["accuracy"] for r in rows], ends, marks, f"Accuracy on {benchmark}", "percent"
    )
