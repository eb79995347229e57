"""Anthropic/hh-rlhf, in the form in which it is published, as training data."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipeline.forms.conversations import parted
from pipeline.forms.ratings import FieldError
from pipeline.forms.transcripts import transcript_of
from pipeline.reward_model.sources.reading import filled_text, there, usable
from pipeline.reward_model.sources.tables import (
    PARTED,
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

FORM = "two transcripts"


def fill(source: Source, folder: Path, data: HHData) -> None:
    """Anthropic's pairs (arXiv 2204.05862, and the card): a line has two transcripts, `chosen` and `rejected`, of one conversation.

    The prompt is what they share; it must end with the human's turn, and the assistant's next turns are the answers. Where the transcripts
    go on after those, the rest is left out, and the pair counted. The published test split is left out. `red-team-attempts` are no
    preferences, says the card.
    """
    prompts, held_out = Prompts(data.limit), list[list[dict[str, str]]]()

    def pairs(split: str) -> Iterator[tuple[dict[str, Any], bool]]:
        for subset in data.subsets:
            path = folder / subset / f"{split}.jsonl.gz"
            if split == "test" and not path.is_file():
                continue
            for line, record in usable(there(path), source):
                try:
                    yield _pair(record)
                except FieldError as error:
                    source.quarantine.add(f"{subset}/{path.name}", line, error.name, str(error), record)
                else:
                    source.forms[FORM] += 1

    def taken() -> Iterator[dict[str, Any]]:
        for pair, later in pairs("train"):
            if prompts.take(pair["prompt_id"]):
                source.counts[PARTED] += later
                yield pair

    for pair, _ in pairs("test"):
        source.counts[VALIDATION_PAIRS] += 1
        held_out.append(pair["messages"])
    source.preferred = different(tables_of(taken(), PREFERRED_ROWS), source.counts)
    source.validation = pa.array(held_out, MESSAGES)


def _pair(record: Mapping[str, Any]) -> tuple[dict[str, Any], bool]:
    """A pair, and whether its transcripts go on after its answers."""
    one, other = (transcript_of(filled_text(record, name), name) for name in ("chosen", "rejected"))
    messages, chosen, rejected, later = parted(one, other)
    row = {
        "prompt_id": context_id(messages),
        "messages": messages,
        "chosen": chosen,
        "rejected": rejected,
        "strength": 1.0,
    }
    return row, later
