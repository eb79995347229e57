"""What people are shown of attribute weights, benchmark scores and the leaderboard."""

from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline import plots
from pipeline.evaluation import summary
from pipeline.evaluation.leaderboard import REWARDBENCH, wide
from pipeline.evaluation.results import Results
from pipeline.shown import Markdown, Rows, Shown, counts


def weights(table: pa.Table, accuracies: pa.Table, rated_by: str) -> dict[str, Shown]:
    """Of WEIGHTS: beside the published ones, and how often each orders preferences. accuracies: schema WEIGHT_ACCURACY."""
    names = ("weight", "published_70b", "published_340b")
    series = {name: table[name].to_pylist() for name in names if not table[name].null_count}
    title = f"Attribute weights (ratings by {rated_by})"
    return {
        "weights": table,
        "order of preferences, beside other weights": accuracies,
        "chart": plots.grouped_bars(table["attribute"].to_pylist(), series, title, "weight"),
        "the published ones": "were found by a search on RewardBench itself (HelpSteer2, section 3)",
    }


def scores(results: Results, facts: Mapping[str, Any], rated_by: str) -> dict[str, Shown]:
    """Of SCORES: every accuracy with its doubt. facts: what the scoring worker said."""
    total = results.tables["summary.parquet"].to_pandas().round(3)
    return {
        **{name: value for name, value in facts.items() if value is not None},
        "accuracy": Rows(pa.Table.from_pandas(total, preserve_index=False), 60),
        "length bias": Rows(results.tables["length_bias.parquet"], 60),
        "contamination": Rows(results.tables["contamination.parquet"], 20),
        "calibration": Rows(results.tables["calibration.parquet"], 20),
        "beside the run before": Rows(results.compared, 20),
        "ties left out": results.ties,
        "unusable records": counts(results.rejected["reason"], "reason"),
        "provenance": dict(results.provenance),
        "rated by": rated_by,
    }


def leaderboard(table: pa.Table, recipes: int, rated_by: str) -> dict[str, Shown]:
    """Of LEADERBOARD: a table and a plot a benchmark, and HelpSteer2's published rows."""
    ours = table.filter(pc.equal(table["origin"], "ours"))
    names = pc.unique(ours["benchmark"]).to_pylist()
    return {
        **{f"on {name}": Rows(wide(table, name), 60) for name in names},
        **{f"plot of {name}": _plot(ours, name) for name in names},
        "published": Rows(wide(table, REWARDBENCH, "published"), 60),
        "ours": recipes,
        "rated by": rated_by,
    }


def _plot(ours: pa.Table, benchmark: str) -> Markdown:
    """Overall figures of a benchmark with their intervals, beside what length and chance reach."""
    rows = [r for r in ours.to_pylist() if (r["benchmark"], r["level"]) == (benchmark, "overall")]
    labels = [r["model"] if r["measure"] == summary.ACCURACY else f"{r['model']}, {r['measure']}" for r in rows]
    marks = {"longest response": [r["longest"] for r in rows], "random": [r["random"] for r in rows]}
    ends = [(r["low"], r["high"]) for r in rows]
    return plots.interval_chart(
        labels, [r["accuracy"] for r in rows], ends, marks, f"Overall on {benchmark}", "percent"
    )
