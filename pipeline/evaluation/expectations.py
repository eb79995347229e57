"""What must hold of weights, scores and leaderboard before they are published."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.evaluation.published import PUBLISHED
from pipeline.reward_model.schema import OUTPUTS
from pipeline.rules import Rule

WEIGHTS = (
    Rule("weighed_once", "Each output of the model has one weight.", "ExpectColumnValuesToBeUnique", {"column": "attribute"}),
    Rule("known_attributes", "Outputs are attributes, or a reward.", "ExpectColumnValuesToBeInSet",
         {"column": "attribute", "value_set": list(OUTPUTS)}),
    Rule("scaled", "Absolute weights sum to one: else the model predicts the same for every response.", "ExpectColumnValuesToBeBetween",
         {"column": "size", "min_value": 0.999, "max_value": 1.001}, view="totals"),
    Rule("helpfulness_counts", "A more helpful response scores higher, all else equal.", "ExpectColumnValuesToBeBetween",
         {"column": "weight", "min_value": 0}, gating=False, view="helpfulness"),
    Rule("enough_pairs", "At least a hundred pairs: else the weights are mostly chance.", "ExpectColumnValuesToBeBetween",
         {"column": "pairs", "min_value": 100}, gating=False),
)  # fmt: skip

SCORES = (
    Rule("pair_once", "Every pair is scored once.", "ExpectCompoundColumnsToBeUnique", {"column_list": ["benchmark", "subset", "pair_id"]}),
    Rule("every_pair", "Every pair of every benchmark is scored.", "ExpectColumnValuesToBeInSet", {"column": "missing", "value_set": [0]},
         view="benchmarks"),
    Rule("chosen_finite", "Every chosen response has a finite score.", "ExpectColumnValuesToBeInSet", {"column": "finite", "value_set": [True]},
         view="finite"),
    Rule("win_is_greater", "A win is a strictly greater score.", "ExpectColumnValuesToBeInSet", {"column": "consistent", "value_set": [True]},
         view="finite"),
    Rule("few_unusable", "At most one record of a benchmark in fifty is unusable.", "ExpectColumnValuesToBeBetween",
         {"column": "unusable_share", "max_value": 0.02}, view="benchmarks"),
    Rule("better_than_length", "It beats the preference for the longer response.", "ExpectColumnPairValuesAToBeGreaterThanB",
         {"column_A": "accuracy", "column_B": "longest_accuracy"}, gating=False, view="overall"),
)  # fmt: skip

LEADERBOARD = (
    Rule("ours_are_there", "There is a row of ours.", "ExpectColumnValuesToBeBetween", {"column": "ours", "min_value": 1}, view="totals"),
    Rule("published_are_there", "The published rows are all there.", "ExpectColumnValuesToBeInSet",
         {"column": "published", "value_set": [len(PUBLISHED)]}, view="totals"),
    Rule("percent", "Scores are percent.", "ExpectColumnValuesToBeBetween", {"column": "overall", "min_value": 0, "max_value": 100}),
)  # fmt: skip


def weight_views(weights: pa.Table) -> dict[str, pa.Table]:
    """Views `helpfulness`, its row, and `totals`, the sum of absolute weights."""
    size = float(np.abs(np.asarray(weights["weight"])).sum())
    return {
        "helpfulness": weights.filter(pc.equal(weights["attribute"], "helpfulness")),
        "totals": pa.table({"size": [size]}),
    }


def score_views(scores: pa.Table, pairs: pa.Table, rejected: pa.Table, summary: pa.Table) -> dict[str, pa.Table]:
    """Views `benchmarks` (pairs missing, share of unusable records), `finite` and `overall`."""
    names = pc.unique(pairs["benchmark"]).to_pylist()
    n = {
        name: [pc.sum(pc.equal(t["benchmark"], name)).as_py() or 0 for t in (pairs, scores, rejected)] for name in names
    }
    chosen, other = (np.asarray(scores[f"{side}_goodness"]) for side in ("chosen", "rejected"))
    return {
        "benchmarks": pa.table(
            {"missing": [p - s for p, s, _ in n.values()], "unusable_share": [r / (p + r) for p, _, r in n.values()]}
        ),
        "finite": pa.table(
            {
                "finite": np.isfinite(chosen) & np.isfinite(other),
                "consistent": np.asarray(scores["win"]) == (chosen > other),
            }
        ),
        "overall": summary.filter(pc.equal(summary["level"], "overall")),
    }


def leaderboard_views(table: pa.Table) -> dict[str, pa.Table]:
    """View `totals`: rows of ours and published rows."""
    counts = {origin: [pc.sum(pc.equal(table["origin"], origin)).as_py() or 0] for origin in ("ours", "published")}
    return {"totals": pa.table(counts)}
