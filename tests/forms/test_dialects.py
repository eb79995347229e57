"""The same ratings in files of other habits: the same labels, people and counts, whatever program or person wrote them."""

import csv
import io
import json
import random
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openpyxl import Workbook

from pipeline.annotations.consensus import consensus_labels, most_agreeing
from pipeline.annotations.people import RATED_AGAIN, People, one_vote
from pipeline.forms.ratings import FORMS, READ, USUAL_HABITS, Habits, Quarantine, form_of, read, snake
from pipeline.forms.streams import in_whole_prompts
from pipeline.records import Dialect, FileError, dialect_of
from pipeline.vocabulary import ATTRIBUTES

NAMES = ("prompt_id", "response_id", "annotator_id", *ATTRIBUTES, "safe", "flags", "comment", "annotated_at")
HEADERS = {
    "plain": lambda name: name,
    "spaced": lambda name: f" {name.replace('_', ' ').title()}",
    "upper": str.upper,
    "camel": lambda name: name.split("_")[0] + "".join(part.title() for part in name.split("_")[1:]),
}
PEOPLE = {"plain": str, "padded": lambda n: f" {n} ", "real": lambda n: f"{n}.0", "number": int}
SAFE = {"words": ("safe", "Unsafe"), "python": ("True", "False"), "bits": ("1", "0"), "yes": ("yes", "no")}
SCALES: dict[str, dict[str, int]] = {
    "levels": {},
    "from 1 to 5": {str(level + 1): level for level in range(5)},
    "words": {word: level for level, word in enumerate(["Very poor", "poor", "fair", "good", "very good"])},
}
OTHER = {"response_id": "Antwort", "annotator_id": "Wer?", "helpfulness": "score", "comment": "response_id "}
"""Columns of a team that calls things its own way, one of them like another column of ours, but for a space."""
FLAGS = {"json": json.dumps, "bars": "|".join}


def ratings(levels: list[list[int]]) -> list[dict[str, Any]]:
    """Ratings of two responses, A and B, to each of some prompts, by three people; all that people may write is there."""
    return [
        {
            "prompt_id": f"p{prompt}",
            "response_id": name,
            "annotator_id": who + 1,
            **{a: (level + n) % 5 for n, a in enumerate(ATTRIBUTES)},
            "safe": level > 0,
            "flags": ["pii", "code"] if level == 4 else [],
            "comment": 'très bien; "oui", n\'est-ce pas?',
            "annotated_at": f"2026-01-0{1 + who}T10:00:00Z",
        }
        for prompt, row in enumerate(levels)
        for (name, who), level in zip([(n, w) for n in "AB" for w in range(3)], row, strict=True)
    ]


def written(rows: list[dict[str, Any]], path: Path, how: dict[str, Any]) -> None:
    """Write rows into a file in a way."""
    header = HEADERS[how["header"]]
    yes, no = SAFE[how["safe"]]
    kind = path.name.partition(".")[2]
    words = {level: word for word, level in SCALES[how["scale"]].items()}
    said: dict[int, Any] = {level: int(word) if word.isdigit() else word for level, word in words.items()}
    rows = [row | {a: said.get(row[a], row[a]) for a in ATTRIBUTES} for row in rows]

    def called(name: str) -> str:
        return OTHER.get(name, name) if how["columns"] else header(name)

    if kind in ("csv", "tsv", "xlsx"):
        cells = [
            row
            | {"annotator_id": PEOPLE[how["people"]](row["annotator_id"]), "safe": yes if row["safe"] else no}
            | {"flags": FLAGS[how["flags"]](row["flags"]) if row["flags"] else ""}
            for row in rows
        ]
        if kind == "xlsx":
            sheet(path, [[called(name) for name in NAMES], *([row[name] for name in NAMES] for row in cells)], how)
            return
        text = io.StringIO(newline="")
        writer = csv.DictWriter(
            text, NAMES, delimiter="\t" if kind == "tsv" else how["delimiter"], lineterminator=how["end"]
        )
        writer.writerow({name: called(name) for name in NAMES})
        writer.writerows(cells)
        path.write_bytes(text.getvalue().encode(how["encoding"]))
        return
    people = str if kind == "parquet" else PEOPLE[how["people"]]
    records = [{called(k): v for k, v in (row | {"annotator_id": people(row["annotator_id"])}).items()} for row in rows]
    if kind == "parquet":
        pq.write_table(pa.Table.from_pylist(records), path)
    elif how["listed"]:
        path.write_text(json.dumps(records, indent=how["indent"], ensure_ascii=how["ascii"]), encoding=how["bom"])
    else:
        lines = "".join(json.dumps(r, ensure_ascii=how["ascii"]) + "\n" for r in records)
        path.with_suffix(".jsonl").write_text(lines, encoding=how["bom"])


def sheet(path: Path, rows: list[list[Any]], how: dict[str, Any]) -> None:
    """Write a workbook as people keep them: an empty sheet beside it, dates as dates or as text, numbers as numbers."""
    book = Workbook()
    page = book.active
    assert page is not None
    for row in rows:
        stamp = row[-1]
        page.append(
            [
                *row[:-1],
                datetime.fromisoformat(stamp).replace(tzinfo=None) if how["listed"] and stamp[0] == "2" else stamp,
            ]
        )
    book.create_sheet("Sheet2")
    book.save(path)


def outcome(path: Path, habits: Habits = USUAL_HABITS) -> tuple[list[dict[str, Any]], int, int, list[Any]]:
    """Labels, people, ratings set aside because their annotators replaced them, and what was said of safety and flags."""
    aside, people = Quarantine(), People()
    tables = list(read(path, form_of(path, habits.columns), aside, habits=habits))
    whole = pa.concat_tables(tables).sort_by("prompt_id")
    kept = pa.concat_tables(one_vote(in_whole_prompts([whole]), people, path.name, aside))
    assert aside.counts.total() == 0, aside.rows
    assert not aside.ignored
    order = [(n, "ascending") for n in ("prompt_id", "response_id", "annotator_id")]
    said = [(r["safe"], r["flags"] or [], r["comment"], r["annotated_at"]) for r in kept.sort_by(order).to_pylist()]
    return consensus_labels(most_agreeing(kept)).to_pylist(), people.count, aside.left_out[RATED_AGAIN], said


WAYS = st.fixed_dictionaries(
    {
        "header": st.sampled_from(sorted(HEADERS)),
        "columns": st.booleans(),
        "scale": st.sampled_from(sorted(SCALES)),
        "people": st.sampled_from(sorted(PEOPLE)),
        "safe": st.sampled_from(sorted(SAFE)),
        "flags": st.sampled_from(sorted(FLAGS)),
        "delimiter": st.sampled_from(",;\t|"),
        "encoding": st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "cp1252"]),
        "end": st.sampled_from(["\n", "\r\n"]),
        "listed": st.booleans(),
        "indent": st.sampled_from([None, 1]),
        "ascii": st.booleans(),
        "bom": st.sampled_from(["utf-8", "utf-8-sig"]),
    }
)


@settings(max_examples=150, deadline=None)
@given(
    levels=st.lists(st.lists(st.integers(0, 4), min_size=6, max_size=6), min_size=1, max_size=3),
    kind=st.sampled_from(["csv", "csv", "tsv", "xlsx", "json", "jsonl", "parquet"]),
    how=WAYS,
    seed=st.integers(0, 99),
    copies=st.integers(0, 3),
)
def test_the_same_ratings_in_any_dress_say_the_same(
    tmp_path_factory: pytest.TempPathFactory,
    levels: list[list[int]],
    kind: str,
    how: dict[str, Any],
    seed: int,
    copies: int,
) -> None:
    place, rows = tmp_path_factory.mktemp("dress"), ratings(levels)
    plain = place / "plain.jsonl"
    plain.write_text("".join(json.dumps(r | {"annotator_id": str(r["annotator_id"])}) + "\n" for r in rows))
    wanted = outcome(plain)
    draw = random.Random(seed)
    replaced = [
        r | {"annotated_at": "2025-12-31T10:00:00Z"} | dict.fromkeys(ATTRIBUTES, 0)
        for r in draw.choices(rows, k=copies)
    ]
    given_ = [*rows, *replaced]
    draw.shuffle(given_)
    path = place / f"a.{kind}"
    if kind == "json" and not how["listed"]:
        path = place / "a.jsonl"
    written(given_, path, how)
    habits = Habits(OTHER if how["columns"] else {}, {"all": SCALES[how["scale"]]} if SCALES[how["scale"]] else {})
    labels, people, again, said = outcome(path, habits)
    assert (labels, people, said) == (wanted[0], wanted[1], wanted[3])
    assert again == copies


@pytest.mark.parametrize(
    ("content", "dialect"),
    [
        (b"a,b\n1,2\n", Dialect("utf-8", ",")),
        (b"a;b\n1,5;2\n", Dialect("utf-8", ";")),
        ("a|b\né|ü\n".encode(), Dialect("utf-8", "|")),
        ("a,b\né,ü\n".encode("cp1252"), Dialect("cp1252", ",")),
        ("a,b\né,".encode() + b"\xff\n", Dialect("utf-8", ",")),  # one broken letter of a UTF-8 file
        ("a\tb\n1\t2\n".encode("utf-16"), Dialect("utf-16", "\t")),
        ("a;b\n1;2\n".encode("utf-16-le"), Dialect("utf-16-le", ";")),
        (b"only\n1\n", Dialect("utf-8", ",")),
        (b"", Dialect("utf-8", ",")),
    ],
)
def test_a_files_encoding_and_what_parts_its_cells_are_seen(tmp_path: Path, content: bytes, dialect: Dialect) -> None:
    (tmp_path / "a.csv").write_bytes(content)
    assert dialect_of(tmp_path / "a.csv") == dialect


@pytest.mark.parametrize("name", ["Response ID", " response-id ", "responseId", "RESPONSE_ID", "response__id"])
def test_a_columns_name_is_known_in_any_dress(name: str) -> None:
    assert snake(name) == "response_id"


HEAD = ["prompt_id", "response_id", "annotator_id", *ATTRIBUTES]


def workbook(path: Path, *sheets: list[list[Any]]) -> Path:
    """A workbook with some sheets."""
    book = Workbook()
    book.remove(book.worksheets[0])
    for rows in sheets:
        page = book.create_sheet()
        for row in rows:
            page.append(row)
    book.save(path)
    return path


def test_a_row_of_a_workbook_is_named_by_its_number_and_rounded_ids_are_set_aside(tmp_path: Path) -> None:
    rows = [
        ["p", "a", 1, 1, 1, 1, 1, 9],
        [None] * 8,
        ["p", 12345678901234567, 1, 1, 1, 1, 1, 1],
        ["p", "a", 7.0, *[2] * 5],
    ]
    aside = Quarantine()
    (table,) = read(workbook(tmp_path / "a.xlsx", [HEAD, *rows]), "annotations", aside)
    assert [(r["annotator_id"], r["verbosity"]) for r in table.to_pylist()] == [("7", 2)]
    assert [(r["line"], r["field"]) for r in aside.rows] == [(4, None), (2, "verbosity")]
    assert "response_id is a number of more than 15 digits" in aside.rows[0]["reason"]
    assert aside.read == 3


@pytest.mark.parametrize(
    ("sheets", "why"),
    [
        (([HEAD], [HEAD]), "2 of its sheets have rows"),
        (([],), "0 of its sheets have rows"),
        (([["prompt_id", None], ["p", "x"]],), "column 2 has no name"),
        (([["prompt_id", "prompt_id"], ["p", "x"]],), "column 'prompt_id' appears twice"),
        (([["prompt_id", "answer"], ["p", "x"]],), "has no column response_id, annotator_id"),
    ],
)
def test_a_workbook_that_may_be_read_two_ways_is_refused(tmp_path: Path, sheets: Any, why: str) -> None:
    with pytest.raises(FileError, match=why):
        list(read(workbook(tmp_path / "a.xlsx", *sheets), "annotations", Quarantine()))


def lines(path: Path, rows: list[dict[str, Any]]) -> Path:
    """A file of JSON lines."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def rated(*levels: Any) -> list[dict[str, Any]]:
    """A rating a level, each by another person."""
    return [
        {"prompt_id": "p", "response_id": "a", "annotator_id": str(n)} | dict.fromkeys(ATTRIBUTES, level)
        for n, level in enumerate(levels)
    ]


@pytest.mark.parametrize(
    ("levels", "refused"),
    [
        ([1, 2, 3, 4, 5, 5, 5, 4], "another scale than 0 to 4: 3 rows have one above 4, up to 5, and none is 0"),
        ([0, 2, 5, 7, 10, 6], "another scale than 0 to 4: 4 rows have one above 4, up to 10"),
        ([1] * 100 + [5, 5, 5], "3 rows have one above 4"),
        ([0] + [1] * 100 + [7, 7, 7], None),  # slips of the pen among ratings from 0 to 4
        ([1, 2, 3, 4, 5, 5], None),
    ],
)
def test_ratings_on_another_scale_are_refused_not_read_as_levels(
    tmp_path: Path, levels: list[int], refused: str | None
) -> None:
    path, aside = lines(tmp_path / "a.jsonl", rated(*levels)), Quarantine()
    if refused is None:
        assert sum(map(len, read(path, "annotations", aside))) == sum(level <= 4 for level in levels)
    else:
        with pytest.raises(FileError, match=refused) as error:
            list(read(path, "annotations", aside))
        assert "--scale 1=0 2=1" in str(error.value)


def test_a_scale_is_mapped_by_its_table_and_nothing_beside_it_is_a_level(tmp_path: Path) -> None:
    scale = {"all": {str(n + 1): n for n in range(5)}, "verbosity": {"Short": 0, "long": 4}}
    rows = [
        row | {"verbosity": said}
        for row, said in zip(rated(5, 1.0, "3", 0), ("short ", "LONG", "2", "short"), strict=True)
    ]
    aside = Quarantine()
    (table,) = read(lines(tmp_path / "a.jsonl", rows), "annotations", aside, habits=Habits(scale=scale))
    assert [(r["helpfulness"], r["verbosity"]) for r in table.to_pylist()] == [(4, 0), (0, 4)]
    assert [r["reason"] for r in aside.rows] == [
        "verbosity is '2', none of the scale that is stated: short, long",
        "helpfulness is '0', none of the scale that is stated: 1, 2, 3, 4, 5",
    ]


def test_an_id_that_a_spreadsheet_rounded_is_no_id(tmp_path: Path) -> None:
    rows = [row | {"response_id": said} for row, said in zip(rated(1, 2), ("1.23457E+17", "1.5"), strict=True)]
    aside = Quarantine()
    (table,) = read(lines(tmp_path / "a.jsonl", rows), "annotations", aside)
    assert table["response_id"].to_pylist() == ["1.5"]
    assert "a number that a spreadsheet has rounded" in aside.rows[0]["reason"]


@pytest.mark.parametrize("ending", ["csv", "parquet", "jsonl"])
def test_a_column_that_is_mapped_must_be_there_and_what_has_its_name_is_left_out(tmp_path: Path, ending: str) -> None:
    rows = [row | {"item": "b", "who": {"id": "x"}} for row in rated(1, 2)]
    path = tmp_path / f"a.{ending}"
    if ending == "jsonl":
        lines(path, rows)
    elif ending == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        path.write_text(
            "\n".join(
                [",".join(rows[0]), *(",".join(str(v) if k != "who" else "x" for k, v in r.items()) for r in rows)]
            )
        )
    columns = {"response_id": "item"} | ({} if ending == "csv" else {"annotator_id": "who.id"})
    whole = pa.concat_tables(read(path, "annotations", Quarantine(), habits=Habits(columns)))
    assert whole["response_id"].to_pylist() == ["b", "b"]
    assert whole["annotator_id"].to_pylist() == (["0", "1"] if ending == "csv" else ["x", "x"])
    with (
        pytest.raises(FileError, match="has no column nowhere, which `columns` names")
        if ending != "jsonl"
        else pytest.raises(AssertionError)
    ):
        aside = Quarantine()
        list(read(path, "annotations", aside, habits=Habits({"response_id": "nowhere"})))
        assert not aside.counts


def test_forms_that_are_read_into_annotations_have_no_name_twice() -> None:
    assert len({*FORMS, *READ}) == len(FORMS) + len(READ) - 1  # annotations is one of both
