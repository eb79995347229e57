"""Files of records, read as a stream: JSON lines, CSV and Parquet, the first two packed (gzip, Zstandard) or not; and spreadsheets.

What can't be read is told with its place, and the rest goes on. Memory stays flat: a file is read in pieces, and a line of more than
LONGEST bytes is no record. CSV is read as spreadsheets write it, see `dialect_of`.
"""

import codecs
import csv
import io
import json
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, time, timedelta
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

PIECE = 1 << 22
LONGEST = 1 << 26
SHEETS = (".xlsx", ".xlsm", ".xlsb", ".xls", ".ods")
"""Of workbooks, as Excel and LibreOffice write them."""
ENDINGS = (
    ".jsonl",
    ".jsonl.gz",
    ".jsonl.zst",
    ".csv",
    ".csv.gz",
    ".csv.zst",
    ".tsv",
    ".tsv.gz",
    ".tsv.zst",
    ".parquet",
    *SHEETS,
)
BOM = b"\xef\xbb\xbf"
"""The mark with which some programs begin UTF-8."""


class FileError(ValueError):
    """A file that can't be used at all; the message names it and says why."""


@dataclass(frozen=True)
class Unreadable:
    """A place that gives no record: the reason, the text as far as it is known, and whether the file breaks off here.

    left_out: nothing is wrong with it; it is no record of the kind that is wanted.
    """

    reason: str
    text: str | None = None
    cut: bool = False
    left_out: bool = False


def storable(text: str) -> str:
    """Text that UTF-8 can hold: half of a surrogate pair, which JSON can carry, becomes U+FFFD."""
    return text if text.isascii() else text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def unstorable(text: str) -> str | None:
    """What is wrong with a text that UTF-8 can't hold; None where it can."""
    return None if text == storable(text) else "holds half of a character (a lone surrogate)"


def ending_of(path: Path, among: tuple[str, ...] = ENDINGS) -> str:
    """The ending of a file's name that says how it is read. Raises FileError for any other."""
    found = next((e for e in sorted(among, key=len, reverse=True) if path.name.lower().endswith(e)), None)
    if found is None:
        raise FileError(f"{path}: its name must end in one of {', '.join(among)}")
    return found


class Bytes(io.RawIOBase):
    """A file's bytes, unpacked where its name ends in .gz or .zst. What comes before a break is given; `cut` then says what broke."""

    def __init__(self, path: Path, seen: Callable[[int], None] = lambda _: None) -> None:
        """seen: called with the number of bytes of the file that a piece took."""
        self.cut: str | None = None
        self._file = path.open("rb")
        self._seen = seen
        unpack = {".gz": self._unpacked, ".zst": self._from_zstandard}
        pieces = unpack.get(path.suffix.lower(), self._pieces)()
        self._left, self._rest = memoryview(b""), pieces

    def readable(self) -> bool:
        """Whether the stream can be read: always."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer; 0 at the end."""
        while not self._left:
            piece = next(self._rest, None)
            if piece is None:
                return 0
            self._left = memoryview(piece)
        n = min(len(buffer), len(self._left))
        buffer[:n], self._left = self._left[:n], self._left[n:]
        return n

    def close(self) -> None:
        """Close the file, and let go of what was read of it."""
        self._file.close()
        self._left, self._rest = memoryview(b""), iter(())
        super().close()

    def _pieces(self) -> Iterator[bytes]:
        while piece := self._file.read(PIECE):
            self._seen(len(piece))
            yield piece

    def _unpacked(self) -> Iterator[bytes]:
        member, empty = zlib.decompressobj(31), True
        try:
            for piece in self._pieces():
                packed = piece
                while packed:
                    if member.eof:  # further members follow, or the zeros of a tape's block
                        packed = packed.lstrip(b"\0")
                        if not packed:
                            break
                        member = zlib.decompressobj(31)
                    before = member.copy()
                    try:
                        unpacked = member.decompress(packed, PIECE)
                    except zlib.error:
                        yield from _up_to_the_break(before, packed)
                        raise
                    if unpacked:
                        yield unpacked
                    packed, empty = member.unconsumed_tail or member.unused_data, False
            if not member.eof and not empty:
                self.cut = "the compressed data end too early"
        except zlib.error as error:
            self.cut = f"the compressed data are broken: {error}"

    def _from_zstandard(self) -> Iterator[bytes]:
        size, given, told = PIECE, 0, 0
        while size:  # after a break once more up to there, then by ever smaller steps towards it
            with pa.OSFile(self._file.name) as packed, pa.CompressedInputStream(packed, "zstd") as stream:
                try:
                    left = given
                    while left:
                        left -= len(stream.read(min(left, PIECE)))
                    while piece := stream.read(size):
                        given += len(piece)
                        at = packed.tell()
                        self._seen(max(at - told, 0))
                        told = max(at, told)
                        yield piece
                    return
                except OSError as error:
                    self.cut = f"the compressed data are broken or end too early: {error}"
                    size //= 64


def _up_to_the_break(member: Any, packed: bytes) -> Iterator[bytes]:
    """What can be unpacked before an error, by ever smaller steps towards it."""
    size = PIECE
    while size:
        before = member.copy()
        try:
            unpacked = member.decompress(packed, size)
        except zlib.error:
            member, size = before, (size // 16 or 1) if size > 1 else 0
        else:
            yield unpacked
            packed = member.unconsumed_tail


def line_blocks(stream: Bytes) -> Iterator[tuple[int, bytes | Unreadable]]:
    """Whole lines of a stream, a few MB at a time, with the number of the first (from 1). The last line may lack its end."""
    number, rest, skipping = 1, b"", False
    while piece := stream.read(PIECE):
        if number == 1 and not rest:
            piece = piece.removeprefix(BOM)
        if skipping:
            _, newline, piece = piece.partition(b"\n")
            if not newline:
                continue
            skipping, number = False, number + 1
        head, newline, tail = piece.rpartition(b"\n")
        if not newline:
            rest += piece
            if len(rest) > LONGEST:
                yield number, Unreadable(f"the line is longer than {LONGEST >> 20} MiB", _shown(rest[:200]))
                rest, skipping = b"", True
            continue
        block = rest + head + newline
        yield number, block
        number, rest = number + block.count(b"\n"), tail
    if rest and (not stream.cut or rest.endswith(b"}")):
        yield number, rest
        number, rest = number + 1, b""
    if stream.cut:
        yield number, Unreadable(f"the file breaks off: {stream.cut}", _shown(rest[:200]) or None, cut=True)


def json_lines(first: int, block: bytes) -> Iterator[tuple[int, Any]]:
    """Line number and content of each line of a block that isn't blank; an `Unreadable` for one that is no JSON."""
    lines = block.split(b"\n")
    for number, line in enumerate(lines, start=first):
        if line.strip():
            try:
                yield number, json.loads(line.decode(), object_pairs_hook=_once, parse_constant=_no_constant)
            except (ValueError, RecursionError) as error:
                last = number == first + len(lines) - 1  # without a line end: cut off, or broken
                reason = "the file breaks off in the middle of this line" if last else f"the line is not JSON: {error}"
                yield number, Unreadable(reason, _shown(line[:2000]), cut=last)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    record = dict(pairs)
    if len(record) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"field {next(n for n in names if names.count(n) > 1)} appears twice")
    return record


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _shown(text: bytes) -> str:
    return text.decode(errors="replace")


@dataclass(frozen=True)
class Part:
    """Some rows of a table file: the rows, a function that gives the line (CSV) or row (Parquet) of each, and what is no row."""

    table: pa.Table
    numbers: Callable[[], Sequence[int | None]]
    unreadable: Sequence[tuple[int | None, Unreadable]] = ()


class Dialect(NamedTuple):
    """How a CSV file is written: its encoding, and what stands between cells."""

    encoding: str
    delimiter: str

    @property
    def said(self) -> str:
        """How a person would say it."""
        between = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "upright bars"}[self.delimiter]
        encoding = {"utf-8": "UTF-8", "utf-16": "UTF-16", "cp1252": "Windows-1252"}.get(
            self.encoding, self.encoding.upper()
        )
        return f"the file is read as {encoding} with {between} between cells"


USUAL = Dialect("utf-8", ",")


def dialect_of(path: Path) -> Dialect:
    """How a CSV file is written, by its first 256 KiB.

    UTF-16 by its mark or its zeros; else UTF-8, unless no letter beyond ASCII is UTF-8: such a file is Windows-1252, as Excel writes it in the
    west. Between cells stands whichever of comma, semicolon, tab and | parts the header into most names.
    """
    with Bytes(path) as stream:
        start = io.BufferedReader(stream, PIECE).read(1 << 18)
    zeros = start[:200].count(0)
    if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        encoding = "utf-16"
    elif zeros > len(start[:200]) / 4:
        encoding = "utf-16-le" if start[1::2][:100].count(0) > start[::2][:100].count(0) else "utf-16-be"
    else:
        text = start.decode("utf-8", "replace").rstrip("\ufffd")  # a letter may be cut at the end
        encoding = (
            "cp1252" if "\ufffd" in text and not any(c > "\x7f" for c in text if c not in "\ufffd\ufeff") else "utf-8"
        )
    header = start.decode(encoding, "replace").removeprefix("\ufeff").split("\n", 1)[0]
    parted = {mark: len(next(csv.reader([header], delimiter=mark), [])) for mark in ",;\t|"}
    return Dialect(encoding, max(parted, key=parted.__getitem__))


def csv_parts(path: Path, seen: Callable[[int], None] = lambda _: None) -> Iterator[Part]:
    """A CSV file as tables of text: null where a cell is empty, "" where it is an empty text in quotes.

    Raises FileError for a file without a header, or with a name in it twice.
    """
    import pyarrow.csv as pa_csv

    dialect = dialect_of(path)
    names = _header(path, dialect)
    refused: list[str] = []

    def refuse(row: Any) -> str:
        refused.append(row.text)
        return "skip"

    lines = _Lines(path, dialect, len(names))
    with Bytes(path, seen) as stream:
        try:
            reader = pa_csv.open_csv(
                io.BufferedReader(stream, PIECE),
                read_options=pa_csv.ReadOptions(
                    block_size=PIECE, use_threads=False, encoding=dialect.encoding
                ),  # it reads ahead in one all the same
                parse_options=pa_csv.ParseOptions(
                    delimiter=dialect.delimiter, newlines_in_values=True, invalid_row_handler=refuse
                ),
                convert_options=pa_csv.ConvertOptions(
                    column_types={name: pa.binary() for name in names},
                    strings_can_be_null=True,
                    quoted_strings_can_be_null=False,
                    null_values=[""],
                ),
            )
            for batch in reader:
                yield _csv_part(pa.table(batch), lines, refused)
        except (pa.ArrowInvalid, UnicodeError) as error:
            if "Empty CSV" not in str(error):  # a header alone
                yield Part(pa.table({}), list, [(None, Unreadable(f"the file can't be read on: {error}", cut=True))])
        if refused:
            yield _csv_part(pa.table({}), lines, refused)
        if stream.cut:
            yield Part(pa.table({}), list, [(None, Unreadable(f"the file breaks off: {stream.cut}", cut=True))])


def _text_of(stream: Bytes, dialect: Dialect) -> io.TextIOWrapper:
    encoding = "utf-8-sig" if dialect.encoding == "utf-8" else dialect.encoding
    return io.TextIOWrapper(io.BufferedReader(stream), encoding, "replace", newline="")


def _header(path: Path, dialect: Dialect) -> list[str]:
    with Bytes(path) as stream, _text_of(stream, dialect) as text:
        try:
            names = next(csv.reader(text, strict=True, delimiter=dialect.delimiter), [])
        except csv.Error as error:
            raise FileError(f"{path}: its first line is not a CSV header: {error}") from None
    if not names:
        raise FileError(f"{path}: is empty; its first line must name the columns")
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise FileError(f"{path}: column {twice!r} appears twice")
    return names


def _csv_part(table: pa.Table, lines: "_Lines", refused: list[str]) -> Part:
    """Cells as text; rows with the wrong number of cells, or text that isn't UTF-8, are unreadable. Takes what is in `refused`."""
    unreadable: list[tuple[int | None, Unreadable]] = []
    start, rows = lines.expect(len(table)), len(table)
    if texts := refused[:]:
        del refused[: len(texts)]  # these alone: the reader, which is ahead in a thread of its own, may have added more
        for number, text in zip(lines.refused(start, rows, len(texts)), texts, strict=True):
            unreadable.append(
                (number, Unreadable(f"the row has not the {lines.cells} cells of the header", text[:2000]))
            )
    keep = np.ones(rows, dtype=bool)
    columns: dict[str, pa.ChunkedArray] = {}
    for name in table.column_names:
        try:
            columns[name] = table[name].cast(pa.string())
        except pa.ArrowInvalid:
            cells = table[name].to_pylist()
            bad = [row for row, cell in enumerate(cells) if cell is not None and _shown(cell).encode() != cell]
            for row in bad:
                if keep[row]:
                    number = lines.numbers(start, rows)[row]
                    unreadable.append((number, Unreadable(f"field {name} is not UTF-8", _shown(cells[row])[:2000])))
            keep[bad] = False
            columns[name] = pa.chunked_array([pa.array([None if c is None else _shown(c) for c in cells], pa.string())])
    mask = pa.array(keep)
    return Part(
        pa.table(columns).filter(mask) if columns else table,
        lambda: [n for n, k in zip(lines.numbers(start, rows), keep, strict=True) if k],
        unreadable,
    )


class _Lines:
    """Line numbers of a CSV file's rows, found by a second reading that goes along when the first one meets something bad.

    The first reading may have refused rows of later parts already: then the second one is ahead of the good rows that were handed out.
    """

    def __init__(self, path: Path, dialect: Dialect, cells: int) -> None:
        self.cells, self._path, self._dialect = cells, path, dialect
        self._rows = self._read()
        self._given = 0  # rows handed out by the first reading
        self._start = 0  # number of the first good row whose line is in `_good`
        self._good: list[int] = []
        self._bad: list[int] = []

    def expect(self, rows: int) -> int:
        """Note that so many good rows come; the number of the first."""
        start, self._given = self._given, self._given + rows
        return start

    def numbers(self, start: int, rows: int) -> list[int | None]:
        """Lines of good rows; None where the second reading finds none. Those before them are forgotten."""
        while self._start + len(self._good) < start + rows and self._next():
            pass
        del self._good[: start - self._start]
        self._start = start
        return [*self._good[:rows], *[None] * (rows - len(self._good))]

    def refused(self, start: int, rows: int, count: int) -> list[int | None]:
        """Lines of the next refused rows, some of which may stand after these good ones."""
        self.numbers(start, rows)
        while len(self._bad) < count and self._next():
            pass
        found, self._bad = self._bad[:count], self._bad[count:]
        return [*found, *[None] * (count - len(found))]

    def _next(self) -> bool:
        """Read a row; whether there was one."""
        for line, cells in self._rows:
            (self._good if cells == self.cells else self._bad).append(line)
            return True
        return False

    def _read(self) -> Iterator[tuple[int, int]]:
        with Bytes(self._path) as stream, _text_of(stream, self._dialect) as text:
            reader = csv.reader(text, delimiter=self._dialect.delimiter)
            next(reader, None)
            before = reader.line_num
            try:
                for row in reader:
                    if row:
                        yield before + 1, len(row)
                    before = reader.line_num
            except csv.Error:
                return


def text_parts(path: Path, ending: str, seen: Callable[[int], None] = lambda _: None) -> Iterator[Part]:
    """A CSV file or a workbook as tables of text, by the ending of its name; see `csv_parts` and `sheet_parts`."""
    return sheet_parts(path, seen) if ending in SHEETS else csv_parts(path, seen)


EXACT = 15
"""Digits of a number that a spreadsheet keeps (IEEE 754's double precision, as Excel shows it)."""


def sheet_parts(path: Path, seen: Callable[[int], None] = lambda _: None) -> Iterator[Part]:
    """The one sheet of a workbook that has rows, as a table of text, as `csv_parts` gives it; its first row names the columns.

    A cell has the value that was last computed. A row with a number of more than EXACT digits is unreadable: a spreadsheet has rounded it.
    Raises FileError where the file is no workbook, where several sheets have rows, and where no row names the columns.
    """
    from python_calamine import CalamineError, CalamineWorkbook

    try:
        with CalamineWorkbook.from_path(path) as book:
            sheets = {name: book.get_sheet_by_name(name) for name in book.sheet_names}
            filled = {name: sheet for name, sheet in sheets.items() if sheet.height}
            if len(filled) != 1:
                raise FileError(
                    f"{path}: {len(filled)} of its sheets have rows ({', '.join(filled) or 'none'}); save the one that is meant as a file of its own"
                )
            (sheet,) = filled.values()
            first = (sheet.start or (0, 0))[0] + 1
            rows = sheet.to_python(skip_empty_area=True)
    except (CalamineError, OSError, ValueError) as error:
        if isinstance(error, FileError):
            raise
        raise FileError(f"{path}: can't be read as a workbook: {error}") from None
    seen(path.stat().st_size)
    yield _sheet_part(path, rows, first)


def _sheet_part(path: Path, rows: list[list[Any]], first: int) -> Part:
    names = [_cell_text(cell) or "" for cell in rows[0]]
    used = [n for n, name in enumerate(names) if name.strip()]
    unnamed = [
        n for n in range(len(names)) if not names[n].strip() and any(row[n] not in ("", None) for row in rows[1:])
    ]
    if unnamed or not used:
        raise FileError(
            f"{path}: row {first} must name the columns, and column {unnamed[0] + 1 if unnamed else 1} has no name"
        )
    twice = next((names[n] for n in used if names.count(names[n]) > 1), None)
    if twice is not None:
        raise FileError(f"{path}: column {twice!r} appears twice")
    kept, numbers, unreadable = list[list[str | None]](), list[int | None](), list[tuple[int | None, Unreadable]]()
    for number, row in enumerate(rows[1:], start=first + 1):
        cells = [_cell_text(row[n]) for n in used]
        rounded = next((n for n in used if isinstance(row[n], int | float) and abs(row[n]) >= 10**EXACT), None)
        if rounded is not None:
            why = f"column {names[rounded]} is a number of more than {EXACT} digits, which spreadsheets round; make the column text at its source"
            unreadable.append(
                (number, Unreadable(why, json.dumps(dict(zip([names[n] for n in used], cells, strict=True)))))
            )
        elif any(cell is not None for cell in cells):
            kept.append(cells)
            numbers.append(number)
    columns = {names[n]: pa.array([cells[at] for cells in kept], pa.string()) for at, n in enumerate(used)}
    return Part(pa.table(columns), lambda: numbers, unreadable)


def _cell_text(value: Any) -> str | None:
    """A cell of a workbook as a cell of CSV has it; None for an empty one."""
    if value is None or value == "":
        return None
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() else repr(value)
    if isinstance(value, timedelta):
        return str(value.total_seconds())
    if isinstance(value, date | time):
        return value.isoformat()
    return storable(str(value))


FEW = 1000
"""Rows of a Parquet file that are in memory at a time where they are given one by one."""


def parquet_parts(path: Path, seen: Callable[[int], None] = lambda _: None, rows: int = 1 << 16) -> Iterator[Part]:
    """A Parquet file as tables. Raises FileError where it isn't whole."""
    try:
        file = pq.ParquetFile(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise FileError(f"{path}: is not a whole Parquet file; it may have been cut off: {error}") from None
    number, size = 1, path.stat().st_size
    with file:
        try:
            for batch in file.iter_batches(rows):
                yield Part(pa.table(batch), partial(range, number, number + len(batch)))
                number += len(batch)
                seen(int(size * len(batch) / max(file.metadata.num_rows, 1)))
        except (pa.ArrowInvalid, OSError) as error:
            yield Part(pa.table({}), list, [(number, Unreadable(f"the file can't be read on: {error}", cut=True))])


def records(path: Path) -> Iterator[tuple[int | None, Any]]:
    """Line (or row) and content of every record of a file, one by one; an `Unreadable` for what is none. Cells of CSV are text.

    Raises FileError for a file that can't be used at all.
    """
    match ending_of(path):
        case ".jsonl" | ".jsonl.gz" | ".jsonl.zst":
            yield from _json_lines_of(path)
        case ending:
            for part in parquet_parts(path, rows=FEW) if ending == ".parquet" else text_parts(path, ending):
                yield from part.unreadable
                yield from zip(part.numbers(), _contents(part.table), strict=True)


def _contents(table: pa.Table) -> list[Any]:
    """Rows of a table; an `Unreadable` for one with text that isn't UTF-8, which Parquet's writers and readers let through."""
    try:
        return table.to_pylist()  # type: ignore[no-any-return]
    except UnicodeDecodeError:
        if len(table) == 1:
            return [Unreadable("a text in the row is not UTF-8")]
        return [row for n in range(len(table)) for row in _contents(table.slice(n, 1))]


def json_fault(error: Exception) -> str:
    """What ijson says is wrong with a file, without the text of the file that it quotes on further lines."""
    said = error.args[0] if error.args else ""
    return (said.decode("ascii", "replace") if isinstance(said, bytes) else str(said)).split("\n")[0]


def json_list(
    path: Path, seen: Callable[[int], None] = lambda _: None, members: str = "item"
) -> Iterator[tuple[int, Any]]:
    """Number (from 1) and content of every member of a file that is one JSON list, one by one; an `Unreadable` where it breaks off.

    members: where they stand, as ijson names it. Raises FileError where the file is no list, or an empty one.
    """
    import ijson

    number = 0
    with Bytes(path, seen) as stream:
        try:
            for record in ijson.items(_without_bom(stream), members, use_float=True):
                number += 1
                yield number, record
        except ijson.JSONError as error:
            why = json_fault(error)
            if not number:
                raise FileError(f"{path}: is not a JSON list of records: {why}") from None
            reason = f"the file breaks off after {number} whole records: {stream.cut or why}"
            yield number + 1, Unreadable(reason, cut=True)
    if not number:
        raise FileError(f"{path}: is not a JSON list of records, or is an empty one")


JSON_ENDINGS = (".json", ".json.gz", ".json.zst", ".jsonl", ".jsonl.gz", ".jsonl.zst")
HOLDERS = ("data", "rows", "items", "records", "examples", "train", "validation", "test")
"""Fields of an object that holds records in a list."""


def any_records(path: Path) -> Iterator[tuple[int | None, Any]]:
    """Line (or number, from 1) and content of every record of a file, as `records` gives them; JSON is read whatever its name says it is.

    It may be lines of JSON, one list, or one object that holds the list in a field of HOLDERS. Raises FileError where it is nothing of these.
    """
    return _any_json(path) if path.name.lower().endswith(JSON_ENDINGS) else records(path)


def _any_json(path: Path) -> Iterator[tuple[int, Any]]:
    members = members_of(path)
    yield from json_list(path, members=members) if members else _json_lines_of(path)


def members_of(path: Path) -> str | None:
    """Where the records of a JSON file stand, as ijson names it: in one list, or in that of a field of HOLDERS; None where they are lines.

    Raises FileError for one object without such a field, where the file's name says that it is no lines.
    """
    with Bytes(path) as stream:
        start = stream.read(1 << 16)
    start = start.removeprefix(BOM).lstrip()
    line, newline, rest = start.partition(b"\n")
    if (newline and rest.strip() and _is_json(line)) or (not newline and start[:1] not in (b"[", b"{")):
        return None
    if start[:1] == b"[":
        return "item"
    if holder := _holder(path):
        return f"{holder}.item"
    lines = not path.name.lower().removesuffix(".gz").removesuffix(".zst").endswith(".json")
    if lines or not newline or _is_json(line):  # one line, or one longer than was looked at
        return None
    raise FileError(
        f"{path}: is one JSON object, not a list of records, lines of them, or an object with a field {', '.join(HOLDERS)}"
    )


def _json_lines_of(path: Path) -> Iterator[tuple[int, Any]]:
    with Bytes(path) as stream:
        for first, block in line_blocks(stream):
            if isinstance(block, Unreadable):
                yield first, block
            else:
                yield from json_lines(first, block)


def _without_bom(stream: Bytes) -> "io.BufferedReader[Bytes]":
    """A stream behind the mark with which some programs begin UTF-8."""
    buffered = io.BufferedReader(stream, PIECE)
    if buffered.peek(len(BOM)).startswith(BOM):
        buffered.read(len(BOM))
    return buffered


def _is_json(line: bytes) -> bool:
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return False
    return True


def _holder(path: Path) -> str | None:
    """The field of HOLDERS in which a file that is one object has a list; None where there is none."""
    import ijson

    with Bytes(path) as stream:
        try:
            for prefix, event, _ in ijson.parse(_without_bom(stream)):
                if event == "start_array" and prefix in HOLDERS:
                    return str(prefix)
        except ijson.JSONError:
            pass
    return None
