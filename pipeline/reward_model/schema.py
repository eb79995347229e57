"""Columns of the stage's tables. What those hold that are published under an asset's key: `pipeline.columns`."""

import pyarrow as pa

from pipeline.vocabulary import ATTRIBUTES, MESSAGES, OUTPUTS

RATED = pa.schema(
    [
        ("split", pa.string()),
        ("prompt_id", pa.string()),
        ("response_id", pa.string()),
        ("position", pa.int64()),
        ("messages", MESSAGES),
        ("response", pa.string()),
        *(pa.field(a, pa.float64()) for a in ATTRIBUTES),
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
        ("stage", pa.string()),  # ratings | preferences | extrapolated
        ("step", pa.int64()),
        ("train_loss", pa.float64()),  # mean since the row before; null at step 0, and for a probe
        ("development_loss", pa.float64()),
        ("pair_accuracy", pa.float64()),  # development pairs that the first output orders as people did
        *(pa.field(f"{a}_mse", pa.float64()) for a in ATTRIBUTES),  # null: not predicted
        *(pa.field(f"{a}_pearson", pa.float64()) for a in ATTRIBUTES),
        ("chosen", pa.bool_()),  # the checkpoint that its stage ends with
    ]
)
"""Evaluations on the development prompts. The last stage's chosen checkpoint is the one that is published."""

STEPS = pa.schema(
    [
        ("stage", pa.string()),
        ("step", pa.int64()),
        ("loss", pa.float64()),
        ("learning_rate", pa.float64()),
        ("grad_norm", pa.float64()),
        ("tokens", pa.int64()),  # without padding
        ("flops", pa.float64()),
    ]
)
"""Optimiser steps. Their speed is not here: the same data and recipe give the same table."""

PREDICTIONS = pa.schema(
    [
        ("prompt_id", pa.string()),
        ("response_id", pa.string()),
        ("position", pa.int64()),
        *(pa.field(name, pa.float64()) for name in OUTPUTS),  # null: not predicted
        *(pa.field(f"{a}_label", pa.float64()) for a in ATTRIBUTES),
    ]
)
"""Predictions for the rated development responses, beside the labels."""

PREFERENCE_PREDICTIONS = pa.schema(
    [
        ("prompt_id", pa.string()),
        ("strength", pa.float64()),
        *(pa.field(f"{side}_{name}", pa.float64()) for side in ("chosen", "rejected") for name in OUTPUTS),
    ]
)
"""Predictions for both sides of the development preferences."""

TRAINING_PROMPTS = pa.schema([("prompt_id", pa.string())])

TABLES = (
    "training_curve",
    "training_steps",
    "development_predictions",
    "development_preferences",
    "training_prompts",
)
"""Tables in a model's folder, by their files' names without the ending."""
