"""Row contracts of ratings: annotations, labels, and what could not be used."""

import pyarrow as pa

from pipeline.vocabulary import ATTRIBUTES

RATING = [pa.field(attribute, pa.int8()) for attribute in ATTRIBUTES]

ANNOTATIONS = pa.schema(
    [
        ("prompt_id", pa.string()),
        ("response_id", pa.string()),
        ("annotator_id", pa.string()),
        ("round", pa.int8()),
        *RATING,
        ("safe", pa.bool_()),
        ("confidence", pa.int8()),
        ("flags", pa.list_(pa.string())),
        ("comment", pa.string()),
        ("lead_time_s", pa.float32()),
        ("annotated_at", pa.timestamp("us", "UTC")),
        ("desk", pa.string()),
        ("simulated", pa.bool_()),
    ]
)

QUARANTINE = pa.schema(
    [("file", pa.string()), ("line", pa.int64()), ("field", pa.string()), ("reason", pa.string()), ("row", pa.string())]
)

LABELS = pa.schema(
    [
        ("prompt_id", pa.string()),
        ("response_id", pa.string()),
        *RATING,
        *(pa.field(f"{a}_{figure}", pa.float32()) for a in ATTRIBUTES for figure in ("mean", "sd")),
        *(pa.field(f"{a}_n", pa.int8()) for a in ATTRIBUTES),
        *(pa.field(f"{a}_votes", pa.list_(pa.int8(), 5)) for a in ATTRIBUTES),
    ]
)
