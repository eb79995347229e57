"""Row contracts of engines: what became of requests."""

import pyarrow as pa

ANSWERS = pa.schema(
    [
        ("request_key", pa.string()),
        ("text", pa.string()),
        ("finish_reason", pa.string()),  # stop | length | refused
        ("detail", pa.string()),  # why a request was refused
        ("prompt_tokens", pa.int32()),
        ("output_tokens", pa.int32()),
        ("reasoning", pa.string()),  # what the model thought before it responded
    ]
)

FAILURES = pa.schema(
    [
        ("request_key", pa.string()),
        ("reason", pa.string()),  # refused | failed
        ("detail", pa.string()),
        ("at", pa.timestamp("us", "UTC")),
    ]
)
"""Requests without an answer: recorded, and tried again."""
