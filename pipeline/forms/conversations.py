"""Conversations, responses and pairs of them in a record, as people write them down. Functions raise FieldError with the field and its fault."""

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from pipeline.forms.ratings import FieldError
from pipeline.records import unstorable

Messages = list[dict[str, str]]
ROLES = ("system", "user", "assistant")


def of_cell(value: Any) -> Any:
    """A value; of a text that is a JSON list of messages, as in CSV, the list."""
    if isinstance(value, str) and value.lstrip().startswith("[{"):
        with suppress(ValueError):
            found = json.loads(value)
            if all(isinstance(message, dict) and "role" in message for message in found):
                return found
    return value


def text_of(value: Any, name: str) -> str:
    """A text, which may be blank."""
    if not isinstance(value, str):
        raise FieldError(name, "is missing" if value is None else f"is a {type(value).__name__}, not a text")
    if fault := unstorable(value):
        raise FieldError(name, fault)
    return value


def messages_of(given: Any, name: str) -> Messages:
    """A list of at least one message."""
    if not isinstance(given, Sequence) or isinstance(given, str) or not given:
        raise FieldError(name, f"is a {type(given).__name__}, neither a text nor a list of messages")
    found = []
    for message in given:
        role = message.get("role") if isinstance(message, Mapping) else None
        if role not in ROLES:
            raise FieldError(name, f"has a message whose role is {str(role)[:40]!r}, none of {', '.join(ROLES)}")
        found.append({"role": role, "content": text_of(message.get("content"), name)})
    return found


def asked(messages: Messages, name: str) -> Messages:
    """Messages that end with the user's."""
    if not messages or messages[-1]["role"] != "user":
        raise FieldError(name, "has no user's message before the response")
    return messages


def response_of(given: Any, name: str) -> tuple[Messages, str]:
    """What comes before a response, empty where the field doesn't say it, and the response.

    It is a text, or a list of messages that ends with the assistant's: that one alone, or the whole conversation.
    """
    given = of_cell(given)
    if given is None or isinstance(given, str):
        return [], text_of(given, name)
    messages = messages_of(given, name)
    if messages[-1]["role"] != "assistant":
        raise FieldError(name, "is a list of messages that does not end with the assistant's")
    before = messages[:-1]
    return asked(before, name) if before else [], messages[-1]["content"]


def two_responses(record: Mapping[str, Any], prompt: Messages | None) -> tuple[Messages, str, str]:
    """The prompt of a record, and its fields `chosen` and `rejected` as responses.

    prompt: what a field of its own says. Whole conversations say it themselves; where both do, they must say the same.
    """
    before, chosen = response_of(record.get("chosen"), "chosen")
    other, rejected = response_of(record.get("rejected"), "rejected")
    if (before or other) and before != other and ((before and other) or not prompt):
        raise FieldError("rejected", "differs from chosen before the last message")
    whole = before or other
    if whole and prompt and not same_prompt(whole, prompt):
        raise FieldError("chosen", "is a conversation with another prompt than the field prompt")
    if not (whole or prompt):
        raise FieldError("prompt", "is missing")
    return whole or asked(prompt or [], "prompt"), chosen, rejected


def parted(chosen: Messages, rejected: Messages) -> tuple[Messages, str, str, bool]:
    """Two whole conversations as the turns that they share, each one's answer to them, and whether turns after the answers are left out.

    Raises FieldError where they part at a turn that isn't the assistant's, so that there are no two answers to one prompt.
    """
    shared = next((n for n, (one, other) in enumerate(zip(chosen, rejected, strict=False)) if one != other), None)
    if shared is None:  # one has all the turns of the other: where they are as many, their last answers are the same
        shared = min(len(chosen), len(rejected)) - (len(chosen) == len(rejected))
    before = chosen[:shared]
    if not before or before[-1]["role"] != "user":
        raise FieldError(
            "rejected", "parts from chosen at a turn that is not the assistant's: they don't answer the same prompt"
        )
    for name, turns in (("chosen", chosen), ("rejected", rejected)):
        if len(turns) <= shared or turns[shared]["role"] != "assistant":
            raise FieldError(name, "has no answer of the assistant after the turns that chosen and rejected share")
    later = max(len(chosen), len(rejected)) > shared + 1
    return before, chosen[shared]["content"], rejected[shared]["content"], later


def same_prompt(whole: Messages, prompt: Messages) -> bool:
    """Whether a conversation has a prompt: all of it, or, where the prompt is one turn or lacks the system's message, what it is answered to."""
    return prompt in (whole, whole[1:]) or (len(prompt) == 1 and whole[-1] == prompt[0])
