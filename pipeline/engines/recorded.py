"""Answers that exist already, by the conversation that they answer: for imports, and for playing a run again."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.engines.requests import REFUSED, Answer, Request
from pipeline.records import Unreadable, records


class RecordedEngine:
    """A file of answers. A row has `messages` (a list, or its JSON) or `prompt` (one user turn), and `response`; the first of a kind counts."""

    def __init__(self, path: Path) -> None:
        """Raises ValueError with line and reason for a row that can't be used."""
        self._path = path
        self._answers: dict[str, str] = {}
        for line, row in records(path):
            if isinstance(row, Unreadable) or not isinstance(row, Mapping):
                raise ValueError(
                    f"{path}:{line}: {row.reason if isinstance(row, Unreadable) else 'the line is not a record'}"
                )
            self._answers.setdefault(_key(_messages(row, f"{path}:{line}")), _response(row, f"{path}:{line}"))

    def answer(self, requests: Sequence[Request]) -> Iterator[Answer]:
        """See `Engine.answer`. The system message is no part of the look-up; a conversation that isn't recorded is refused."""
        for request in requests:
            asked = [dict(m) for m in request.messages if m["role"] != "system"]
            text = self._answers.get(_key(asked))
            if text is None:
                yield Answer(request.key, "", REFUSED, f"no recorded answer in {self._path.name}", 0, 0)
            else:
                yield Answer(request.key, text, "stop", None, 0, 0)


def _key(messages: Sequence[Mapping[str, str]]) -> str:
    return json.dumps([[m["role"], m["content"]] for m in messages], ensure_ascii=False)


def _messages(row: Mapping[str, Any], place: str) -> list[dict[str, str]]:
    messages = row.get("messages")
    if isinstance(messages, str):
        messages = json.loads(messages)
    if messages is None and isinstance(row.get("prompt"), str):
        return [{"role": "user", "content": row["prompt"]}]
    good = isinstance(messages, list) and all(
        isinstance(m, Mapping) and isinstance(m.get("role"), str) and isinstance(m.get("content"), str)
        for m in messages
    )
    if not messages or not good:
        raise ValueError(f"{place}: has neither `messages`, a list of role and content, nor `prompt`, a text")
    return [{"role": m["role"], "content": m["content"]} for m in messages if m["role"] != "system"]


def _response(row: Mapping[str, Any], place: str) -> str:
    if not isinstance(row.get("response"), str):
        raise ValueError(f"{place}: `response` is missing, or is not a text")
    return str(row["response"])
