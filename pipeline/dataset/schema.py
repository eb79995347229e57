"""Columns of the stage's tables."""

import pyarrow as pa

from pipeline.responses.schema import MESSAGES
from pipeline.settings import ATTRIBUTES

DATASET = pa.schema(
    [
        ("split", pa.string()),  # train | validation
        ("prompt_id", pa.string()),
        ("response_id", pa.string()),
        ("position", pa.int8()),
        ("messages", MESSAGES),
        ("response", pa.string()),
        *(pa.field(a, pa.int8()) for a in ATTRIBUTES),
        *(pa.field(f"{a}_mean", pa.float32()) for a in ATTRIBUTES),
        *(pa.field(f"{a}_sd", pa.float32()) for a in ATTRIBUTES),
        *(pa.field(f"{a}_n", pa.int8()) for a in ATTRIBUTES),
        ("n_turns", pa.int16()),
        ("generator", pa.string()),
        ("model", pa.string()),
        ("model_revision", pa.string()),
        ("licence", pa.string()),
        ("delivery", pa.string()),
        ("simulated", pa.bool_()),
    ]
)
"""What training and evaluation read: two rows a prompt, sorted by prompt_id and position."""

HELPSTEER = pa.schema(
    [("prompt", pa.string()), ("response", pa.string()), *(pa.field(a, pa.int64()) for a in ATTRIBUTES)]
)
"""A row of nvidia/HelpSteer2's train and validation files."""

PROVENANCE = pa.schema([f for f in DATASET if f.name not in ("messages", "response", *ATTRIBUTES)])

LEFT_OUT = pa.schema([("prompt_id", pa.string()), ("delivery", pa.string()), ("reason", pa.string())])
