"""Conversations written as one text, as Anthropic's hh-rlhf has them: each turn begins with "Human:" or "Assistant:", after an empty line."""

import re
from itertools import groupby
from typing import Any

from pipeline.forms.conversations import Messages
from pipeline.forms.ratings import FieldError

_TURN = re.compile(r"\n\n(Human|Assistant):")
_ROLES = {"Human": "user", "Assistant": "assistant"}


def is_transcript(value: Any) -> bool:
    """Whether a value is a text that begins with the human's turn and has one of the assistant's."""
    return isinstance(value, str) and value.lstrip().startswith("Human:") and "\n\nAssistant:" in value


def transcript_of(text: str, name: str) -> Messages:
    """The turns of a transcript; those of one side that follow each other are joined, by an empty line.

    Raises FieldError for the field `name` where the human doesn't begin, or a turn is blank.
    """
    before, *parts = _TURN.split(f"\n\n{text.lstrip()}")
    turns = list(zip(parts[::2], map(str.strip, parts[1::2]), strict=True))
    if before.strip() or not turns or turns[0][0] != "Human":
        raise FieldError(name, "does not begin with Human:")
    joined = [
        (role, "\n\n".join(text for _, text in same if text)) for role, same in groupby(turns, lambda turn: turn[0])
    ]
    if not all(text for _, text in joined):
        raise FieldError(name, "has a blank turn")
    return [{"role": _ROLES[role], "content": text} for role, text in joined]
