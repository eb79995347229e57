"""Columns of the stage's tables. What those hold that are published under an asset's key: `pipeline.columns`."""

import pyarrow as pa

from pipeline.vocabulary import MESSAGES

CONTEXTS = pa.schema(
    [
        ("prompt_id", pa.string()),
        ("messages", MESSAGES),
        ("n_turns", pa.int16()),
        ("model", pa.string()),
        ("model_revision", pa.string()),
    ]
)

CANDIDATES = pa.schema(
    [
        ("prompt_id", pa.string()),
        ("turn", pa.int16()),  # of the assistant, from 1
        ("candidate", pa.int16()),
        ("text", pa.string()),
        ("scores", pa.list_(pa.struct([("scorer", pa.string()), ("score", pa.float64())]))),
        ("chosen", pa.bool_()),
    ]
)

REJECTED_CONTEXTS = pa.schema([("prompt_id", pa.string()), ("reason", pa.string())])

PLAN = pa.schema(
    [
        ("prompt_id", pa.string()),
        ("position", pa.int8()),
        ("generator", pa.string()),
        ("seed", pa.int64()),
    ]
)

REQUESTS = pa.schema(
    [
        ("prompt_id", pa.string()),
        ("generator", pa.string()),
        ("messages", MESSAGES),
        ("sampling", pa.string()),  # JSON of settings.Sampling
        ("seed", pa.int64()),
    ]
)

RESPONSES = pa.schema(
    [
        ("response_id", pa.string()),
        ("prompt_id", pa.string()),
        ("generator", pa.string()),
        ("model", pa.string()),
        ("model_revision", pa.string()),
        ("licence", pa.string()),
        ("response", pa.string()),
        ("reasoning", pa.string()),
        ("finish_reason", pa.string()),
        ("detail", pa.string()),
        ("prompt_tokens", pa.int32()),
        ("output_tokens", pa.int32()),
        ("sampling", pa.string()),
        ("seed", pa.int64()),
        ("request_key", pa.string()),
    ]
)

RESPONSE_PAIRS = pa.schema(
    [
        ("prompt_id", pa.string()),
        ("position", pa.int8()),
        ("response_id", pa.string()),
        ("generator", pa.string()),
        ("model", pa.string()),
        ("model_revision", pa.string()),
        ("licence", pa.string()),
        ("messages", MESSAGES),
        ("response", pa.string()),
        ("finish_reason", pa.string()),
        ("prompt_tokens", pa.int32()),
        ("output_tokens", pa.int32()),
    ]
)
