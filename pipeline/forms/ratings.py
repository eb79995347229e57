"""Files of ratings in the forms that people have them in: read and written as a stream, bad rows set aside with line, field and reason.

| form | a row | files |
|---|---|---|
| `annotations` | one annotator's ratings of one response: the row contract of this project | JSONL, CSV, Parquet |
| `disagreements` | nvidia/HelpSteer2's: a response with lists of 2 to 6 ratings, without annotators | JSONL, CSV, Parquet |
| `helpsteer` | nvidia/HelpSteer2's train and validation rows: a response with five labels | JSONL, CSV, Parquet |
| `preference` | nvidia/HelpSteer2's: two responses and which is better | JSONL, CSV, Parquet |
| `label_studio` | Label Studio's JSON export; read into rows of `annotations` | JSON |
| those of `forms.exports` | exports of annotation tools; read into rows of `annotations` | JSON, JSONL, CSV |

Workbooks (.xlsx, .ods and their like) are read as CSV is. JSONL and CSV may be gzipped. In CSV an empty cell is null, "" in quotes is an empty
text, and lists are JSON. A field that a form doesn't have is left out, and named once.
"""

import gzip
import io
import itertools
import json
import math
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from upath import UPath

from pipeline.forms import cells as cell
from pipeline.forms import exports, label_studio
from pipeline.forms.helpsteer import DISAGREEMENTS, HELPSTEER, PREFERENCE
from pipeline.forms.renamed import renamed
from pipeline.forms.rows import ANNOTATIONS, LABELS, QUARANTINE
from pipeline.records import (
    BOM,
    SHEETS,
    USUAL,
    Bytes,
    Dialect,
    FileError,
    Part,
    Unreadable,
    any_records,
    dialect_of,
    ending_of,
    json_lines,
    line_blocks,
    parquet_parts,
    storable,
    text_parts,
    unstorable,
)
from pipeline.store import replacing
from pipeline.vocabulary import ATTRIBUTES

WRITTEN = (".jsonl", ".jsonl.gz", ".csv", ".csv.gz", ".parquet", ".json", ".json.gz")
ENDINGS = (*WRITTEN, ".jsonl.zst", ".csv.zst", ".json.zst", ".tsv", ".tsv.gz", ".tsv.zst", *SHEETS)
"""Of files that are read."""
SHOWN = 2000
"""Characters of a row that the quarantine keeps."""


class FieldError(ValueError):
    """A row that can't be used: its field, and why."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"{name} {reason}")
        self.name = name


@dataclass(frozen=True)
class Field:
    """What a field's values must be beyond their type. low, high: of whole numbers, also of those in lists; also: one more that may stand."""

    required: bool = True
    low: int | None = None
    high: int | None = None
    also: int | None = None
    among: tuple[str, ...] = ()
    filled: bool = False  # not empty, not blank
    trimmed: bool = False  # an id: without white space around it, and a number's text where it is one
    said: Callable[[Any], Any] | None = None  # what people write, see `forms.cells`


@dataclass(frozen=True)
class Form:
    """A form: its name, its columns, what each must be; `one_of`: fields of which a row has at least one."""

    name: str
    schema: pa.Schema
    fields: Mapping[str, Field]
    one_of: tuple[str, ...] = ()


_ID, _ANY, _LEVEL = Field(filled=True, trimmed=True), Field(required=False), Field(low=0, high=4)
_TEXTS = {"prompt": Field(), "response": Field()}
FORMS = {
    form.name: form
    for form in (
        Form(
            "annotations",
            ANNOTATIONS,
            dict.fromkeys(ANNOTATIONS.names, _ANY)
            | dict.fromkeys(("prompt_id", "response_id", "annotator_id"), _ID)
            | {a: Field(required=False, low=0, high=4) for a in ATTRIBUTES}
            | {"round": Field(required=False, low=1, high=9), "confidence": Field(required=False, low=1, high=3)}
            | {
                "safe": Field(required=False, said=cell.safe_of),
                "flags": Field(required=False, said=cell.flags_of),
                "lead_time_s": Field(required=False, low=0, said=cell.seconds_of),
            },
            one_of=ATTRIBUTES,
        ),
        Form("disagreements", DISAGREEMENTS, _TEXTS | dict.fromkeys(ATTRIBUTES, _LEVEL)),
        Form("helpsteer", HELPSTEER, _TEXTS | dict.fromkeys(ATTRIBUTES, _LEVEL)),
        Form(
            "preference",
            PREFERENCE,
            dict.fromkeys(PREFERENCE.names, _ANY)
            | {name: Field() for name in ("prompt", "response_1", "response_2")}
            | {"split": Field(among=("train", "val")), "preference_strength": Field(low=-3, high=3)}
            | {name: Field(required=False, low=-3, high=3, also=-100) for name in PREFERENCE.names[-2:]},
        ),
        Form("labels", LABELS, dict.fromkeys(LABELS.names, _ANY) | {"prompt_id": _ID, "response_id": _ID}),
    )
}
"""`label_studio` has no row of its own: it is read into `annotations`. `labels` are what a consensus gives."""


@dataclass
class Quarantine:
    """What was not used of a file: counted by reason, and kept, in `rows` or by `sink` where that is given; schema QUARANTINE.

    What is set aside without being at fault (a rating that its annotator has replaced, a skipped task, a model's prediction) is kept in the
    same way, and counted in `left_out`; what is noted of a file as a whole, in `notes`. A sink that refuses faults takes them alone (`faults_alone`).
    """

    sink: Callable[[dict[str, Any]], None] | None = None
    faults_alone: bool = False
    counts: Counter[str] = field(default_factory=Counter)
    left_out: Counter[str] = field(default_factory=Counter)
    notes: Counter[str] = field(default_factory=Counter)
    read: int = 0  # rows of files, those among them that were set aside
    rows: list[dict[str, Any]] = field(default_factory=list)
    ignored: dict[str, None] = field(default_factory=dict)  # fields that the form doesn't have

    def add(self, file: str, line: int | None, name: str | None, reason: str, row: Any, fault: bool = True) -> None:
        """Set a row aside."""
        text = row if isinstance(row, str) or row is None else json.dumps(row, ensure_ascii=False, default=str)
        entry = {"file": file, "line": line, "field": name, "reason": reason}
        entry["row"] = None if text is None else storable(text[:SHOWN])
        about_rows = row is not None or line is not None
        (self.counts if fault else self.left_out if about_rows else self.notes)[reason] += 1
        if fault or not self.faults_alone:
            (self.sink or self.rows.append)(entry)

    def add_read(self, file: str, line: int | None, name: str | None, bad: Unreadable) -> None:
        """Set a row aside as it is read, or note what is to be said of a file."""
        self.read += line is not None or bad.text is not None
        self.add(file, line, name, bad.reason, bad.text, fault=not bad.left_out)

    def table(self) -> pa.Table:
        """The rows in the schema QUARANTINE."""
        return pa.Table.from_pylist(self.rows, schema=QUARANTINE)


@dataclass(frozen=True)
class Habits:
    """How a file differs from a form, as its owner says.

    columns: names of fields of the form, or of `exports.IDS`, and what the file calls them. scale: by attribute, or for `all`, what stands for
    each level in the file, and the level, 0 to 4; without one the levels stand themselves.
    """

    columns: Mapping[str, str] = field(default_factory=dict)
    scale: Mapping[Any, Mapping[str, int]] = field(default_factory=dict)

    @cached_property
    def levels(self) -> dict[str, dict[str, int]]:
        """By attribute, the level of each word or number of its scale."""
        said = {a: self.scale.get(a, self.scale.get("all")) for a in ATTRIBUTES}
        return {a: {_word(word): level for word, level in scale.items()} for a, scale in said.items() if scale}


USUAL_HABITS = Habits()


def _word(said: Any) -> str:
    """A level of a scale as it is compared: in any case, and 1.0 as 1."""
    word = " ".join(str(said).split()).casefold()
    return word.removesuffix(".0") if word.removesuffix(".0").isdecimal() else word


# -------------------------------------------------------------------------------------------------------------------------- reading

READ = ("annotations", label_studio.NAME, *exports.TOOLS)
"""Forms that are read into rows of `annotations`."""


def form_of(path: Path, columns: Mapping[str, str] | None = None) -> str:
    """The form of a file, told by the fields of its first record under the names of `columns`. Raises FileError where it is none that is known."""
    ending_of(path, ENDINGS)
    first = next((r for _, r in any_records(path) if isinstance(r, Mapping)), None)
    if first is not None and isinstance(first.get("data"), Mapping) and "annotations" in first:
        return label_studio.NAME
    if first is None:
        raise FileError(f"{path}: holds no record by which its form could be recognised; name the form with --form")
    if tool := exports.tool_of(first):
        return tool
    first = renamed(first, columns or {})
    fields = {*first, *map(snake, first)}
    if "preference_strength" in fields:
        return "preference"
    if {"prompt", "response"} <= fields:
        value = first.get("helpfulness")
        return "disagreements" if isinstance(value, list) or str(value).startswith("[") else "helpsteer"
    if {"response_id", "helpfulness_votes"} <= fields:
        return "labels"
    if {"response_id", "annotator_id"} <= fields:
        return "annotations"
    raise FileError(
        f"{path}: its form can't be recognised by the fields of its first record ({', '.join(map(str, first))}); name "
        f"it with --form: {', '.join(FORMS)}, {label_studio.NAME}, {', '.join(exports.TOOLS)}; or say with --columns FIELD=COLUMN what "
        "it calls the fields response_id and annotator_id"
    )


Numbers = Callable[[], Sequence[int | None]]
"""Gives the line, row or task of each row of a table; None where it isn't known."""


def read(
    path: Path,
    form: str,
    quarantine: Quarantine,
    seen: Callable[[int], None] = lambda _: None,
    habits: Habits = USUAL_HABITS,
) -> Iterator[pa.Table]:
    """The rows of a file as tables in the form's schema, in order; what can't be used goes to the quarantine.

    seen: called with the bytes of the file that were taken, for progress. Raises FileError where nothing can be read: another ending, no
    whole Parquet file, a field that is missing in a whole CSV or Parquet file; and, after its tables, where the ratings are plainly on
    another scale than 0 to 4.
    """
    wanted = FORMS["annotations"] if form in READ else FORMS[form]
    return (table for table, _ in numbered(path, form, wanted, quarantine, seen, habits))


def numbered(
    path: Path,
    name: str,
    form: Form,
    quarantine: Quarantine,
    seen: Callable[[int], None] = lambda _: None,
    habits: Habits = USUAL_HABITS,
) -> Iterator[tuple[pa.Table, Numbers]]:
    """As `read`, with the number of each row in the file. name: of the file's form, by which it is read; form: what its rows must be."""
    reader = Reader(path, form, quarantine, habits)
    for table, numbers in _tables(reader, name, seen):
        reader.spread.note(table)
        quarantine.read += len(table)
        yield table, numbers
    if said := reader.spread.other_scale:
        raise FileError(
            f"{path}: its ratings are on another scale than 0 to 4: {said}. Say which level each stands for: --scale 1=0 2=1 3=2 4=3 5=4, or "
            "`scale` in a profile"
        )


def _tables(reader: "Reader", name: str, seen: Callable[[int], None]) -> Iterator[tuple[pa.Table, Numbers]]:
    path, quarantine, columns = reader.path, reader.quarantine, reader.habits.columns
    ending = ending_of(path, ENDINGS)
    if name == label_studio.NAME:
        yield from reader.in_blocks(label_studio.records(path, seen))
    elif name in exports.TOOLS:
        yield from reader.named.in_blocks(exports.records(path, name, columns))
    elif ending.startswith(".jsonl") and not _is_list(path):
        with Bytes(path, seen) as stream:
            for first, block in line_blocks(stream):
                if isinstance(block, Unreadable):
                    quarantine.add_read(path.name, first, None, block)
                else:
                    lines = block.count(b"\n") + (not block.endswith(b"\n"))
                    table = _parsed(block, reader, lines)
                    if table is None:
                        yield reader.records(json_lines(first, block))
                    else:
                        yield table, _lines_of(first, block, len(table), lines)
    elif ending.startswith(".json"):
        yield from reader.in_blocks(any_records(path))
    elif ending == ".parquet":
        yield from _checked(parquet_parts(path, seen), reader)
    else:
        if ending not in SHEETS and (dialect := dialect_of(path)) not in (USUAL, Dialect("utf-8", "\t")):
            quarantine.add(path.name, None, None, dialect.said, None, fault=False)
        yield from _checked(text_parts(path, ending, seen), reader)


def _is_list(path: Path) -> bool:
    """Whether a file of JSON is one list of records, whatever its name says."""
    with Bytes(path) as stream:
        start = (stream.read(1 << 16) or b"").removeprefix(BOM).lstrip()
    if not start.startswith(b"["):
        return False
    try:
        line = json.loads(start.partition(b"\n")[0])
    except (ValueError, RecursionError):
        return True  # it goes on in the next line
    return any(isinstance(item, Mapping) for item in line)


@lru_cache(maxsize=4096)
def snake(name: Any) -> str:
    """The name of a column as it is called here: "Response ID", " response-id" and "responseId" are response_id."""
    parted = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", str(name).strip())
    return re.sub(r"[\s_-]+", "_", parted).lower()


def _lines_of(first: int, block: bytes, rows: int, lines: int) -> Numbers:
    """Numbers of a block's lines that aren't blank, `rows` of so many; the block itself is not held on to."""
    if rows == lines:
        return partial(range, first, first + rows)
    return partial(list, [number for number, line in enumerate(block.split(b"\n"), start=first) if line.strip()])


@dataclass(frozen=True)
class Reader:
    """Reads a file's records one by one, where they can't be taken as they are."""

    path: Path
    form: Form
    quarantine: Quarantine
    habits: Habits = USUAL_HABITS
    spread: "_Spread" = field(default_factory=lambda: _Spread())

    @property
    def named(self) -> "Reader":
        """The same reader for records whose fields have the form's names already."""
        return replace(self, habits=replace(self.habits, columns={}))

    def in_blocks(self, rows: Iterator[tuple[int | None, Any]]) -> Iterator[tuple[pa.Table, Numbers]]:
        """Records some thousands at a time, see `records`."""
        while block := list(itertools.islice(rows, 8192)):
            yield self.records(block)

    def records(self, rows: Iterable[tuple[int | None, Any]], cells: bool = False) -> tuple[pa.Table, Numbers]:
        """Records as a table in the form's schema, and their numbers; the others go to the quarantine. cells: values are the text of CSV cells."""
        good, numbers = list[dict[str, Any]](), list[int | None]()
        for number, given in rows:
            record = self._called(given) if isinstance(given, Mapping) else given
            if isinstance(record, Unreadable):
                self.quarantine.add_read(self.path.name, number, None, record)
                continue
            try:
                good.append(_row(self._on_scale(record), self.form, cells, lambda: self._day_first))
                numbers.append(number)
            except FieldError as error:
                self.spread.note_fault(record, error.name)
                self.quarantine.read += 1
                self.quarantine.add(self.path.name, number, error.name or None, str(error).strip(), record)
            if isinstance(record, Mapping):
                self.quarantine.ignored |= dict.fromkeys(str(n) for n in record if n not in self.form.schema.names)
        return pa.Table.from_pylist(good, schema=self.form.schema), lambda: numbers

    def names(self, found: Collection[Any]) -> dict[Any, str]:
        """What columns that aren't called as the form's are taken for, where that is plain: no other column may be meant."""
        wanted, meant = set(self.form.schema.names), Counter(map(snake, found))
        strange = [name for name in found if name not in wanted]
        return {n: snake(n) for n in strange if snake(n) in wanted and meant[snake(n)] == 1}

    def _called(self, record: Mapping[Any, Any]) -> Mapping[Any, Any]:
        """A record by the form's names."""
        if self.habits.columns:
            record = renamed(record, self.habits.columns)
        if self._known.issuperset(record):
            return record
        names = self.names(record)
        return {names.get(name, name): value for name, value in record.items()}

    def _on_scale(self, record: Any) -> Any:
        """A record with its ratings as levels. Raises FieldError for one that is not of the scale that is stated."""
        if not self.habits.scale or not isinstance(record, Mapping):
            return record
        levels = dict[str, int]()
        for attribute, scale in self.habits.levels.items():
            said = record.get(attribute)
            if said in (None, ""):
                continue
            if _word(said) not in scale:
                raise FieldError(
                    attribute, f"is {_word(said)[:40]!r}, none of the scale that is stated: {', '.join(scale)}"
                )
            levels[attribute] = scale[_word(said)]
        return {**record, **levels}

    @cached_property
    def _known(self) -> frozenset[str]:
        return frozenset(self.form.schema.names)

    @cached_property
    def _day_first(self) -> bool | None:
        """Whether days come first in the dates of this file, all of which are looked at once."""
        moments = [f.name for f in self.form.schema if pa.types.is_timestamp(f.type)]
        found = (self._called(record) for _, record in any_records(self.path) if isinstance(record, Mapping))
        return cell.days_come_first(record.get(name) for record in found for name in moments)


OVER, OVER_SHARE, OVER_SHARE_WITHOUT_0 = 3, 0.2, 0.02
"""From so many rows with a rating above 4, and from such a share of all, a file is taken for one on another scale; from less where no rating is 0."""


@dataclass
class _Spread:
    """What ratings a file has: how many rows, in how many one is above 4, the highest, and whether any is 0."""

    rows: int = 0
    over: int = 0
    highest: int = 4
    has_0: bool = False

    def note(self, table: pa.Table) -> None:
        """Take note of rows whose ratings are levels."""
        self.rows += len(table)
        for name in () if self.has_0 else ATTRIBUTES:
            if name in table.column_names and pa.types.is_integer(table[name].type):
                self.has_0 = self.has_0 or pc.min(table[name]).as_py() == 0

    def note_fault(self, record: Any, name: str) -> None:
        """Take note of a row whose field `name` is at fault, where that is a rating."""
        if name not in ATTRIBUTES:
            return
        words = [_word(record.get(a)) for a in ATTRIBUTES]
        numbers = [int(word) for word in words if word.isdecimal() and len(word) <= 3]
        self.rows, self.over = self.rows + 1, self.over + any(n > 4 for n in numbers)
        self.highest, self.has_0 = max([self.highest, *numbers]), self.has_0 or 0 in numbers

    @property
    def other_scale(self) -> str | None:
        """Why the ratings are on another scale than 0 to 4; None where they aren't."""
        share = self.over / max(self.rows, 1)
        if self.over < OVER or share < (OVER_SHARE if self.has_0 else OVER_SHARE_WITHOUT_0):
            return None
        return f"{self.over:,} rows have one above 4, up to {self.highest}" + ("" if self.has_0 else ", and none is 0")


def _checked(parts: Iterable[Part], reader: Reader) -> Iterator[tuple[pa.Table, Numbers]]:
    path, form, quarantine = reader.path, reader.form, reader.quarantine
    for part in parts:
        for line, bad in part.unreadable:
            quarantine.add_read(path.name, line, None, bad)
        if not len(part.table):
            continue
        whole = _by_form(part.table, reader)
        missing = [name for name in form.schema.names if form.fields[name].required and name not in whole.column_names]
        if missing:
            raise FileError(
                f"{path}: has no column {', '.join(missing)}; its columns are {', '.join(part.table.column_names)}"
            )
        quarantine.ignored |= dict.fromkeys(n for n in whole.column_names if n not in form.schema.names)
        table = None if reader.habits.scale else typed(whole, form)
        if table is None:
            rows = zip(part.numbers(), whole.to_pylist(), strict=True)
            yield reader.named.records(rows, cells=not path.name.lower().endswith(".parquet"))
        else:
            yield table, part.numbers


def _by_form(table: pa.Table, reader: Reader) -> pa.Table:
    """A table with its columns under the form's names. Raises FileError where a column that is mapped is not there."""
    names, columns = table.column_names, reader.habits.columns
    lacking = [theirs for theirs in columns.values() if theirs not in names and theirs.partition(".")[0] not in names]
    if lacking:
        raise FileError(
            f"{reader.path}: has no column {', '.join(lacking)}, which `columns` names; its columns are {', '.join(names)}"
        )
    mapped = {theirs: ours for ours, theirs in columns.items()}
    if len(mapped) == len(columns) and mapped.keys() <= set(names):
        kept = [n for n in names if n in mapped or n not in columns]
        table = table.select(kept).rename_columns([mapped.get(n, n) for n in kept])
    else:  # a name that leads into a field, or is taken twice
        table = pa.Table.from_pylist([renamed(row, columns) for row in table.to_pylist()])
    called = reader.names(table.column_names)
    return table.rename_columns([called.get(n, n) for n in table.column_names])


def _parsed(block: bytes, reader: Reader, lines: int) -> pa.Table | None:
    """A block of so many JSON lines in one go, or None where any of it isn't as it should be: then it is read one by one."""
    import pyarrow.json as pa_json

    form, quarantine = reader.form, reader.quarantine
    if reader.habits.columns or reader.habits.scale:
        return None
    expected = pa.schema([f.with_type(pa.string()) if pa.types.is_timestamp(f.type) else f for f in form.schema])
    options = pa_json.ParseOptions(explicit_schema=expected, unexpected_field_behavior="infer")
    try:
        table = pa_json.read_json(io.BytesIO(block), pa_json.ReadOptions(block_size=len(block) + 1), options)
        table.validate(full=True)
    except (pa.ArrowInvalid, UnicodeDecodeError):
        return None
    if len(table) != lines and len(table) != sum(1 for line in block.split(b"\n") if line.strip()):
        return None
    made = typed(table, form)
    if made is not None:
        quarantine.ignored |= dict.fromkeys(n for n in table.column_names if n not in form.schema.names)
    return made


def typed(table: pa.Table, form: Form) -> pa.Table | None:
    """A table in the form's schema, or None where any of its values can't be there; fields that it lacks are null."""
    columns = []
    for wanted in form.schema:
        rule = form.fields[wanted.name]
        if wanted.name not in table.column_names:
            if rule.required:
                return None
            columns.append(pa.chunked_array([pa.nulls(len(table), wanted.type)]))
            continue
        column = (
            _understood(table[wanted.name], wanted.type, rule) if rule.said else _cast(table[wanted.name], wanted.type)
        )
        if column is None or not _fits(column, rule):
            return None
        if rule.trimmed and pc.any(pc.match_substring(column, "+")).as_py():  # a rounded number, it may be
            return None
        columns.append(pc.utf8_trim_whitespace(column) if rule.trimmed else column)
    result = pa.table(columns, schema=form.schema)
    if form.one_of and len(result):
        rated = np.logical_or.reduce([np.asarray(pc.is_valid(result[name])) for name in form.one_of])
        if not rated.all():
            return None
    return result


WORDS = 1000
"""Different texts of a column that are understood once each; where there are more, rows are read one by one."""


def _understood(column: pa.ChunkedArray, wanted: pa.DataType, rule: Field) -> pa.ChunkedArray | None:
    """A column of what people say, as `rule.said` understands it; None where it doesn't, or where that must be done row by row."""
    if not pa.types.is_string(column.type):
        return _cast(column, wanted)
    if len(words := column.unique()) > WORDS or rule.said is None:
        return None
    known = [word for word in words.to_pylist() if word is not None and word.strip().lower() not in cell.NO_VALUE]
    try:
        meant = pa.array([None, *(rule.said(word) for word in known)], wanted)
    except (ValueError, pa.ArrowInvalid, pa.ArrowTypeError):
        return None
    places = pc.add(pc.fill_null(pc.index_in(column, pa.array(known, pa.string())), -1), 1)
    return pa.chunked_array([meant.take(places.combine_chunks())], wanted)


def _cast(column: pa.ChunkedArray, wanted: pa.DataType) -> pa.ChunkedArray | None:
    if column.type == wanted:
        return column
    nested = pa.types.is_nested(wanted)
    text, numbers = (
        pa.types.is_string(column.type),
        pa.types.is_integer(column.type) or pa.types.is_floating(column.type),
    )
    if text and (nested or pa.types.is_boolean(wanted)):
        return None  # cells of CSV: one by one
    if numbers and pa.types.is_timestamp(wanted):
        return None  # seconds or milliseconds: one by one
    if pa.types.is_boolean(column.type) or (pa.types.is_string(wanted) and not pa.types.is_large_string(column.type)):
        return None  # true is no 1, and 7 is no text
    if (cast := _or_none(column, wanted)) is not None or not (text and pa.types.is_timestamp(wanted)):
        return cast
    naive = _or_none(column, pa.timestamp("us"))  # without a time zone: in UTC
    return None if naive is None else pc.assume_timezone(naive, "UTC").cast(wanted)


def _or_none(column: pa.ChunkedArray, wanted: pa.DataType) -> pa.ChunkedArray | None:
    """A column in another type; None where any of its values can't be."""
    try:
        return column.cast(wanted)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        return None


def _fits(column: pa.ChunkedArray, rule: Field) -> bool:
    if rule.required and column.null_count:
        return False
    if rule.among and not pc.all(pc.is_in(column, pa.array(rule.among))).as_py():
        return False
    if (
        rule.filled
        and len(column)
        and not pc.all(pc.greater(pc.utf8_length(pc.utf8_trim_whitespace(column)), 0)).as_py()
    ):
        return False
    if rule.low is None:
        return True
    numbers = column.combine_chunks()
    if pa.types.is_list(column.type):
        if rule.required and len(numbers) and not pc.all(pc.greater(pc.list_value_length(numbers), 0)).as_py():
            return False
        numbers = numbers.flatten()
        if pa.types.is_struct(numbers.type):
            numbers = pc.struct_field(numbers, "strength")
    inside = pc.greater_equal(numbers, rule.low)
    if rule.high is not None:
        inside = pc.and_(inside, pc.less_equal(numbers, rule.high))
    if rule.also is not None:
        inside = pc.or_(inside, pc.equal(numbers, rule.also))
    return pc.all(inside, min_count=0).as_py() is not False


def _row(record: Any, form: Form, cells: bool, day_first: Callable[[], bool | None]) -> dict[str, Any]:
    if not isinstance(record, Mapping):
        raise FieldError("", f"the row is {_kind(record)}, not a record")
    row: dict[str, Any] = {}
    for wanted in form.schema:
        rule, value = form.fields[wanted.name], record.get(wanted.name)
        moment = pa.types.is_timestamp(wanted.type)
        if (rule.said or moment) and isinstance(value, str) and value.strip().lower() in cell.NO_VALUE:
            value = None
        if value is None:
            if rule.required:
                raise FieldError(wanted.name, "is missing")
            row[wanted.name] = None
            continue
        try:
            if rule.said:
                value = rule.said(value)
            elif moment:
                value = cell.moment_of(value, day_first)
            elif rule.trimmed:
                value = cell.identity_of(value)
            elif cells and isinstance(value, str) and not pa.types.is_string(wanted.type):
                value = _of_cell(value)
        except ValueError as error:
            raise FieldError(wanted.name, str(error)) from None
        row[wanted.name] = _value(value, wanted.name, wanted.type, rule)
    if form.one_of and all(row[name] is None for name in form.one_of):
        raise FieldError(form.one_of[0], "and the other ratings are missing")
    return row


def _of_cell(text: str) -> Any:
    """What the text of a CSV cell means; the text itself where it means nothing."""
    try:
        return json.loads(text.lower() if text.lower() in ("true", "false") else text)
    except (ValueError, RecursionError):
        return text


def _value(value: Any, name: str, wanted: pa.DataType, rule: Field) -> Any:
    """A value as its column takes it. Raises FieldError with what is wrong."""
    if pa.types.is_string(wanted):
        if not isinstance(value, str):
            raise FieldError(name, f"is {_kind(value)}, not a text")
        if fault := unstorable(value):
            raise FieldError(name, fault)
        if rule.filled and not value.strip():
            raise FieldError(name, "is blank")
        if rule.among and value not in rule.among:
            raise FieldError(name, f"is none of {', '.join(rule.among)}")
        return value
    if pa.types.is_boolean(wanted):
        if not isinstance(value, bool):
            raise FieldError(name, f"is {_kind(value)}, not true or false")
        return value
    if pa.types.is_integer(wanted):
        return _whole(value, name, rule)
    if pa.types.is_floating(wanted):
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise FieldError(name, f"is {_kind(value)}, not a number")
        return float(value)
    if pa.types.is_timestamp(wanted):
        return value
    if pa.types.is_struct(wanted):
        if not isinstance(value, Mapping):
            raise FieldError(name, f"holds {_kind(value)}, not a record")
        parts = {f.name: value.get(f.name) for f in wanted}
        return {
            f.name: None
            if parts[f.name] is None
            else _value(parts[f.name], name, f.type, rule if f.name == "strength" else _ANY)
            for f in wanted
        }
    if not isinstance(value, list | tuple | np.ndarray):
        raise FieldError(name, f"is {_kind(value)}, not a list")
    if rule.required and not len(value):
        raise FieldError(name, "is an empty list")
    return [None if item is None else _value(item, name, wanted.value_type, rule) for item in value]


def _whole(value: Any, name: str, rule: Field) -> int:
    whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if not whole and not (isinstance(value, float) and value.is_integer()):
        raise FieldError(name, f"is {_kind(value)}, not a whole number{_range(rule)}")
    number = int(value)
    if rule.low is not None and rule.high is not None and number != rule.also and not rule.low <= number <= rule.high:
        raise FieldError(name, f"is not a whole number{_range(rule)}")
    if abs(number) >= 2**63:
        raise FieldError(name, "is too large a number")
    return number


def _range(rule: Field) -> str:
    return "" if rule.low is None else f" from {rule.low} to {rule.high}"


def _kind(value: Any) -> str:
    names = {
        bool: "true or false",
        int: "a number",
        float: "a number with a fraction",
        str: "a text",
        list: "a list",
        dict: "a record",
    }
    return names.get(type(value), f"a {type(value).__name__}")


# -------------------------------------------------------------------------------------------------------------------------- writing


def write(path: Path, form: str, tables: Iterable[pa.Table]) -> int:
    """Write rows of a form to a file by its ending; the number of rows.

    The file appears whole or not at all. The same rows give the same bytes. Raises FileError for an ending that isn't known.
    """
    ending = ending_of(path, WRITTEN)
    if (form == label_studio.NAME) != (ending in (".json", ".json.gz")):
        raise FileError(
            f"{path}: rows of the form {form} can't be written to a {ending} file; only {label_studio.NAME} is "
            f"written to .json and .json.gz, and to nothing else"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    counted = _Counted(tables)
    with replacing(UPath(path)) as part:
        if form == label_studio.NAME:
            with _packed(part, ending) as file:
                label_studio.write(counted, file)
        elif ending == ".parquet":
            with pq.ParquetWriter(part, FORMS[form].schema, compression="zstd") as writer:
                for table in counted:
                    writer.write_table(table.select(FORMS[form].schema.names).cast(FORMS[form].schema))
        else:
            with _packed(part, ending) as file:
                (_write_csv if ending.startswith(".csv") else _write_jsonl)(counted, FORMS[form], file)
    return counted.rows


class _Counted:
    def __init__(self, tables: Iterable[pa.Table]) -> None:
        self.rows, self._tables = 0, tables

    def __iter__(self) -> Iterator[pa.Table]:
        for table in self._tables:
            self.rows += len(table)
            yield table


@contextmanager
def _packed(path: Path, ending: str) -> Iterator[Any]:
    with path.open("wb") as raw:
        if ending.endswith(".gz"):
            with gzip.GzipFile(filename="", fileobj=raw, mode="wb", mtime=0, compresslevel=6) as file:
                yield file
        else:
            yield raw


def _write_jsonl(tables: Iterable[pa.Table], form: Form, file: Any) -> None:
    for table in tables:
        for batch in table.select(form.schema.names).to_batches(max_chunksize=4096):
            rows = batch.to_pylist()
            file.write("".join(json.dumps(r, ensure_ascii=False, default=_iso) + "\n" for r in rows).encode())


def _iso(value: Any) -> str:
    if isinstance(value, datetime):
        return value.isoformat()
    raise TypeError(f"a {type(value).__name__} has no JSON")


def _write_csv(tables: Iterable[pa.Table], form: Form, file: Any) -> None:
    import pyarrow.csv as pa_csv

    header = pa.schema([pa.field(f.name, _cell_type(f.type)) for f in form.schema])
    with pa_csv.CSVWriter(file, header) as writer:
        for table in tables:
            columns = [_cells(table[f.name], f.type) for f in form.schema]
            writer.write_table(pa.table(columns, schema=header))


def _cell_type(wanted: pa.DataType) -> pa.DataType:
    return pa.string() if pa.types.is_nested(wanted) or pa.types.is_timestamp(wanted) else wanted


def _cells(column: pa.ChunkedArray, wanted: pa.DataType) -> Any:
    if not pa.types.is_nested(wanted) and not pa.types.is_timestamp(wanted):
        return column
    write = _iso if pa.types.is_timestamp(wanted) else lambda value: json.dumps(value, ensure_ascii=False)
    return pa.array([None if value is None else write(value) for value in column.to_pylist()], pa.string())
