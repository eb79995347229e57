"""What must hold of the stage's tables and policies before they are published."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.rules import Rule

ALIGNMENT_DATA = (
    Rule("some_to_train", "There are responses to train on.", "ExpectColumnValuesToBeBetween", {"column": "train", "min_value": 1},
         view="totals"),
    Rule("some_held_out", "There are held-out prompts.", "ExpectColumnValuesToBeBetween", {"column": "held_out", "min_value": 1},
         view="totals"),
    Rule("splits_apart", "No prompt is in both splits.", "ExpectColumnValuesToBeBetween", {"column": "splits", "max_value": 1},
         view="prompts"),
    Rule("one_best", "Each prompt of the data has at most one response that is learned.", "ExpectColumnValuesToBeBetween",
         {"column": "best", "max_value": 1}, view="prompts"),
    Rule("response_once", "Each `response_id` appears exactly once.", "ExpectColumnValuesToBeUnique", {"column": "response_id"}),
)  # fmt: skip

SCORED_DATA = (
    Rule("all_scored", "At most one response in ten has no goodness.", "ExpectColumnValuesToBeBetween",
         {"column": "unscored_share", "max_value": 0.1}, view="totals"),
    Rule("spread", "Goodness differs between responses, so that rewards can be standardised.", "ExpectColumnValuesToBeBetween",
         {"column": "sd", "min_value": 1e-6}, view="totals"),
)  # fmt: skip

POLICY_SAMPLES = (
    Rule("some_samples", "There are samples.", "ExpectTableRowCountToBeBetween", {"min_value": 1}),
    Rule("few_refused", "At most one request in ten was refused.", "ExpectColumnValuesToBeBetween",
         {"column": "refused_share", "max_value": 0.1}, view="totals"),
    Rule("varied", "The samples to a prompt differ for at least half of the prompts.", "ExpectColumnValuesToBeBetween",
         {"column": "varied_share", "min_value": 0.5}, gating=False, view="totals"),
    Rule("mostly_ended", "At least half of the samples end by themselves.", "ExpectColumnValuesToBeBetween",
         {"column": "ended_share", "min_value": 0.5}, gating=False, view="totals"),
)  # fmt: skip

SCORED_SAMPLES = (
    Rule("all_scored", "At most one sample in ten has no reward.", "ExpectColumnValuesToBeBetween",
         {"column": "unscored_share", "max_value": 0.1}, view="totals"),
)  # fmt: skip

ALIGNED = (
    Rule("finite_weights", "All weights are finite.", "ExpectColumnValuesToBeInSet", {"column": "finite", "value_set": [True]},
         view="totals"),
    Rule("trained", "The training made at least one step.", "ExpectColumnValuesToBeBetween", {"column": "steps", "min_value": 1},
         view="totals"),
    Rule("most_fit", "At least half of the conversations fit into `max_tokens`.", "ExpectColumnValuesToBeBetween",
         {"column": "fitting_share", "min_value": 0.5}, gating=False, view="totals"),
)  # fmt: skip


def data_views(responses: pa.Table) -> dict[str, pa.Table]:
    """Of TUNED_ON: rows of each split; of every prompt its splits, and how many of the data's responses are learned."""
    splits = {s: pa.array([pc.sum(pc.equal(responses["split"], s)).as_py() or 0]) for s in ("train", "held_out")}
    learned = pc.and_(responses["best"], pc.equal(responses["origin"], "data"))
    prompts = (
        responses.select(["prompt_id", "split"]).append_column("one", learned.cast(pa.int64())).group_by("prompt_id")
    )
    counted = prompts.aggregate([("split", "count_distinct"), ("one", "sum")])
    return {
        "totals": pa.table(splits),
        "prompts": pa.table({"splits": counted["split_count_distinct"], "best": counted["one_sum"]}),
    }


def scored_views(table: pa.Table, sd: float | None = None) -> dict[str, pa.Table]:
    """Of SCORED and SCORED_SAMPLES: the share without goodness, and the standard deviation of goodness."""
    known = np.isfinite(np.asarray(table["goodness"].to_numpy(), dtype=np.float64))
    totals: dict[str, Any] = {"unscored_share": [1 - float(known.mean()) if len(known) else 1.0]}
    return {"totals": pa.table(totals | ({"sd": [sd]} if sd is not None else {}))}


def sample_views(table: pa.Table, refused: int) -> dict[str, pa.Table]:
    """Of SAMPLES: shares of refused requests, of prompts with different samples, of samples that ended by themselves."""
    by_prompt = table.group_by("prompt_id").aggregate([("response", "count_distinct"), ("response", "count")])
    several = np.asarray(by_prompt["response_count"]) > 1
    varied = np.asarray(by_prompt["response_count_distinct"])[several] > 1
    ended = pc.mean(table["ended"].cast(pa.float64())).as_py() if len(table) else 0.0
    shares = {
        "refused_share": refused / max(len(table) + refused, 1),
        "varied_share": float(varied.mean()) if len(varied) else 1.0,
        "ended_share": ended,
    }
    return {"totals": pa.table({name: [value] for name, value in shares.items()})}


def aligned_views(figures: Mapping[str, Any]) -> dict[str, pa.Table]:
    """Of a method's worker: whether weights are finite, its steps, and the share of conversations that fit."""
    return {"totals": pa.table({name: [figures[name]] for name in ("finite", "steps", "fitting_share")})}
