"""Columns of the stage's tables."""

import pyarrow as pa

from pipeline.vocabulary import ATTRIBUTES, MESSAGES, OUTPUTS

TUNED_ON = pa.schema(
    [
        ("split", pa.string()),  # train | held_out
        ("origin", pa.string()),  # data | conversations
        ("prompt_id", pa.string()),
        ("response_id", pa.string()),
        ("messages", MESSAGES),
        ("response", pa.string()),
        ("best", pa.bool_()),  # the response of its prompt that is learned; of conversations every one
    ]
)
"""What policies are tuned on, a row a response: those of the data, a prompt's together, then conversations, whose response is their last turn."""

SCORED_DATA = pa.schema(
    [
        ("split", pa.string()),
        ("origin", pa.string()),
        ("prompt_id", pa.string()),
        ("response_id", pa.string()),
        *(pa.field(attribute, pa.float64()) for attribute in ATTRIBUTES),  # null: the model has no such output
        ("goodness", pa.float64()),
        ("standardised", pa.float64()),
    ]
)
"""What the recipe's reward model predicts of TUNED_ON, in its order: of all the data, and of the conversations where a method needs it."""

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

REWARDS = pa.schema(
    [
        *SAMPLES,
        ("characters", pa.int64()),
        ("goodness", pa.float64()),
        ("standardised", pa.float64()),
        ("second_goodness", pa.float64()),  # of the reward model that watches, as it is; null where nobody does
        ("verbosity", pa.float64()),  # as the recipe's reward model has it; null: it has no such output
        (
            "log_prob",
            pa.float64(),
        ),  # of the response and its end by the policy; null: too long, or refused by its template
        (
            "log_prob_before",
            pa.float64(),
        ),  # by the policy that it started from; null too for one that started from nothing here
    ]
)
"""Samples of a policy on held-out prompts, with what reward models say of them."""

WATCHED = pa.schema(
    [
        ("step", pa.int64()),
        ("messages", MESSAGES),  # what the policy was asked, levels among it where it is asked for them
        ("response", pa.string()),
        ("ended", pa.bool_()),
        ("tokens", pa.int32()),
        ("standardised", pa.float64()),  # null: nobody rates it while the method trains
    ]
)
"""Samples of a policy at the evaluations of its training, always to the same held-out prompts."""

STEERED = pa.schema(
    [
        ("attribute", pa.string()),
        ("asked", pa.int8()),  # the level of the attribute that the policy is asked for, 0 to 4
        ("measured", pa.float64()),  # what the reward model predicts of it; NaN: it doesn't score the response
        ("prompt_id", pa.string()),
        ("messages", MESSAGES),  # the prompt as it is in the data
        ("response", pa.string()),
        ("characters", pa.int64()),
        ("ended", pa.bool_()),
        ("tokens", pa.int32()),
    ]
)
"""Responses of a policy to the same held-out prompts at every level of an attribute."""
