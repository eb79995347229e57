"""Training data as tables, before prompts are dropped and development prompts held out; and what is counted on the way."""

import hashlib
import itertools
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.forms.ratings import Quarantine
from pipeline.reward_model.schema import PREFERRED, RATED
from pipeline.vocabulary import MESSAGES

LabelKind = Literal["rounded", "mean"]

RATED_ROWS = pa.schema([f for f in RATED if f.name != "split"])
PREFERRED_ROWS = pa.schema([f for f in PREFERRED if f.name != "split"])
"""RATED and PREFERRED before the development prompts are held out."""

TIES, SAME_TEXT, UNRATED = "ties dropped", "pairs of equal texts dropped", "pairs without helpfulness dropped"
VALIDATION_ROWS, VALIDATION_PAIRS = "validation rows left out", "validation pairs left out"
PARTED = "pairs whose turns after the answers were left out"
BEYOND_LIMIT = "rows of prompts beyond the limit left out"
DELETED, OTHER_LANGUAGE = "deleted messages left out", "messages in another language left out"
REFUSED, SPAM, SYNTHETIC = (
    "messages that reviewers refused left out",
    "messages labelled as spam left out",
    "synthetic messages left out",
)
REPLIES = "replies to messages left out"
"""What is counted."""

BATCH = 4096


@dataclass
class Source:
    """Training data before the split.

    rated: schema RATED_ROWS, by prompt in the order of the source; preferred: schema PREFERRED_ROWS; validation: the prompts (lists of role
    and content) of the source's own validation split; quarantine: schema QUARANTINE; counts: what was left out.
    read: records of the files; forms: those that were of a form, by it; mapped: records that have a column under another name, by the two;
    rounded: ratings with fractions that were rounded, by attribute.
    """

    name: str
    licence: str
    rated: pa.Table = field(default_factory=RATED_ROWS.empty_table)
    preferred: pa.Table = field(default_factory=PREFERRED_ROWS.empty_table)
    validation: pa.Array = field(default_factory=lambda: pa.array([], MESSAGES))
    quarantine: Quarantine = field(default_factory=Quarantine)
    counts: Counter[str] = field(default_factory=Counter)
    read: int = 0
    forms: Counter[str] = field(default_factory=Counter)
    mapped: Counter[str] = field(default_factory=Counter)
    rounded: Counter[str] = field(default_factory=Counter)


def preferences_of(rows: pa.Table, helpfulness: pa.ChunkedArray, counts: Counter[str]) -> pa.Table:
    """Every pair of a prompt's responses with the more helpful one chosen, in the schema PREFERRED_ROWS; strength: the difference.

    rows: schema RATED_ROWS; helpfulness: of each. Pairs without a rating, of equal helpfulness, or of equal texts are counted and dropped.
    """
    prompt, level = _numbered(rows["prompt_id"]), np.asarray(helpfulness.to_numpy(), dtype=np.float64)
    order = np.argsort(prompt, kind="stable")
    prompt, level = prompt[order], level[order]
    firsts, seconds = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for step in range(1, int(np.bincount(prompt).max(initial=1))):
        first = np.flatnonzero(prompt[step:] == prompt[:-step])
        firsts.append(first)
        seconds.append(first + step)
    first, second = np.concatenate(firsts), np.concatenate(seconds)
    by_prompt = np.lexsort((second, first))
    first, second = first[by_prompt], second[by_prompt]
    gap = level[first] - level[second]
    rated, decided = np.isfinite(gap), np.isfinite(gap) & (gap != 0)
    counts[UNRATED] += int((~rated).sum())
    counts[TIES] += int((rated & ~decided).sum())
    better, worse = np.where(gap > 0, first, second)[decided], np.where(gap > 0, second, first)[decided]
    chosen, rejected = (rows.take(pa.array(order[side])) for side in (better, worse))
    columns = {
        "prompt_id": chosen["prompt_id"],
        "messages": chosen["messages"],
        "chosen": chosen["response"],
        "rejected": rejected["response"],
        "strength": pa.array(np.abs(gap[decided]), pa.float64()),
    }
    return different(pa.table(columns, schema=PREFERRED_ROWS), counts)


def _numbered(ids: pa.ChunkedArray) -> npt.NDArray[np.int64]:
    """Prompts as numbers, in the order in which they first come."""
    return np.asarray(pc.index_in(ids, pc.unique(ids)), dtype=np.int64)


def different(pairs: pa.Table, counts: Counter[str]) -> pa.Table:
    """Pairs without those of equal texts, which are counted."""
    kept = pairs.filter(pc.not_equal(pairs["chosen"], pairs["rejected"]))
    counts[SAME_TEXT] += len(pairs) - len(kept)
    return kept


def context_id(messages: Iterable[Mapping[str, str]]) -> str:
    """Id of a prompt in published data: sha256 of its turns, roles and texts as they are. Rows and pairs of a prompt have the same one."""
    turns = [[turn["role"], turn["content"]] for turn in messages]
    return hashlib.sha256(json.dumps(turns, ensure_ascii=False).encode()).hexdigest()


class Prompts:
    """The first so many prompts of a source: which are taken, and how many responses each has had so far."""

    def __init__(self, limit: int | None) -> None:
        self._limit = limit
        self._responses: Counter[str] = Counter()
        self._known: dict[str, None] = {}

    def take(self, prompt_id: str) -> bool:
        """Whether a prompt is among those that are taken."""
        if prompt_id in self._known:
            return True
        if self._limit is not None and len(self._known) >= self._limit:
            return False
        self._known[prompt_id] = None
        return True

    def position(self, prompt_id: str) -> int:
        """Number, from 1, of a prompt's next response."""
        self._responses[prompt_id] += 1
        return self._responses[prompt_id]


def response_id(prompt_id: str, position: int) -> str:
    """Id of a prompt's response in published data."""
    return f"{prompt_id[:24]}-{position}"


def tables_of(rows: Iterator[dict[str, Any]], schema: pa.Schema) -> pa.Table:
    """Rows as a table, made some thousands at a time. What the schema doesn't have is left out."""
    parts = [schema.empty_table()]
    while some := list(itertools.islice(rows, BATCH)):
        parts.append(pa.Table.from_pylist(some, schema=schema))
    return pa.concat_tables(parts)
