"""Columns of the stage's tables."""

import pyarrow as pa

from pipeline.responses.schema import MESSAGES
from pipeline.settings import ATTRIBUTES

RATED = pa.schema(
    [
        ("split", pa.string()),  # train | development
        ("prompt_id", pa.string()),
        ("response_id", pa.string()),
        ("position", pa.int64()),  # of the response among those of its prompt, from 1
        ("messages", MESSAGES),
        ("response", pa.string()),
        *(pa.field(a, pa.float64()) for a in ATTRIBUTES),  # target, 0 to 4; null: not rated
    ]
)
"""Rated responses that a recipe trains on, and those that pick its checkpoint."""

PREFERRED = pa.schema(
    [
        ("split", pa.string()),  # train | development
        ("prompt_id", pa.string()),
        ("messages", MESSAGES),
        ("chosen", pa.string()),
        ("rejected", pa.string()),
        ("strength", pa.float64()),  # above 0; 1 where nothing more is known
    ]
)
"""Preferences that a recipe trains on, and those that pick its checkpoint; no ties."""

DROPPED = pa.schema(
    [
        ("prompt_id", pa.string()),
        ("source", pa.string()),  # the recipe's `data`
        ("benchmark", pa.string()),  # or the validation split that has this prompt
        ("overlap", pa.float64()),  # share of the benchmark prompt's words that are matched, 0 to 1
    ]
)
"""Prompts that are not trained on, as they are too close to a benchmark prompt; a row a prompt and benchmark."""

CURVE = pa.schema(
    [
        ("step", pa.int64()),
        ("train_loss", pa.float64()),  # mean since the row before; null at step 0
        ("development_loss", pa.float64()),
        *(pa.field(f"{a}_mse", pa.float64()) for a in ATTRIBUTES),
        *(pa.field(f"{a}_pearson", pa.float64()) for a in ATTRIBUTES),
        ("chosen", pa.bool_()),  # the checkpoint that is published
    ]
)

PREDICTIONS = pa.schema(
    [
        ("prompt_id", pa.string()),
        ("response_id", pa.string()),
        ("position", pa.int8()),
        *(pa.field(a, pa.float64()) for a in ATTRIBUTES),
        *(pa.field(f"{a}_label", pa.float64()) for a in ATTRIBUTES),
        ("helpfulness_mean", pa.float64()),
    ]
)
"""Predictions on the development prompts, beside the labels."""

TRAINING_PROMPTS = pa.schema([("prompt_id", pa.string())])
