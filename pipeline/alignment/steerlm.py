"""SteerLM: a policy learns responses beside the attribute levels that the reward model gives them, and is asked for high ones (arXiv 2310.05344).

The levels stand in the system message, in the form that generators are asked in, so that any engine or server can ask for them.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from pipeline.alignment.encoding import Example
from pipeline.models.conditions import system_message
from pipeline.models.templates import Message
from pipeline.settings import Alignment
from pipeline.vocabulary import ATTRIBUTES, Attribute

Floats = npt.NDArray[np.float64]
LEVELS = 5
"""Levels of an attribute, from 0."""


def asked_of(outputs: Sequence[str], target: Mapping[Attribute, int], name: str) -> dict[Attribute, int]:
    """The target levels that a policy is asked for: those of the attributes that the reward model `name` predicts, in the published order.

    A policy is trained on levels of the same attributes, one of a helpfulness-only model on that one alone. Raises ValueError where there
    is none, as with a model that learned from preferences in the end.
    """
    found = {attribute: target[attribute] for attribute in ATTRIBUTES if attribute in outputs and attribute in target}
    if not found:
        raise ValueError(
            f"the reward model {name} predicts {', '.join(outputs)}, no attribute of `target` ({', '.join(target)}): SteerLM needs a recipe that "
            "predicts ratings, one with `objective: regression` or `probe`"
        )
    return found


def policy_levels(wanted: Alignment, name: str, outputs: Sequence[str], model: str) -> dict[Attribute, int]:
    """The levels that the policy of a method is asked for: see `asked_of`; none for one that is tuned to none."""
    method = wanted.steered_by(name)
    return asked_of(outputs, method.target, model) if method else {}


def levels_of(predictions: Floats) -> npt.NDArray[np.int64]:
    """Predicted ratings of any shape as levels: clamped to 0 to 4, and rounded to the nearest, a half up.

    NeMo-Aligner's labels (`attribute_annotate.py`, which rounds an exact half to the even level). Raises ValueError where a prediction is
    no finite number.
    """
    finite(predictions)
    clamped = np.clip(predictions, 0, LEVELS - 1)
    below = np.floor(clamped)
    return (below + (clamped - below >= 0.5)).astype(np.int64)


def finite(predictions: Floats) -> None:
    """Raises ValueError where a prediction is no finite number."""
    if bad := int((~np.isfinite(predictions)).sum()):
        raise ValueError(
            f"{bad} of {predictions.size} predicted ratings are no finite numbers; leave out what the reward model doesn't score"
        )


def conditioned(messages: Sequence[Message], levels: Mapping[Attribute, int]) -> list[Message]:
    """Messages whose system message asks for levels; a conversation's own system message stays, before them."""
    own = messages[0]["content"] if messages and messages[0]["role"] == "system" else None
    text = system_message(own, levels)
    system: list[Message] = [{"role": "system", "content": text}] if text else []
    return [*system, *messages[own is not None :]]


def conditioned_each(
    conversations: Sequence[Sequence[Message]], predictions: Floats, attributes: Sequence[Attribute]
) -> list[list[Message]]:
    """Conversations that ask for the levels which the reward model gives their last responses: what SteerLM is trained on.

    predictions: shape (conversations, attributes). Earlier responses have other levels: train the last one alone, see `last_alone`.
    Raises ValueError as `levels_of` does.
    """
    levels = levels_of(predictions).tolist()
    return [
        conditioned(messages, dict(zip(attributes, row, strict=True)))
        for messages, row in zip(conversations, levels, strict=True)
    ]


def last_alone(example: Example) -> Example:
    """An example of which the last response is trained, and none before."""
    return Example(example.ids, [n >= example.prompt for n in range(len(example.ids))])
