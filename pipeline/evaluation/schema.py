"""Columns of the stage's tables."""

import pyarrow as pa

from pipeline.responses.schema import MESSAGES
from pipeline.reward_model.schema import OUTPUTS

PAIRS = pa.schema(
    [
        ("benchmark", pa.string()),
        ("pair_id", pa.string()),
        ("subset", pa.string()),
        ("messages", MESSAGES),
        ("chosen", pa.string()),
        ("rejected", pa.string()),
    ]
)

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
        ("section", pa.string()),
        ("pair_id", pa.string()),
        *(pa.field(f"{side}_{a}", pa.float64()) for side in ("chosen", "rejected") for a in OUTPUTS),
        ("chosen_goodness", pa.float64()),
        ("rejected_goodness", pa.float64()),
        ("win", pa.bool_()),
        ("chosen_characters", pa.int64()),
        ("rejected_characters", pa.int64()),
    ]
)

SUMMARY = pa.schema(
    [
        ("benchmark", pa.string()),
        ("level", pa.string()),  # subset | section | overall
        ("name", pa.string()),
        ("pairs", pa.int64()),
        ("accuracy", pa.float64()),
        ("low", pa.float64()),  # 95 % bootstrap interval
        ("high", pa.float64()),
        ("longest_accuracy", pa.float64()),  # of preferring the longer response
    ]
)

REJECTED_PAIRS = pa.schema([("benchmark", pa.string()), ("line", pa.int64()), ("reason", pa.string())])

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
