"""Requests with a key, and the store of what is finished: no finished answer is asked for twice."""

import hashlib
import json
import time
import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.parquet as pq
from upath import UPath

from pipeline.responses.schema import ANSWERS
from pipeline.settings import Sampling
from pipeline.store import write_table
from pipeline.worker import Log, Progress

Message = dict[str, str]


@dataclass(frozen=True)
class Request:
    """One conversation to be continued by the assistant. `key` is its identity: see `request_key`."""

    key: str
    messages: Sequence[Message]
    sampling: Sampling
    seed: int


@dataclass(frozen=True)
class Answer:
    """What became of a request. finish_reason: `stop`, `length`, or `refused` with the reason in `detail`."""

    request_key: str
    text: str
    finish_reason: str
    detail: str | None
    prompt_tokens: int
    output_tokens: int


class Engine(Protocol):
    """Something that answers. Answers come as they finish, in any order, one for every request."""

    def answer(self, requests: Sequence[Request]) -> Iterator[Answer]:
        """Answer the requests."""
        ...


def request_key(
    messages: Sequence[Message], model: str, revision: str, template: str, sampling: Sampling, seed: int
) -> str:
    """sha256 over everything that an answer depends on: 64 hex digits."""
    parts: list[Any] = [list(messages), model, revision, template, sampling.model_dump(mode="json"), seed]
    return hashlib.sha256(json.dumps(parts, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


class FinishedRequests:
    """An append-only set of finished answers: a folder of Parquet parts, each whole or absent."""

    def __init__(self, folder: UPath) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def append(self, answers: Sequence[Answer]) -> None:
        """Add answers as one part. Raises OSError where it can't be written: then none of them counts as finished."""
        rows = [vars(answer) for answer in answers]
        write_table(pa.Table.from_pylist(rows, schema=ANSWERS), self.folder / f"part-{uuid.uuid4().hex}.parquet")

    def read(self) -> pa.Table:
        """All finished answers, one a key."""
        tables = [ANSWERS.empty_table()]
        for path in sorted(self.folder.glob("part-*.parquet"), key=str):
            with path.open("rb") as file:
                tables.append(pq.read_table(file, schema=ANSWERS))
        answers = pa.concat_tables(tables)
        rows = pa.array(range(len(answers)), pa.int64())
        first = answers.append_column("row", rows).group_by("request_key").aggregate([("row", "min")])
        return answers.take(first["row_min"])


def finish(
    requests: Sequence[Request],
    engine: Iterable[Engine],
    finished: FinishedRequests,
    log: Log,
    every: int = 32,
    seconds: float = 10.0,
) -> dict[str, Any]:
    """Answer what is not finished yet, and keep each answer within `every` answers or `seconds`.

    engine: an iterable of one engine, started when it is first needed. Refused requests are not kept, so that they are tried again.
    Returns figures: reused, answered, refused (key to reason), output tokens, seconds of generation and of engine start.
    """
    done = set(finished.read()["request_key"].to_pylist())
    todo = list({r.key: r for r in requests if r.key not in done}.values())
    figures: dict[str, Any] = {"reused": len(requests) - len(todo), "answered": 0, "refused": {}, "output_tokens": 0}
    figures |= {"seconds": 0.0, "start_seconds": 0.0}
    if not todo:
        return figures
    begun = time.monotonic()
    running = next(iter(engine))
    figures["start_seconds"] = round(time.monotonic() - begun, 2)
    log(
        f"engine ready after {figures['start_seconds']:.0f} s; {len(todo)} requests to answer, {figures['reused']} already answered"
    )
    progress, begun, kept, pending = (
        Progress(log, "answers", len(todo)),
        time.monotonic(),
        time.monotonic(),
        list[Answer](),
    )
    try:
        for count, answer in enumerate(running.answer(todo), start=1):
            if answer.finish_reason == "refused":
                figures["refused"][answer.request_key] = answer.detail
            else:
                pending.append(answer)
                figures["answered"] += 1
                figures["output_tokens"] += answer.output_tokens
            if len(pending) >= every or (pending and time.monotonic() - kept > seconds):
                batch, pending, kept = pending, [], time.monotonic()
                finished.append(batch)
            progress.update(count, f"{figures['output_tokens'] / (time.monotonic() - begun):.0f} tokens/s")
    finally:
        if pending:
            finished.append(pending)
    figures["seconds"] = round(time.monotonic() - begun, 2)
    missing = len(todo) - figures["answered"] - len(figures["refused"])
    if missing:
        raise RuntimeError(f"the engine ended with {missing} of {len(todo)} requests unanswered; the others are kept")
    return figures
