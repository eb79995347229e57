"""Anthropic/hh-rlhf, in the form in which it is published, as training data."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipeline.forms.ratings import FieldError
from pipeline.reward_model.sources.reading import filled_text, there, usable
from pipeline.reward_model.sources.tables import (
    PREFERRED_ROWS,
    VALIDATION_PAIRS,
    Prompts,
    Source,
    context_id,
    different,
    tables_of,
)
from pipeline.settings import HHData
from pipeline.vocabulary import MESSAGES

_TURN = re.compile(r"\n\n(Human|Assistant):")


def fill(source: Source, folder: Path, data: HHData) -> None:
    """Anthropic's pairs (arXiv 2204.05862, and the card): a line has two transcripts, `chosen` and `rejected`, of one conversation.

    They must differ in the last answer alone. The published test split is left out. `red-team-attempts` are no preferences, says the card.
    """
    prompts, held_out = Prompts(data.limit), list[list[dict[str, str]]]()

    def pairs(split: str) -> Iterator[dict[str, Any]]:
        for subset in data.subsets:
            path = folder / subset / f"{split}.jsonl.gz"
            if split == "test" and not path.is_file():
                continue
            for line, record in usable(there(path), source.quarantine):
                try:
                    yield _pair(record)
                except FieldError as error:
                    source.quarantine.add(f"{subset}/{path.name}", line, error.name, str(error), record)

    for pair in pairs("test"):
        source.counts[VALIDATION_PAIRS] += 1
        held_out.append(pair["messages"])
    taken = (pair for pair in pairs("train") if prompts.take(pair["prompt_id"]))
    source.preferred = different(tables_of(taken, PREFERRED_ROWS), source.counts)
    source.validation = pa.array(held_out, MESSAGES)


def _pair(record: Mapping[str, Any]) -> dict[str, Any]:
    chosen, rejected = (_transcript(record, name) for name in ("chosen", "rejected"))
    if chosen[:-1] != rejected[:-1]:
        raise FieldError("rejected", "differs from chosen before the last answer")
    return {
        "prompt_id": context_id(chosen[:-1]),
        "messages": chosen[:-1],
        "chosen": chosen[-1]["content"],
        "rejected": rejected[-1]["content"],
        "strength": 1.0,
    }


def _transcript(record: Mapping[str, Any], name: str) -> list[dict[str, str]]:
    """A transcript's turns. Raises FieldError where the human doesn't begin, turns aren't taken, one is blank, or no answer is last."""
    before, *parts = _TURN.split(filled_text(record, name))
    roles, texts = parts[::2], [text.strip() for text in parts[1::2]]
    if before.strip() or not roles:
        raise FieldError(name, "does not begin with Human:")
    if roles != ["Human", "Assistant"] * (len(roles) // 2):
        raise FieldError(name, "doesn't alternate between Human and Assistant, with an answer at the end")
    if not all(texts):
        raise FieldError(name, "has a blank turn")
    return [{"role": ("user", "assistant")[n % 2], "content": text} for n, text in enumerate(texts)]
