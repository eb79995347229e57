"""The store of finished requests, and the loop that asks for what is missing: no finished answer is asked for twice."""

import errno
import json
import threading
import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
from upath import UPath

from pipeline.engines.alike import ALIKE, Alike, reason_of
from pipeline.engines.content import THOUGHT, settled
from pipeline.engines.requests import FAILED, REFUSED, Answer, Engine, Request
from pipeline.engines.schema import ANSWERS, FAILURES
from pipeline.parts import Parts
from pipeline.records import storable
from pipeline.store import LOCAL, local_path
from pipeline.worker import Figures, Log, Progress


class FinishedRequests:
    """An append-only set of finished answers, and a record of what went wrong."""

    def __init__(self, folder: UPath) -> None:
        self.folder = folder
        self._answers = Parts(folder, ANSWERS, "request_key", renewed=_renewed)
        self._failures = Parts(folder, FAILURES, "request_key", "failures")

    def append(self, answers: Sequence[Answer]) -> None:
        """Add answers as one part. Raises OSError where it can't be written: then none of them counts as finished."""
        rows = [{**vars(answer), "text": storable(answer.text)} for answer in answers]
        self._answers.append(pa.Table.from_pylist(rows, schema=ANSWERS))

    def journal(self) -> "Journal":
        """A new journal: what is in it and in no part yet is not lost when its process is killed."""
        return Journal(self.folder)

    def recover(self) -> int:
        """Make a part of what journals of dead processes hold, and remove them; how many answers that were. A line that was cut off is dropped."""
        answers, journals = list[Answer](), sorted(self.folder.glob("journal-*.jsonl"), key=str)
        for path in journals:
            for line in path.read_bytes().split(b"\n")[:-1]:
                with suppress(
                    ValueError, TypeError
                ):  # half a line, before one that was written after the disk was full
                    answers.append(settled(Answer(**json.loads(line))))
        known = set(self.keys().to_pylist())
        lost = list({a.request_key: a for a in answers if a.text and a.request_key not in known}.values())
        if lost:
            self.append(lost)
        for path in journals:
            path.unlink()
        return len(lost)

    def keys(self) -> pa.Array:
        """Keys of all finished answers."""
        return self._answers.keys()

    def read(self) -> pa.Table:
        """All finished answers, one a key."""
        return self._answers.read()

    def record_failures(self, failures: Sequence[Answer]) -> None:
        """Keep why requests were not answered: for people, never as answers."""
        now = datetime.now(UTC)
        rows = [
            {
                "request_key": f.request_key,
                "reason": f.finish_reason,
                "detail": f.detail and storable(f.detail),
                "at": now,
            }
            for f in failures
        ]
        self._failures.append(pa.Table.from_pylist(rows, schema=FAILURES))

    def failures(self) -> pa.Table:
        """What went wrong so far, in the schema FAILURES, oldest first; also of requests that were answered later."""
        return self._failures.rows().sort_by("at")

    def compact(self) -> None:
        """Put many small parts of answers into one."""
        self._answers.compact()


def _renewed(part: pa.Table) -> pa.Table:
    """A part as it is read: an older one has no thoughts. What has no text, or has its thought in it, is no answer, and is asked again."""
    if "reasoning" not in part.column_names:
        part = part.append_column("reasoning", pa.nulls(len(part), pa.string()))
    return part.filter((pc.field("text") != "") & ~pc.match_substring_regex(pc.field("text"), THOUGHT))


class Journal:
    """Answers as lines of JSON, each handed to the operating system at once. On a store that isn't a local disk it keeps nothing."""

    def __init__(self, folder: UPath) -> None:
        self._folder, self._path, self._file = folder, Path(), None
        if folder.protocol in LOCAL:
            self._path = local_path(folder) / f"journal-{uuid.uuid4().hex}.jsonl"
            self._file = self._path.open("ab", buffering=0)

    def add(self, answer: Answer) -> None:
        """Write an answer down. Raises OSError where the disk doesn't take it whole."""
        if self._file:
            line = json.dumps(vars(answer)).encode() + b"\n"
            if self._file.write(line) != len(line):
                raise OSError(errno.ENOSPC, "half an answer was written", str(self._path))

    def close(self) -> None:
        """Remove it: its answers stand in a part."""
        if self._file:
            self._file.close()
            self._path.unlink(missing_ok=True)


def outcomes(keys: Sequence[str], finished: FinishedRequests, refused: Mapping[str, str | None]) -> pa.Table:
    """What became of every request, in order, in the schema ANSWERS: its finished answer, or REFUSED with the reason."""
    reasons = [Answer(key, "", REFUSED, reason, 0, 0) for key, reason in refused.items()]
    known = pa.concat_tables([pa.Table.from_pylist([vars(r) for r in reasons], schema=ANSWERS), finished.read()])
    known = known.combine_chunks()  # `take` would do so itself, beside the chunks: a further copy of all texts
    found = pc.index_in(pa.array(keys, pa.string()), known["request_key"].combine_chunks())
    if found.null_count:
        raise KeyError(f"{found.null_count} of {len(keys)} requests have neither an answer nor a reason")
    return known.take(found)


class _Keeper:
    """Writes answers to the store when there are `every` of them, and every `seconds` where there are any, also while none comes.

    Until then they stand in a journal.
    """

    def __init__(self, finished: FinishedRequests, every: int, seconds: float) -> None:
        self._finished, self._every, self._seconds = finished, every, seconds
        self._pending: list[Answer] = []
        self._journal = finished.journal()
        self._lock, self._stop = threading.Lock(), threading.Event()
        self._error: OSError | None = None
        self._thread = threading.Thread(target=self._now_and_then, daemon=True)

    def __enter__(self) -> "_Keeper":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Write what is left."""
        self._stop.set()
        self._thread.join()
        self._write()
        self._journal.close()

    def keep(self, answer: Answer) -> None:
        """Take an answer. Raises OSError where those before could not be written."""
        if self._error:
            raise self._error
        with self._lock:
            self._journal.add(answer)
            self._pending.append(answer)
            full = len(self._pending) >= self._every
        if full:
            self._write()

    def _now_and_then(self) -> None:
        while not self._stop.wait(self._seconds):
            try:
                self._write()
            except OSError as error:  # told to whoever brings the next answer
                self._error = error

    def _write(self) -> None:
        with self._lock:
            if self._pending:
                following = self._finished.journal()  # first: where there can be none, nothing has been let go
                batch, self._pending = self._pending, []
                journal, self._journal = self._journal, following
                self._finished.append(batch)
                journal.close()


@dataclass
class Tally:
    """What `finish` did: answers that were there and new ones, why others were refused or failed (by key), tokens, seconds of both."""

    reused: int = 0
    answered: int = 0
    refused: dict[str, str | None] = field(default_factory=dict)
    prompt_tokens: int = 0
    output_tokens: int = 0
    seconds: float = 0.0
    start_seconds: float = 0.0

    def figures(self) -> Figures:
        """All but the reasons, which outcomes have."""
        return {name: value for name, value in vars(self).items() if name != "refused"}


def finish(
    requests: Sequence[Request],
    engine: Iterable[Engine],
    finished: FinishedRequests,
    log: Log,
    every: int = 512,
    seconds: float = 5.0,
    give_up: int = 64,
) -> Tally:
    """Answer what is not finished yet, and keep each answer: at once in a journal, after `every` answers or `seconds` as Parquet.

    engine: an iterable of one engine, started when it is first needed. Requests that were refused or failed are recorded with their reason
    and not kept, so that they are tried again; so are answers without a response (see `content.settled`). Raises RuntimeError where `give_up`
    requests in a row fail, where ALIKE conversations after one another are refused for one reason, or where the engine ends early.
    """
    if recovered := finished.recover():
        log(f"Recovered {recovered} answers of a run that was cut off")
    unique = {r.key: r for r in requests}
    known = pc.is_in(pa.array(list(unique), pa.string()), finished.keys()).to_pylist()
    earlier = {f["request_key"]: reason_of(f["detail"]) for f in finished.failures().to_pylist()}
    todo = [request for request, k in zip(unique.values(), known, strict=True) if not k]
    todo.sort(key=lambda request: request.key in earlier)  # what was refused before comes last
    tally = Tally(reused=len(unique) - len(todo))
    if not todo:
        return tally
    begun = time.monotonic()
    running = next(iter(engine))
    tally.start_seconds = round(time.monotonic() - begun, 2)
    log(
        f"The engine was ready after {tally.start_seconds:.0f} s; {len(todo)} requests are to be answered, {tally.reused} were answered before"
    )
    progress, begun = Progress(log, "requests answered", len(todo)), time.monotonic()
    alike, failures, in_a_row = Alike(todo, earlier), list[Answer](), 0
    try:
        with _Keeper(finished, every, seconds) as keeper:
            for count, answer in enumerate(map(settled, running.answer(todo)), start=1):
                if answer.finish_reason in (REFUSED, FAILED):
                    tally.refused[answer.request_key] = answer.detail
                    failures.append(answer)
                    in_a_row += answer.finish_reason == FAILED
                    if in_a_row >= give_up:
                        raise RuntimeError(
                            f"{in_a_row} requests in a row failed, the last one with: {answer.detail}; the answers so far are kept"
                        )
                    if answer.finish_reason == REFUSED and alike.refused(answer) >= ALIKE:
                        raise RuntimeError(
                            f"{ALIKE} conversations after one another were refused for the same reason, so it is not theirs: "
                            f"{answer.detail}; the answers so far are kept"
                        )
                else:
                    in_a_row = 0
                    alike.answered(answer)
                    keeper.keep(answer)
                    tally.answered += 1
                    tally.prompt_tokens += answer.prompt_tokens
                    tally.output_tokens += answer.output_tokens
                # the first to end are the shortest of hundreds that are in work at once: they say nothing of how long the others will take
                left = None if count >= min(len(todo) / 4, 256) else 0.0
                progress.update(
                    count, note=f"{tally.output_tokens / (time.monotonic() - begun):.0f} tokens/s", left=left
                )
    finally:
        if failures:
            finished.record_failures(failures)
    tally.seconds = round(time.monotonic() - begun, 2)
    missing = len(todo) - tally.answered - len(tally.refused)
    if missing:
        raise RuntimeError(
            f"the engine ended with {missing} of {len(todo)} requests unanswered; the other answers are kept"
        )
    finished.compact()
    return tally
