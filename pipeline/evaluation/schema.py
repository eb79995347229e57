"""Columns of the stage's tables."""

import pyarrow as pa

from pipeline.responses.schema import MESSAGES
from pipeline.reward_model.schema import OUTPUTS

ITEMS = pa.schema(
    [
        ("benchmark", pa.string()),
        ("subset", pa.string()),
        ("item_id", pa.string()),  # once in a subset
        ("messages", MESSAGES),  # the prompt; the last turn is the user's
        ("responses", pa.list_(pa.string())),
        ("good", pa.list_(pa.bool_())),  # which responses people, or the benchmark, hold to be right; at least one is, and one isn't
    ]
)
"""A benchmark: a row a prompt, with all its responses."""

REJECTED = pa.schema([("benchmark", pa.string()), ("line", pa.int64()), ("reason", pa.string())])
"""Records of a benchmark that are no item."""

WEIGHTS = pa.schema(
    [
        ("attribute", pa.string()),  # or `reward`
        ("weight", pa.float64()),
        ("published_70b", pa.float64()),
        ("published_340b", pa.float64()),
        ("pairs", pa.int64()),
        ("rated_by", pa.string()),
    ]
)

SCORES = pa.schema(
    [
        ("benchmark", pa.string()),
        ("subset", pa.string()),
        ("item_id", pa.string()),
        ("response", pa.int32()),  # its place among the item's responses, from 0
        ("good", pa.bool_()),
        ("characters", pa.int64()),
        *(pa.field(name, pa.float64()) for name in OUTPUTS),  # null: not predicted
        ("goodness", pa.float64()),
    ]
)
"""A row a response of an item, in the order of the items and of their responses."""

OUTCOMES = pa.schema(
    [
        ("benchmark", pa.string()),
        ("subset", pa.string()),
        ("unit", pa.string()),  # an item's id; of RewardBench 2's Ties the number that a `ref` and a `tied` prompt share
        ("measure", pa.string()),  # accuracy; of RM-Bench easy, normal and hard too
        ("value", pa.float64()),  # 0 to 1; of Ties up to 1.01
        ("margin", pa.float64()),  # goodness of the worst good response minus that of the best other one; NaN where a score isn't finite
    ]
)
"""What a scorer reaches on each unit: what a bootstrap draws anew. A subset's figure is the mean of its units' values."""

SUMMARY = pa.schema(
    [
        ("benchmark", pa.string()),
        ("level", pa.string()),  # subset | section | overall
        ("name", pa.string()),
        ("measure", pa.string()),
        ("units", pa.int64()),
        ("accuracy", pa.float64()),
        ("low", pa.float64()),  # 95 % bootstrap interval
        ("high", pa.float64()),
        ("longest_accuracy", pa.float64()),  # of preferring the longer response
        ("random_accuracy", pa.float64()),  # expected of scores drawn at random
    ]
)

LEADERBOARD = pa.schema(
    [
        ("model", pa.string()),
        ("origin", pa.string()),  # ours | published
        ("source", pa.string()),
        ("benchmark", pa.string()),
        ("overall", pa.float64()),  # percent, as is each section's
        ("low", pa.float64()),
        ("high", pa.float64()),
        ("chat", pa.float64()),
        ("chat_hard", pa.float64()),
        ("safety", pa.float64()),
        ("reasoning", pa.float64()),
        ("prior_sets", pa.float64()),
        ("pairs", pa.int64()),
        ("rated_by", pa.string()),
    ]
)
