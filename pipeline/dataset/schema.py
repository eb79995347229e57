"""Columns of the stage's tables. What those hold that are published under an asset's key: `pipeline.columns`."""

import pyarrow as pa

from pipeline.forms.helpsteer import DISAGREEMENTS, HELPSTEER, PREFERENCE
from pipeline.vocabulary import ATTRIBUTES, MESSAGES

DATASET = pa.schema(
    [
        ("split", pa.string()),
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
        ("rated_by", pa.string()),
    ]
)
"""What training and evaluation read: two rows a prompt, sorted by prompt_id and position."""

PROVENANCE = pa.schema([f for f in DATASET if f.name not in ("messages", "response", *ATTRIBUTES)])

HELD = "an annotator's flag holds the task back"
LEFT_OUT = pa.schema([("prompt_id", pa.string()), ("delivery", pa.string()), ("reason", pa.string())])

FILES = {
    "train": HELPSTEER,
    "validation": HELPSTEER,
    "disagreements/disagreements": DISAGREEMENTS,
    "preference/preference": PREFERENCE,
}
"""Files in nvidia/HelpSteer2's form, by path without ending; each as `.jsonl.gz`, as on the hub, and as `.parquet` beside it."""

REMOVALS = pa.schema(
    [
        ("what", pa.string()),
        ("before", pa.int64()),
        ("removed", pa.int64()),
        ("why", pa.string()),
    ]
)
"""What was removed on the way to the data set, in the order of removal."""

STATISTICS = pa.schema(
    [
        ("quantity", pa.string()),
        *(pa.field(f"{figure}{whose}", pa.float64()) for figure in ("mean", "sd", "r") for whose in ("", "_published")),
    ]
)
"""Descriptive statistics beside HelpSteer2's; r: Pearson's correlation with helpfulness."""

PUSHED = pa.schema(
    [
        ("version", pa.string()),
        ("repo", pa.string()),
        ("private", pa.bool_()),
        ("commit", pa.string()),
        ("commit_url", pa.string()),
    ]
)
"""What was uploaded to the hub, and where it is there."""
