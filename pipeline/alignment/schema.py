"""Columns of the stage's tables."""

import pyarrow as pa

from pipeline.vocabulary import MESSAGES, OUTPUTS

SAMPLES = pa.schema(
    [
        ("prompt_id", pa.string()),
        ("sample", pa.int32()),  # of the prompt, from 0
        ("messages", MESSAGES),  # the prompt as it is in the data, without levels that the policy was asked for
        ("response", pa.string()),
        ("ended", pa.bool_()),  # false: the response was cut off at the largest number of tokens
        ("tokens", pa.int32()),  # of the response
    ]
)
"""Responses drawn from a policy."""

SCORED = pa.schema(
    [
        *SAMPLES,
        ("characters", pa.int64()),
        *(pa.field(name, pa.float64()) for name in OUTPUTS),
        ("goodness", pa.float64()),  # NaN: the reward model doesn't score it
        ("standardised", pa.float64()),
    ]
)
"""Samples with what the reward model predicts of them."""

PAIRS = pa.schema(
    [
        ("prompt_id", pa.string()),
        ("messages", MESSAGES),
        ("chosen", pa.string()),
        ("rejected", pa.string()),
        ("chosen_sample", pa.int32()),
        ("rejected_sample", pa.int32()),
        ("chosen_goodness", pa.float64()),
        ("rejected_goodness", pa.float64()),
        ("rejected_ended", pa.bool_()),  # the chosen one always has
    ]
)
"""The best and the worst sample of each prompt."""
