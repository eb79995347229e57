"""Columns of the stage's tables."""

import pyarrow as pa

from pipeline.settings import ATTRIBUTES

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
