"""Marks with which a model tells turns apart. In a stranger's text they could forge a turn. Needs a tokenizer, not torch."""

import re
from collections.abc import Iterable, Sequence
from contextlib import suppress
from functools import lru_cache
from typing import Any

from pipeline.models.templates import Message, own_template, written

WELL_KNOWN = re.compile(
    r"<[|｜][^|｜<>\n]{1,40}[|｜]>|<extra_id_\d+>|\[/?(?:INST|SYSTEM_PROMPT)\]|<</?SYS>>|<(?:start|end)_of_turn>|</?s>"
)
"""Marks of the families of language models, for where a model's own are not known: ChatML, Llama, Gemma, Mistral, Phi, Granite, DeepSeek, ..."""

_TAG = re.compile(r"<[^<>\s]+>|\[/?[A-Z][A-Z_]*\]|<</?SYS>>")
_CONTROL = re.compile(r"<[|｜][^<>\n]+>|<[^<>\n]+[|｜]>")
_TURN = "qzx{}qzx"
_TURNS = re.compile(r"qzx\dqzx")


def control_tokens(tokenizer: Any) -> list[str]:
    """Tokens of a vocabulary that no text is meant to have: those that the tokenizer names, then those that are flagged or look so.

    transformers' `all_special_tokens` has the first alone: of Llama 3 not `<|start_header_id|>`.
    """
    added = tokenizer.added_tokens_decoder.values()
    found = [*tokenizer.all_special_tokens, *(str(t) for t in added if t.special or _CONTROL.fullmatch(str(t)))]
    return [token for token in dict.fromkeys(found) if token.strip()]


@lru_cache(maxsize=32)
def marks_of(tokenizer: Any, template: str) -> tuple[str, ...]:
    r"""What tells turns apart for a model: its control tokens, and what its template writes between turns, the longest first.

    Of that, tags (`[INST]`, `<think>`) count by themselves; where there is none, all that stands between two turns, its line break included,
    does: of `plain` that is "\n\nUser:", so that "User:" within a line is text like any other.
    """
    named = [str(t) for t in tokenizer.added_tokens_decoder.values() if str(t) in template]
    marks = dict.fromkeys([*control_tokens(tokenizer), *filter(_TAG.fullmatch, named)])
    turns: list[Message] = [
        {"role": role, "content": _TURN.format(n)}
        for n, role in enumerate(("system", "user", "assistant", "user", "assistant"))
    ]
    from jinja2 import TemplateError

    for conversation in (turns, turns[:-1], turns[1:], turns[1:-1]):
        with suppress(TemplateError):  # it writes no such conversation, one with a system message perhaps
            before, *between = _TURNS.split(written(tokenizer, template, conversation))
            marks |= dict.fromkeys(_TAG.findall(before))
            for text in between:
                tags = _TAG.findall(text)
                marks |= dict.fromkeys(tags)
                if not tags and not any(m in text for m in marks) and re.search(r"\w", text):
                    marks[text.rstrip()] = None
    return tuple(sorted(marks, key=len, reverse=True))


def marks_in(tokenizer: Any, template: str, texts: Iterable[str]) -> list[str]:
    """The marks of a model that stand in texts, each once."""
    pattern = _pattern(tokenizer, template)
    return sorted({mark for text in texts for mark in pattern.findall(text)})


def harmless(tokenizer: Any, messages: Sequence[Message]) -> list[Message]:
    """Messages whose texts hold no mark of the tokenizer and its template: see `as_text`."""
    marks = _pattern(tokenizer, own_template(tokenizer) or "")
    return [{**message, "content": as_text(message["content"], marks)} for message in messages]


def as_text(text: str, marks: re.Pattern[str]) -> str:
    """A text with a space after the first character of every mark, which makes it a text like any other."""
    while marks.search(text):  # what overlaps with a mark may be one
        text = marks.sub(lambda mark: f"{mark[0][0]} {mark[0][1:]}", text)
    return text


@lru_cache(maxsize=32)
def _pattern(tokenizer: Any, template: str) -> re.Pattern[str]:
    return re.compile("|".join(map(re.escape, marks_of(tokenizer, template))) or "(?!)")
