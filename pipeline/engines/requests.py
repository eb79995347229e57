"""Requests with a key, and the store of what is finished: no finished answer is asked for twice."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from pipeline.settings import Sampling, said

Message = dict[str, str]

REFUSED, FAILED = "refused", "failed"
"""Finish reasons of what is no answer: a request that can't be answered as it is, and one that nobody answered this time."""

IN_EVERY_KEY = {"temperature", "top_p", "top_k", "repetition_penalty", "max_tokens", "stop"}
"""Fields of `Sampling` that every request's key has, whatever their value."""


@dataclass(frozen=True)
class Request:
    """One conversation to be continued by the assistant. `key` is its identity: see `request_key`.

    form: a JSON schema that the answer must have; the engine writes nothing else. "": any text.
    """

    key: str
    messages: Sequence[Message]
    sampling: Sampling
    seed: int
    form: str = ""


@dataclass(frozen=True)
class Answer:
    """What became of a request. finish_reason: `stop`, `length`, or REFUSED or FAILED with the reason in `detail`.

    An engine may leave the thought in the text, and give the finish reason in its own words: see `content.settled`.
    reasoning: what the model thought before it responded; no part of the response.
    """

    request_key: str
    text: str
    finish_reason: str
    detail: str | None
    prompt_tokens: int
    output_tokens: int
    reasoning: str | None = None


class Engine(Protocol):
    """Something that answers. Answers come as they finish, in any order, one for every request."""

    def answer(self, requests: Sequence[Request]) -> Iterator[Answer]:
        """Answer the requests."""
        ...


def request_key(
    messages: Sequence[Message], model: str, revision: str, template: str, sampling: Sampling, seed: int, form: str = ""
) -> str:
    """sha256 over everything that an answer depends on: 64 hex digits.

    A field that `Sampling` gets later counts only where it is not at its default, so that what is finished keeps its key.
    """
    decoding = sampling.model_dump(mode="json", include=IN_EVERY_KEY) | said(sampling)
    parts: list[object] = [list(messages), model, revision, template, decoding, seed]
    parts += [form] if form else []
    return hashlib.sha256(json.dumps(parts, sort_keys=True, ensure_ascii=False).encode()).hexdigest()
