"""Two responses to a prompt of which one is preferred, in the forms in which people publish them.

| fields | what they are |
|---|---|
| `prompt`, `chosen`, `rejected` | TRL's explicit prompt: a text or messages; the responses are texts or messages, alone or behind the prompt |
| `chosen`, `rejected` | TRL's implicit prompt: whole conversations, as messages or as texts in the form of Anthropic's hh-rlhf |
| `prompt`, `response_1`, `response_2`, `preference_strength` | nvidia/HelpSteer2's, -3 to 3; negative: response 1 is better, 0: neither |
| `context`, `response1`, `response2`, `overall_preference` | nvidia/HelpSteer3's, in the same numbers; the context is messages |

Beside `chosen` and `rejected` the strength is `strength`, or the difference of `score_chosen` and `score_rejected` where both are there, else 1.
A text is a prompt with earlier turns as nvidia/HelpSteer2's files have them. Of two responses with a preference, the prompt may stand under
`prompt`, `context` or `messages`. Two whole conversations share their beginning, and part at a turn of the assistant's: see
`conversations.parted`.
"""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from pipeline.forms import helpsteer
from pipeline.forms.cells import NO_VALUE
from pipeline.forms.conversations import (
    Messages,
    asked,
    messages_of,
    of_cell,
    parted,
    response_of,
    same_prompt,
    text_of,
    two_responses,
)
from pipeline.forms.ratings import FieldError
from pipeline.forms.transcripts import is_transcript, transcript_of

CHOSEN = ("chosen", "rejected")
SCORES = ("score_chosen", "score_rejected")
COMPARED = (
    ("response_1", "response_2", "preference_strength"),
    ("response1", "response2", "overall_preference"),
)
"""Names of two responses, and of which is better: nvidia/HelpSteer2's and nvidia/HelpSteer3's."""
STRONGEST = 3
"""Largest strength of a preference on these scales."""


class Pair(NamedTuple):
    """A preference: what its form is called, the prompt, the responses, by how much it is (0: neither is better), and whether turns are left out."""

    form: str
    messages: Messages
    chosen: str
    rejected: str
    strength: float
    parted: bool = False


def pair_of(record: Mapping[str, Any]) -> Pair | None:
    """The preference of a record; None where it has no field of one. Raises FieldError."""
    if any(record.get(name) is not None for name in CHOSEN):
        return _chosen_and_rejected(record)
    return next((_compared(record, n) for n in COMPARED if any(record.get(name) is not None for name in n)), None)


def prompt_of(record: Mapping[str, Any], *names: str) -> tuple[Messages, str] | None:
    """The prompt under the first of some names that is there, and that name; None where none is."""
    for name in names:
        given = of_cell(record.get(name))
        if given is not None:
            if isinstance(given, str):
                return helpsteer.messages_of(text_of(given, name)), name
            return messages_of(given, name), name
    return None


def number_of(value: Any, name: str) -> float | None:
    """A number, of JSON or as the text of a cell; None for nothing, and for a word for it."""
    if value is None or (isinstance(value, str) and value.strip().lower() in NO_VALUE):
        return None
    try:
        if isinstance(value, bool):
            raise TypeError
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        raise FieldError(name, f"is {str(value)[:40]!r}, not a number") from None
    return None if math.isnan(number) else number


def _chosen_and_rejected(record: Mapping[str, Any]) -> Pair:
    given, later = prompt_of(record, "prompt"), False
    prompt = given[0] if given else None
    whole = _conversations(record, prompt)
    if whole is None:
        messages, chosen, rejected = two_responses(record, prompt)
    else:
        messages, chosen, rejected, later = parted(*whole)
        if prompt and not same_prompt(messages, prompt):
            raise FieldError("chosen", "is a conversation with another prompt than the field prompt")
    form = "prompt, chosen and rejected" if prompt else "chosen and rejected, whole conversations"
    return Pair(form, messages, chosen, rejected, _strength(record), later)


def _conversations(record: Mapping[str, Any], prompt: Messages | None) -> tuple[Messages, Messages] | None:
    """Both responses as the whole conversations that they are; None where they aren't."""
    one, other = (of_cell(record.get(name)) for name in CHOSEN)
    if prompt is None and is_transcript(one) and is_transcript(other):
        return transcript_of(text_of(one, "chosen"), "chosen"), transcript_of(text_of(other, "rejected"), "rejected")
    if all(isinstance(given, list) and len(given) > 1 for given in (one, other)):
        return messages_of(one, "chosen"), messages_of(other, "rejected")
    return None


def _strength(record: Mapping[str, Any]) -> float:
    """By how much the chosen response is better: above 0, or 0 where both have the same score."""
    said = number_of(record.get("strength"), "strength")
    if said is not None:
        if not 0 < said < math.inf:
            raise FieldError("strength", f"is {said:g}, not above 0" if said <= 0 else f"is {said:g}, not a number")
        return said
    chosen, rejected = (number_of(record.get(name), name) for name in SCORES)
    if chosen is None and rejected is None:
        return 1.0
    if chosen is None or rejected is None:
        raise FieldError(SCORES[chosen is not None], "is missing beside the other response's score")
    if not 0 <= chosen - rejected < math.inf:
        raise FieldError(
            "score_chosen",
            f"is {chosen:g} and score_rejected {rejected:g}: the response called chosen is not the better one",
        )
    return chosen - rejected


def _compared(record: Mapping[str, Any], names: tuple[str, str, str]) -> Pair:
    first, second, preference = names
    given = prompt_of(record, "prompt", "context", "messages")
    if given is None:
        raise FieldError("prompt", "is missing, and so are context and messages: a pair has one of them")
    messages = asked(*given)
    one, other = (response_of(record.get(name), name)[1] for name in (first, second))
    value = number_of(record.get(preference), preference)
    if value is None:
        raise FieldError(preference, "is missing")
    if not -STRONGEST <= value <= STRONGEST:
        raise FieldError(preference, f"is {value:g}, not a number from -3 to 3")
    chosen, rejected = (one, other) if value < 0 else (other, one)
    return Pair(f"{given[1]}, {first}, {second} and {preference}", messages, chosen, rejected, abs(value))
