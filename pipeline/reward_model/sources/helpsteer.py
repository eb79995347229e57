"""nvidia/HelpSteer2 and nvidia/HelpSteer, in the form in which they are published, as training data."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.forms import ratings
from pipeline.forms.helpsteer import messages_of
from pipeline.reward_model.sources.reading import there
from pipeline.reward_model.sources.tables import (
    PREFERRED_ROWS,
    RATED_ROWS,
    TIES,
    VALIDATION_PAIRS,
    VALIDATION_ROWS,
    Prompts,
    Source,
    context_id,
    different,
    preferences_of,
    response_id,
)
from pipeline.vocabulary import ATTRIBUTES, MESSAGES

ROWS, PREFERENCES = "train.jsonl.gz", "preference/preference.jsonl.gz"
VALIDATION = "validation.jsonl.gz"
FORMS = {
    "helpsteer": "prompt, response and ratings",
    "preference": "prompt, response_1, response_2 and preference_strength",
}
"""What people are told of the forms."""


def fill(source: Source, rows: Path, validation: Path, preferences: Path | None, limit: int | None) -> None:
    """Files in HelpSteer2's form (method E). People's preferences where their file is there, else those that the ratings give."""
    prompts = Prompts(limit)
    parts = [_rated_rows(table, prompts) for table in _read(source, there(rows), "helpsteer")]
    source.rated = pa.concat_tables([RATED_ROWS.empty_table(), *parts])
    held_out: list[Any] = []
    if validation.is_file():
        for table in _read(source, validation, "helpsteer"):
            source.counts[VALIDATION_ROWS] += len(table)
            held_out += [messages_of(p) for p in pc.unique(table["prompt"]).to_pylist()]
    if preferences and preferences.is_file():
        pairs = [PREFERRED_ROWS.empty_table()]
        for table in _read(source, preferences, "preference"):
            val = table.filter(pc.equal(table["split"], "val"))
            source.counts[VALIDATION_PAIRS] += len(val)
            held_out += [messages_of(p) for p in pc.unique(val["prompt"]).to_pylist()]
            train = table.filter(pc.equal(table["split"], "train"))
            pairs.append(_preferred_rows(train, prompts, source.counts))
        source.preferred = different(pa.concat_tables(pairs), source.counts)
    else:
        source.preferred = preferences_of(source.rated, source.rated["helpfulness"], source.counts)
    source.validation = pa.array(held_out, MESSAGES)
    source.read = source.forms.total() + source.quarantine.counts.total()


def _read(source: Source, path: Path, form: str) -> Iterator[pa.Table]:
    """Tables of a file, counted."""
    for table in ratings.read(path, form, source.quarantine):
        source.forms[FORMS[form]] += len(table)
        yield table


def _contexts(prompts: pa.ChunkedArray) -> tuple[list[str], pa.Array]:
    """Id and turns of the prompts of a table, in HelpSteer2's form."""
    texts = prompts.to_pylist()
    known = {text: messages_of(text) for text in dict.fromkeys(texts)}
    ids = {text: context_id(messages) for text, messages in known.items()}
    return [ids[text] for text in texts], pa.array([known[text] for text in texts], MESSAGES)


def _rated_rows(table: pa.Table, prompts: Prompts) -> pa.Table:
    ids, messages = _contexts(table["prompt"])
    taken = [prompts.take(prompt_id) for prompt_id in ids]
    positions = [prompts.position(prompt_id) for prompt_id in ids]
    columns: dict[str, Any] = {
        "prompt_id": pa.array(ids, pa.string()),
        "response_id": pa.array([response_id(i, p) for i, p in zip(ids, positions, strict=True)], pa.string()),
        "position": pa.array(positions, pa.int64()),
        "messages": messages,
        "response": table["response"],
    }
    columns |= {a: table[a].cast(pa.float64()) for a in ATTRIBUTES}
    return pa.table(columns, schema=RATED_ROWS).filter(pa.array(taken, pa.bool_()))


def _preferred_rows(table: pa.Table, prompts: Prompts, counts: Counter[str]) -> pa.Table:
    """Rows of HelpSteer2's preference file as pairs: a negative strength says that response 1 is better, 0 that neither is (method E)."""
    ids, messages = _contexts(table["prompt"])
    taken = np.array([prompts.take(prompt_id) for prompt_id in ids], dtype=bool)
    strength = np.asarray(table["preference_strength"], dtype=np.int64)
    counts[TIES] += int((taken & (strength == 0)).sum())
    first = pa.array(strength < 0)
    columns = {
        "prompt_id": pa.array(ids, pa.string()),
        "messages": messages,
        "chosen": pc.if_else(first, table["response_1"], table["response_2"]),
        "rejected": pc.if_else(first, table["response_2"], table["response_1"]),
        "strength": pa.array(np.abs(strength), pa.float64()),
    }
    return pa.table(columns, schema=PREFERRED_ROWS).filter(pa.array(taken & (strength != 0)))
