"""Columns of the stage's tables. What those hold that are published under an asset's key: `pipeline.columns`."""

import pyarrow as pa

TURN = pa.struct([("role", pa.string()), ("content", pa.string())])

CONVERSATIONS = pa.schema(
    [
        ("conversation_id", pa.string()),
        ("source", pa.string()),
        ("licence", pa.string()),
        ("turns", pa.list_(TURN)),
        ("flags", pa.list_(pa.string())),
    ]
)

REJECTED_RECORDS = pa.schema(
    [
        ("source", pa.string()),
        ("file", pa.string()),
        ("record", pa.int64()),
        ("reason", pa.string()),
        ("detail", pa.string()),
    ]
)

CANDIDATES = pa.schema(
    [
        ("prompt_id", pa.string()),
        ("conversation_id", pa.string()),
        ("turns", pa.list_(pa.string())),
        ("n_turns", pa.int16()),
        ("n_characters", pa.int32()),
        ("language", pa.string()),
        ("language_probability", pa.float32()),
        (
            "flags",
            pa.list_(pa.string()),
        ),
        ("source", pa.string()),
        ("licence", pa.string()),
    ]
)

REJECTED = CANDIDATES.append(pa.field("reason", pa.string()))

TOPICS = CANDIDATES.append(pa.field("topic", pa.int32())).append(pa.field("topic_name", pa.string()))

COMPLEXITY = TOPICS.append(pa.field("complexity", pa.int8()))

PROMPTS = pa.schema(
    [
        COMPLEXITY.field(name)
        for name in (
            "prompt_id",
            "turns",
            "n_turns",
            "n_characters",
            "language",
            "topic",
            "topic_name",
            "complexity",
            "source",
            "licence",
            "flags",
        )
    ]
)

TOPIC_MAP = pa.schema(
    [
        ("topic", pa.int32()),
        ("topic_name", pa.string()),
        ("prompts", pa.int32()),  # candidates that have it now; 0 where a topic has outlived its prompts
        ("fits_from", pa.float32()),  # cosine to the centre from which a new candidate fits
        ("centre", pa.list_(pa.float32())),  # a unit vector
    ]
)

SHORTFALL = pa.schema(
    [
        ("topic", pa.int32()),
        ("topic_name", pa.string()),
        ("share", pa.int64()),
        ("gave", pa.int64()),
        ("free", pa.int64()),
        ("for_want_of", pa.string()),
    ]
)
