"""nvidia/HelpSteer2's published ratings: rows of `disagreements` as tasks, as arrays of ratings, as annotations with their texts.

The file has no ids: two consecutive rows share a prompt and are one task. It has no annotators: the i-th ratings of a response are one
person's, but no number says who. It holds what was collected, before anything is removed.
"""

import hashlib
import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.annotations.consensus import (
    LEVELS,
    MISSING,
    Levels,
    OutlierRule,
    Totals,
    agreed,
    label_columns,
    without_outliers,
)
from pipeline.annotations.schema import WANTED
from pipeline.forms import ratings as formats
from pipeline.forms.helpsteer import DISAGREEMENTS, HELPSTEER, RECORDED, messages_of
from pipeline.forms.ratings import Quarantine
from pipeline.forms.rows import ANNOTATIONS
from pipeline.hub import HubError, fetch
from pipeline.records import FileError
from pipeline.responses.schema import RESPONSE_PAIRS
from pipeline.vocabulary import ATTRIBUTES

SOURCE = "helpsteer2"
FILE = "disagreements/disagreements.jsonl.gz"


@dataclass(frozen=True)
class Recorded:
    """Recorded responses (schema RESPONSE_PAIRS), their ratings (ANNOTATIONS), what was left out, rows set aside, and how many tasks there were."""

    pairs: pa.Table
    annotations: pa.Table
    left_out: pa.Table
    quarantine: pa.Table
    tasks: int


def load(hub: str, revision: str | None, folder: Path | None, licence: str, limit: int | None) -> Recorded:
    """The first `limit` tasks of the published ratings: of FILE in a folder, or of a data set on the hub.

    A rating without helpfulness is set aside. Raises FileError where the file can't be had.
    """
    path = folder / FILE if folder else _download(hub, revision)
    if not path.is_file():
        raise FileError(f"{path}: there is no such file; desk helpsteer2 reads {FILE} in its folder")
    aside, parts, numbers, tasks = Quarantine(), [DISAGREEMENTS.empty_table()], [np.zeros(0, np.int64)], 0
    for table, number in tasks_in(formats.read(path, "disagreements", aside)):
        use = number < (limit or np.inf)
        parts.append(table.filter(pa.array(use)))
        numbers.append(number[use])
        tasks = int(number[-1]) + 1
        if limit and tasks >= limit:
            tasks = limit
            break
    pairs, annotations, left_out = recorded(pa.concat_tables(parts), np.concatenate(numbers), licence)
    rated = pc.is_valid(annotations["helpfulness"])
    for row in annotations.filter(pc.invert(rated)).to_pylist():
        aside.add(path.name, None, "helpfulness", "helpfulness is missing", {"response_id": row["response_id"]})
    return Recorded(pairs, annotations.filter(rated), left_out, aside.table(), tasks)


def _download(hub: str, revision: str | None) -> Path:
    try:
        return fetch(hub, revision, [FILE], "dataset") / FILE
    except HubError as error:
        raise FileError(f"{error}. Without network, give desk helpsteer2 a `folder` that has {FILE}") from error


def tasks_in(tables: Iterable[pa.Table]) -> Iterator[tuple[pa.Table, npt.NDArray[np.int64]]]:
    """Rows in whole tasks: a table, and the number of each row's task in the stream (from 0).

    Of consecutive rows with one prompt each two are a task; the last of an odd number is a task with one response.
    """
    pending, given = None, 0
    for table in itertools.chain(tables, [None]):
        rows = [t for t in (pending, table) if t is not None]
        if not rows:
            return
        whole = pa.concat_tables(rows)
        number = _tasks(whole["prompt"])
        end = len(whole)
        if table is not None and len(whole) and int((number == number[-1]).sum()) == 1:
            end -= 1  # its second response may come
        pending = whole.slice(end)
        if end:
            yield whole.slice(0, end), number[:end] + given
            given += int(number[end - 1]) + 1


def _tasks(prompts: pa.ChunkedArray) -> npt.NDArray[np.int64]:
    if not len(prompts):
        return np.zeros(0, dtype=np.int64)
    new = np.ones(len(prompts), dtype=bool)
    new[1:] = np.asarray(pc.not_equal(prompts.slice(1), prompts.slice(0, len(prompts) - 1)))
    begins = np.flatnonzero(new)
    place = np.arange(len(prompts)) - np.repeat(begins, np.diff(begins, append=len(prompts)))
    numbers: npt.NDArray[np.int64] = np.cumsum(place % 2 == 0) - 1
    return numbers


def levels_of(table: pa.Table) -> Levels:
    """The ratings of `disagreements` rows: (rows, places, attributes), MISSING where a list is shorter or has a null."""
    lists = [table[a].combine_chunks() for a in ATTRIBUTES]
    lengths = [np.asarray(pc.fill_null(pc.list_value_length(part), 0), dtype=np.int64) for part in lists]
    levels = np.full(
        (len(table), max((int(n.max(initial=0)) for n in lengths), default=0), len(lists)), MISSING, dtype=np.int8
    )
    for attribute, (part, n) in enumerate(zip(lists, lengths, strict=True)):
        row = np.repeat(np.arange(len(table)), n)
        place = np.arange(len(row)) - np.repeat(n.cumsum() - n, n)
        levels[row, place, attribute] = np.asarray(pc.fill_null(part.flatten().cast(pa.int8()), MISSING))
    if (levels >= LEVELS).any() or (levels < MISSING).any():
        raise ValueError(f"ratings must be whole numbers from 0 to {LEVELS - 1}")
    return levels


def ratings_of_stream(tables: Iterable[pa.Table]) -> tuple[Levels, npt.NDArray[np.int64]]:
    """All ratings of a stream of `disagreements` rows (responses, places, attributes), and each response's task; 5 bytes a rating."""
    parts = [(levels_of(table), number) for table, number in tasks_in(tables)]
    return stacked([levels for levels, _ in parts]), np.concatenate([np.zeros(0, np.int64), *(n for _, n in parts)])


def stacked(parts: list[Levels]) -> Levels:
    """Arrays of ratings under one another, with as many places as the widest has."""
    places = max((part.shape[1] for part in parts), default=0)
    whole = np.full((sum(map(len, parts)), places, len(ATTRIBUTES)), MISSING, dtype=np.int8)
    start = 0
    for part in parts:
        whole[start : start + len(part), : part.shape[1]] = part
        start += len(part)
    return whole


def helpsteer_rows(
    tables: Iterable[pa.Table], totals: Totals, keep: int = 3, rule: OutlierRule = "per_attribute", max_spread: int = 2
) -> Iterator[pa.Table]:
    """HelpSteer2's own preprocessing: `disagreements` rows in, rows of its train and validation files out (schema HELPSTEER), in order."""
    for table, number in tasks_in(tables):
        levels = levels_of(table)
        chosen = without_outliers(levels, keep, rule)
        task = number - number[0]
        good = agreed(chosen, task, max_spread)
        totals.add(levels, chosen, task, good)
        labels = label_columns(chosen[good])
        part = table.filter(pa.array(good))
        yield pa.table(
            {"prompt": part["prompt"], "response": part["response"]}
            | {a: labels[a].cast(pa.int64()) for a in ATTRIBUTES},
            schema=HELPSTEER,
        )


class RecordedTasks(NamedTuple):
    """Recorded responses (schema RESPONSE_PAIRS), their ratings (schema ANNOTATIONS), and what was left out."""

    pairs: pa.Table
    annotations: pa.Table
    left_out: pa.Table


def recorded(table: pa.Table, number: npt.NDArray[np.int64], licence: str) -> RecordedTasks:
    """Whole tasks (`tasks_in`) as rows of the pipeline's tables.

    Left out, with prompt_id and reason, are tasks without two responses, and tasks that stood earlier in the table, word for word. Ids are
    hashes of the texts. An annotator's id is of one response alone, so that nobody seems to have rated twice. What the file doesn't say
    is null: generator `recorded`, no model, no finish reason.
    """
    prompts, responses = table["prompt"].to_pylist(), table["response"].to_pylist()
    rows: dict[int, list[int]] = {}
    for row, task in enumerate(number.tolist()):
        rows.setdefault(task, []).append(row)
    seen, left_out, good = set[str](), list[dict[str, str]](), list[tuple[str, list[int]]]()
    for both in rows.values():
        prompt = prompts[both[0]]
        identity = hashlib.sha256("\0".join([prompt, *(responses[r] for r in both)]).encode()).hexdigest()
        reason = (
            "the task has only one response"
            if len(both) < 2
            else "the same task stands earlier in the file"
            if identity in seen
            else None
        )
        if reason:
            left_out.append({"prompt_id": identity, "reason": reason})
        else:
            seen.add(identity)
            good.append((identity, both))
    order = [r for _, both in good for r in both]
    ids = [f"{identity[:24]}-{position}" for identity, _ in good for position in (1, 2)]
    of_prompt = [identity for identity, _ in good for _ in (1, 2)]
    n = len(order)
    columns = {
        "prompt_id": of_prompt,
        "position": [1, 2] * (n // 2),
        "response_id": ids,
        "generator": [RECORDED] * n,
        "model": [None] * n,
        "licence": [licence] * n,
        "messages": [messages_of(prompts[r]) for r in order],
        "response": [responses[r] for r in order],
    }
    pairs = pa.table(
        {f.name: pa.array(columns.get(f.name, [None] * n), f.type) for f in RESPONSE_PAIRS}, schema=RESPONSE_PAIRS
    )
    levels = levels_of(table)[order]
    which, place = np.nonzero((levels != MISSING).any(axis=2))
    values = levels[which, place]
    ratings = {
        "prompt_id": [of_prompt[r] for r in which],
        "response_id": [ids[r] for r in which],
        "annotator_id": [f"{ids[r]}-{p + 1}" for r, p in zip(which, place, strict=True)],
        "round": [1] * len(which),
        "desk": [SOURCE] * len(which),
        "simulated": [False] * len(which),
    } | {a: pa.array(values[:, k], pa.int8(), mask=values[:, k] == MISSING) for k, a in enumerate(ATTRIBUTES)}
    annotations = pa.table(
        {f.name: pa.array(ratings.get(f.name, [None] * len(which)), f.type) for f in ANNOTATIONS}, schema=ANNOTATIONS
    )
    schema = pa.schema([("prompt_id", pa.string()), ("generator", pa.string()), ("reason", pa.string())])
    return RecordedTasks(pairs, annotations, pa.Table.from_pylist(left_out, schema=schema))


def wanted(tasks: pa.Table, annotations: pa.Table) -> pa.Table:
    """As many ratings as are recorded of each response of the tasks, in the schema WANTED; a response without any is not asked for."""
    counted = annotations.group_by(["prompt_id", "response_id"], use_threads=False).aggregate([([], "count_all")])
    mine = counted.filter(pc.is_in(counted["prompt_id"], tasks["prompt_id"].combine_chunks()))
    none = pa.array([[]] * len(mine), WANTED.field("seen_by").type)
    columns = {"ratings": mine["count_all"].cast(pa.int8()), "seen_by": none, "spread": pa.nulls(len(mine), pa.int8())}
    return pa.table({n: mine[n] for n in ("prompt_id", "response_id")} | columns, schema=WANTED)
