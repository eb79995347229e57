"""What must hold of weights, scores and leaderboard before they are published."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.benchmarks.schema import TOTALS
from pipeline.evaluation.leaderboard import REWARDBENCH
from pipeline.evaluation.published import PUBLISHED_SCORES
from pipeline.evaluation.results import Results
from pipeline.evaluation.summary import ACCURACY
from pipeline.rules import Rule
from pipeline.vocabulary import OUTPUTS

WEIGHTS = (
    Rule("weighed_once", "Each output of the model has exactly one weight.", "ExpectColumnValuesToBeUnique", {"column": "attribute"}),
    Rule("known_attributes", "Every output with a weight is one of the five attributes or the reward.", "ExpectColumnValuesToBeInSet",
         {"column": "attribute", "value_set": list(OUTPUTS)}),
    Rule("scaled", "The absolute weights sum to 1. If they sum to 0, the model predicts the same for every response.",
         "ExpectColumnValuesToBeBetween", {"column": "size", "min_value": 0.999, "max_value": 1.001}, view="totals"),
    Rule("helpfulness_counts", "The weight of helpfulness is not negative: all else equal, a more helpful response does not score lower.",
         "ExpectColumnValuesToBeBetween", {"column": "weight", "min_value": 0}, gating=False, view="helpfulness"),
    Rule("enough_pairs", "The weights rest on at least a hundred preferences. With fewer, they are mostly chance.", "ExpectColumnValuesToBeBetween",
         {"column": "pairs", "min_value": 100}, gating=False),
)  # fmt: skip

NO_REGRESSION = Rule(
    "no_regression",
    "No benchmark has a lower accuracy than in the run before, by the interval of the difference or by more than the profile allows.",
    "ExpectColumnValuesToBeInSet",
    {"column": "regression", "value_set": [False]},
    gating=False,
    view="history",
)

SCORES = (
    Rule("response_once", "No response is scored twice.", "ExpectCompoundColumnsToBeUnique",
         {"column_list": ["benchmark", "subset", "item_id", "response"]}),
    Rule("every_response", "Every response of every benchmark has a score.", "ExpectColumnValuesToBeInSet",
         {"column": "missing", "value_set": [0]}, view="benchmarks"),
    Rule("finite", "Every score is a finite number.", "ExpectColumnValuesToBeInSet", {"column": "finite", "value_set": [True]},
         view="finite"),
    Rule("sound_interval", "The upper end of every interval is at least its lower end.", "ExpectColumnPairValuesAToBeGreaterThanB",
         {"column_A": "high", "column_B": "low", "or_equal": True}, view="summary"),
    Rule("share", "Every accuracy is a share between 0 and 1; that of RewardBench 2's Ties may lie between -0.01 and 1.01.",
         "ExpectColumnValuesToBeBetween", {"column": "accuracy", "min_value": -0.0101, "max_value": 1.0101}, view="summary"),
    Rule("few_unusable", "At most one record in fifty of each benchmark is unusable. If more are, check its file and form.",
         "ExpectColumnValuesToBeBetween", {"column": "unusable_share", "max_value": 0.02}, view="benchmarks"),
    Rule("better_than_length", "On every benchmark the model is more accurate than always preferring the longest response.",
         "ExpectColumnPairValuesAToBeGreaterThanB", {"column_A": "accuracy", "column_B": "longest_accuracy"}, gating=False, view="overall"),
    Rule("better_than_chance", "On every benchmark the interval of the accuracy lies above what random scores reach.",
         "ExpectColumnPairValuesAToBeGreaterThanB", {"column_A": "low", "column_B": "random_accuracy"}, gating=False, view="overall"),
    Rule("uncontaminated", "No benchmark item has a prompt that was trained on. If one has, rely on the accuracy without such items.",
         "ExpectColumnValuesToBeInSet", {"column": "contaminated", "value_set": [0]}, gating=False, view="contamination"),
    NO_REGRESSION,
)  # fmt: skip

LEADERBOARD = (
    Rule("ours_are_there", "The leaderboard has at least one row of our own models.",
         "ExpectColumnValuesToBeBetween", {"column": "ours", "min_value": 1}, view="totals"),
    Rule("published_are_there", "The leaderboard has all models that HelpSteer2 published.", "ExpectColumnValuesToBeInSet",
         {"column": "published", "value_set": [len(PUBLISHED_SCORES)]}, view="totals"),
    Rule("published_apart", "No row of our own models has the benchmark of the published ones, RewardBench.", "ExpectColumnValuesToBeInSet",
         {"column": "mixed", "value_set": [0]}, view="totals"),
    Rule("percent", "Every accuracy is a percentage.",
         "ExpectColumnValuesToBeBetween", {"column": "accuracy", "min_value": -1.1, "max_value": 101.1}),
    Rule("same_items", "All models of a benchmark were scored on the same items. If they were not, score them again.", "ExpectColumnValuesToBeInSet",
         {"column": "unequal", "value_set": [0]}, gating=False, view="totals"),
    Rule("doubt_shown", "Every accuracy of our own models has an interval.", "ExpectColumnValuesToNotBeNull", {"column": "low"}, view="ours"),
)  # fmt: skip


def score_rules(gate: bool) -> tuple[Rule, ...]:
    """Rules of scores. gate: whether a regression keeps them from being published; else it is a warning."""
    return tuple(replace(rule, gating=gate) if rule is NO_REGRESSION else rule for rule in SCORES)


def weight_views(weights: pa.Table) -> dict[str, pa.Table]:
    """Views `helpfulness`, its row, and `totals`, the sum of absolute weights."""
    size = float(np.abs(np.asarray(weights["weight"])).sum())
    return {
        "helpfulness": weights.filter(pc.equal(weights["attribute"], "helpfulness")),
        "totals": pa.table({"size": [size]}),
    }


def score_views(
    scores: pa.Table, items: pa.Table, rejected: pa.Table, summary: pa.Table, contamination: pa.Table, history: pa.Table
) -> dict[str, pa.Table]:
    """Views `benchmarks` (responses missing, share of unusable records), `finite`, `summary`, `overall`, `contamination` and `history`."""
    names = pc.unique(items["benchmark"]).to_pylist()
    rows = []
    for name in names:
        given, scored, unusable = (t.filter(pc.equal(t["benchmark"], name)) for t in (items, scores, rejected))
        responses = pc.sum(pc.list_value_length(given["responses"])).as_py()
        rows.append(
            {"missing": responses - len(scored), "unusable_share": len(unusable) / (len(given) + len(unusable))}
        )
    overall = pc.and_(pc.is_in(summary["level"], pa.array(TOTALS)), pc.equal(summary["measure"], ACCURACY))
    return {
        "benchmarks": pa.Table.from_pylist(rows),
        "finite": pa.table({"finite": np.isfinite(np.asarray(scores["goodness"], dtype=np.float64))}),
        "summary": summary,
        "overall": summary.filter(overall),
        "contamination": contamination,
        "history": history,
    }


def result_views(scores: pa.Table, results: Results) -> dict[str, pa.Table]:
    """The views of `score_views`, of a recipe's results."""
    summary, contamination = (results.tables[f"{name}.parquet"] for name in ("summary", "contamination"))
    return score_views(scores, results.items, results.rejected, summary, contamination, results.compared)


def leaderboard_views(table: pa.Table, unequal: int) -> dict[str, pa.Table]:
    """Views `totals` (rows of ours, published models, rows of ours under their benchmark, `unequal` benchmarks) and `ours`.

    unequal: how many benchmarks have different items for different models.
    """
    ours, published = (table.filter(pc.equal(table["origin"], origin)) for origin in ("ours", "published"))
    published = published.filter(pc.equal(published["benchmark"], REWARDBENCH))
    mixed = pc.sum(pc.equal(ours["benchmark"], REWARDBENCH)).as_py() or 0
    totals = {
        "ours": [len(ours)],
        "published": [len(pc.unique(published["model"]))],
        "mixed": [mixed],
        "unequal": [unequal],
    }
    return {"totals": pa.table(totals), "ours": ours}
