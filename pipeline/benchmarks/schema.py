"""Row contracts of benchmarks: their items, what is set aside, and what a scorer reaches on them."""

import pyarrow as pa

from pipeline.vocabulary import MESSAGES

ITEMS = pa.schema(
    [
        ("benchmark", pa.string()),
        ("subset", pa.string()),
        ("item_id", pa.string()),  # once in a subset
        ("messages", MESSAGES),  # the prompt; the last turn is the user's
        ("responses", pa.list_(pa.string())),
        ("good", pa.list_(pa.bool_())),  # which responses are held to be right; at least one is, and one isn't
        (
            "cluster",
            pa.string(),
        ),  # items of one cluster aren't independent of each other; null: the item is one by itself
    ]
)
"""A benchmark: a row a prompt, with all its responses."""

TOTALS = ("overall", "part")
"""Levels of a benchmark's one figure: over all of it, or over what is there of a published one that isn't whole."""

REJECTED = pa.schema([("benchmark", pa.string()), ("line", pa.int64()), ("reason", pa.string())])
"""Records of a benchmark that are no item."""

OUTCOMES = pa.schema(
    [
        ("benchmark", pa.string()),
        ("subset", pa.string()),
        ("unit", pa.string()),  # an item's id; of RewardBench 2's Ties the number of the question
        ("measure", pa.string()),  # accuracy; of RM-Bench easy, normal and hard too
        ("value", pa.float64()),  # 0 to 1; of Ties -0.01 to 1.01
        ("margin", pa.float64()),  # of goodness: the worst good response's less the best other one's; NaN: not finite
        ("cluster", pa.string()),  # that of its item
    ]
)
"""What a scorer reaches on each unit. A subset's figure is the mean of its units' values; a bootstrap draws their clusters anew."""
