"""Every form through every kind of file and back, and every way in which a file can be broken."""

import gzip
import json
import tracemalloc
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline import records
from pipeline.forms import ratings as formats
from pipeline.forms.ratings import FORMS, Quarantine, Reader, form_of, read, write
from pipeline.records import FileError, json_lines
from pipeline.vocabulary import ATTRIBUTES

TABLES = ("jsonl", "jsonl.gz", "csv", "csv.gz", "parquet")
text = st.text(st.characters(codec="utf-8"), max_size=12)
level = st.integers(0, 4)
maybe_level = st.one_of(st.none(), level)
name = st.text("abcdefgh0123456789", min_size=1, max_size=6)


def of(rows: st.SearchStrategy[dict[str, Any]], most: int = 12) -> st.SearchStrategy[list[dict[str, Any]]]:
    return st.lists(rows, max_size=most)


annotations = st.fixed_dictionaries(
    {"prompt_id": name, "response_id": name, "annotator_id": name, "round": st.sampled_from([1, 2, None])}
    | dict.fromkeys(ATTRIBUTES, maybe_level)
    | {
        "safe": st.one_of(st.none(), st.booleans()),
        "confidence": st.sampled_from([None, 1, 2, 3]),
        "flags": st.one_of(st.none(), st.lists(text, max_size=2)),
        "comment": st.one_of(st.none(), text),
        "lead_time_s": st.one_of(st.none(), st.floats(0, 1e4, width=32)),
        "annotated_at": st.one_of(st.none(), st.datetimes(datetime(1971, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC))),
        "desk": st.one_of(st.none(), text),
        "simulated": st.one_of(st.none(), st.booleans()),
    }
).filter(lambda row: any(row[a] is not None for a in ATTRIBUTES))  # fmt: skip
ratings = st.lists(st.one_of(level, st.none()), min_size=1, max_size=6)
opinion = st.integers(-3, 3)
ROWS = {
    "annotations": of(annotations),
    "disagreements": of(st.fixed_dictionaries({"prompt": text, "response": text} | dict.fromkeys(ATTRIBUTES, ratings))),
    "helpsteer": of(st.fixed_dictionaries({"prompt": text, "response": text} | dict.fromkeys(ATTRIBUTES, level))),
    "preference": of(
        st.fixed_dictionaries(
            {
                "split": st.sampled_from(["train", "val"]),
                "prompt": text,
                "response_1": text,
                "response_2": text,
                "preference_strength": opinion,
                "preference_statement": st.one_of(st.none(), text),
                "preference_elaboration": text,
                "three_most_similar_preferences": st.lists(
                    st.fixed_dictionaries({"statement": text, "elaboration": text, "strength": opinion}), max_size=3
                ),
                "all_preferences_unprocessed": st.lists(
                    st.fixed_dictionaries({"strength": st.one_of(opinion, st.just(-100)), "justification": text}),
                    max_size=5,
                ),
            }
        )
    ),
}


@pytest.mark.parametrize("ending", TABLES)
@pytest.mark.parametrize("form", list(ROWS))
@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(data=st.data())
def test_what_is_written_comes_back_as_it_was(form: str, ending: str, tmp_path: Path, data: st.DataObject) -> None:
    table = pa.Table.from_pylist(data.draw(ROWS[form]), schema=FORMS[form].schema)
    path, quarantine = tmp_path / f"a.{ending}", Quarantine()
    assert write(path, form, [table]) == len(table)
    back = pa.concat_tables([FORMS[form].schema.empty_table(), *read(path, form, quarantine)])
    assert quarantine.rows == []
    assert quarantine.ignored == {}
    assert back.equals(table)
    first = path.read_bytes()
    write(path, form, [back])
    assert ending == "parquet" or path.read_bytes() == first


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(rows=ROWS["annotations"], packed=st.booleans())
def test_annotations_come_back_from_a_label_studio_export(
    rows: list[dict[str, Any]], packed: bool, tmp_path: Path
) -> None:
    seen: dict[str, set[str]] = {}
    kept, keys = [], set()
    for row in sorted(
        rows, key=lambda r: r["prompt_id"]
    ):  # a prompt's rows stand together, and it has at most two responses
        responses = seen.setdefault(row["prompt_id"], set())
        key = (row["prompt_id"], row["response_id"], row["annotator_id"])
        if (row["response_id"] in responses or len(responses) < 2) and key not in keys:
            responses.add(row["response_id"])
            keys.add(key)
            kept.append(
                {**row, "round": row["round"] or 1, "desk": row["desk"] or "d", "simulated": bool(row["simulated"])}
            )
    table = pa.Table.from_pylist(kept, schema=FORMS["annotations"].schema)
    path, quarantine = tmp_path / ("a.json.gz" if packed else "a.json"), Quarantine()
    if not kept:
        return
    assert write(path, "label_studio", [table]) == len(table)
    back = pa.concat_tables(read(path, form_of(path), quarantine))
    assert quarantine.rows == []
    order = [(c, "ascending") for c in ("prompt_id", "response_id", "annotator_id")]
    assert back.sort_by(order).equals(table.sort_by(order))


junk = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-9, 9), st.floats(-9, 9), text, st.just(10**30)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(text, inner, max_size=2)),
    max_leaves=4,
)


@pytest.mark.parametrize("form", list(ROWS))
@settings(max_examples=80, deadline=None)
@given(data=st.data())
def test_a_block_at_once_and_row_by_row_give_the_same(form: str, data: st.DataObject) -> None:
    rows = data.draw(ROWS[form])
    for _ in range(data.draw(st.integers(0, 2))):
        if rows:
            row = data.draw(st.sampled_from(rows))
            row[data.draw(st.sampled_from([*row, "more"]))] = data.draw(junk)
    block = "".join(json.dumps(r, default=str) + "\n" for r in rows).encode()
    one_by_one, at_once = Quarantine(), Quarantine()
    slow, _ = Reader(Path("f"), FORMS[form], one_by_one).records(json_lines(1, block))
    fast = formats._parsed(block, Reader(Path("f"), FORMS[form], at_once), len(rows))
    if fast is not None:
        assert fast.equals(slow)
        assert one_by_one.rows == []
        assert one_by_one.ignored == at_once.ignored
    assert len(slow) + len(one_by_one.rows) == len(rows), "every row is used or set aside"


# ---------------------------------------------------------------------------------------------------------------------- broken files

GOOD = {"prompt": "Why is the sky blue?", "response": "Light.", **{a: [4, 3, 4] for a in ATTRIBUTES}}
LINE = json.dumps(GOOD).encode() + b"\n"
LABEL = {"prompt": "q", "response": "r", **dict.fromkeys(ATTRIBUTES, 3)}
RATED = {"prompt_id": "p", "response_id": "r", "annotator_id": "a", **dict.fromkeys(ATTRIBUTES, 3)}
CHOICE = {"prompt": "q", "response_1": "a", "response_2": "b", "split": "train", "preference_strength": -2}


def lines(*rows: Any) -> bytes:
    return b"".join(r if isinstance(r, bytes) else json.dumps(r).encode() + b"\n" for r in rows)


def through(path: Path, form: str, content: bytes) -> tuple[list[dict[str, Any]], Quarantine]:
    path.write_bytes(content)
    quarantine = Quarantine()
    return [row for table in read(path, form, quarantine) for row in table.to_pylist()], quarantine


@pytest.mark.parametrize(
    ("form", "bad", "field", "reason"),
    [
        ("disagreements", GOOD | {"helpfulness": [4, 7, 3]}, "helpfulness", "is not a whole number from 0 to 4"),
        ("disagreements", GOOD | {"coherence": [4, -1]}, "coherence", "is not a whole number from 0 to 4"),
        ("disagreements", GOOD | {"verbosity": [2.5, 2]}, "verbosity", "is a number with a fraction, not a whole number from 0 to 4"),
        ("disagreements", GOOD | {"complexity": ["3"]}, "complexity", "is a text, not a whole number from 0 to 4"),
        ("disagreements", GOOD | {"correctness": [True, 3]}, "correctness", "is true or false, not a whole number from 0 to 4"),
        ("disagreements", GOOD | {"helpfulness": 3}, "helpfulness", "is a number, not a list"),
        ("disagreements", GOOD | {"helpfulness": [[3]]}, "helpfulness", "is a list, not a whole number from 0 to 4"),
        ("disagreements", GOOD | {"helpfulness": []}, "helpfulness", "is an empty list"),
        ("disagreements", GOOD | {"helpfulness": None}, "helpfulness", "is missing"),
        ("disagreements", {k: v for k, v in GOOD.items() if k != "response"}, "response", "is missing"),
        ("disagreements", GOOD | {"prompt": 7}, "prompt", "is a number, not a text"),
        ("disagreements", GOOD | {"prompt": "half \ud83d"}, "prompt", "holds half of a character (a lone surrogate)"),
        ("disagreements", GOOD | {"coherence": [10**400]}, "coherence", "is not a whole number from 0 to 4"),
        ("helpsteer", LABEL | {"helpfulness": 5}, "helpfulness", "is not a whole number from 0 to 4"),
        ("helpsteer", LABEL | {"helpfulness": [3]}, "helpfulness", "is a list, not a whole number from 0 to 4"),
        ("helpsteer", LABEL | {"response": {"text": "x"}}, "response", "is a record, not a text"),
        ("annotations", RATED | {"annotator_id": "  "}, "annotator_id", "is blank"),
        ("annotations", RATED | {"response_id": None}, "response_id", "is missing"),
        ("annotations", RATED | dict.fromkeys(ATTRIBUTES), "helpfulness", "and the other ratings are missing"),
        ("annotations", RATED | {"coherence": "²"}, "coherence", "is a text, not a whole number from 0 to 4"),
        ("annotations", RATED | {"confidence": 9}, "confidence", "is not a whole number from 1 to 3"),
        ("annotations", RATED | {"annotated_at": "yesterday"}, "annotated_at", "is no time in ISO 8601, no date, and no seconds since 1970"),
        ("annotations", RATED | {"safe": "maybe"}, "safe", "is none of true, yes, safe, pass, 1 and false, no, unsafe, fail, 0"),
        ("annotations", RATED | {"lead_time_s": "long"}, "lead_time_s", "is no time in seconds"),
        ("preference", CHOICE | {"preference_strength": 4}, "preference_strength", "is not a whole number from -3 to 3"),
        ("preference", CHOICE | {"split": "test"}, "split", "is none of train, val"),
        ("preference", CHOICE | {"all_preferences_unprocessed": [3]}, "all_preferences_unprocessed", "holds a number, not a record"),
    ],
)  # fmt: skip
def test_a_bad_row_is_set_aside_by_line_field_and_reason_and_the_rest_goes_on(
    tmp_path: Path, form: str, bad: Any, field: str, reason: str
) -> None:
    good = {"disagreements": GOOD, "helpsteer": LABEL, "annotations": RATED, "preference": CHOICE}[form]
    rows, quarantine = through(tmp_path / "a.jsonl", form, lines(good, bad, good))
    assert len(rows) == 2
    (entry,) = quarantine.table().to_pylist()
    assert (entry["file"], entry["line"], entry["field"], entry["reason"]) == ("a.jsonl", 2, field, f"{field} {reason}")
    assert entry["row"]


PACKED = gzip.compress(LINE * 3)


@pytest.mark.parametrize(
    ("name", "content", "whole", "where", "reason"),
    [
        ("a.jsonl", LINE + LINE[:30], 1, 2, "the file breaks off in the middle of this line"),
        ("a.jsonl", LINE + b"{not json}\n" + LINE, 2, 2, "the line is not JSON: Expecting property name"),
        ("a.jsonl", LINE + b'"text"\n' + LINE, 2, 2, "the row is a text, not a record"),
        ("a.jsonl", LINE + b"\xff\xfe\n" + LINE, 2, 2, "the line is not JSON: 'utf-8' codec can't decode"),
        ("a.jsonl", LINE + LINE.replace(b"Light", b"Li\xffght") + LINE, 2, 2, "the line is not JSON: 'utf-8' codec"),
        ("a.jsonl", LINE + b"[" * 100_000 + b"\n" + LINE, 2, 2, "the line is not JSON: maximum recursion"),
        ("a.jsonl", LINE + LINE.replace(b"[4, 3, 4]", b"[NaN]") + LINE, 2, 2, "the line is not JSON: NaN is not JSON"),
        ("a.jsonl", LINE + b'{"prompt": "a", "prompt": "b"}\n' + LINE, 2, 2, "the line is not JSON: field prompt appears twice"),
        ("a.jsonl", LINE + LINE[:-1] + b" " + LINE, 1, 2, "the line is not JSON: Extra data"),
        ("a.jsonl.gz", PACKED[:-4], 3, 4, "the file breaks off: the compressed data end too early"),
        ("a.jsonl.gz", PACKED[:-8] + b"\0\0\0\0" + PACKED[-4:], 3, 4, "the file breaks off: the compressed data are broken"),
        ("a.jsonl.gz", PACKED + b"no gzip", 3, 4, "the file breaks off: the compressed data are broken"),
        ("a.jsonl.gz", LINE, 0, 1, "the file breaks off: the compressed data are broken"),
    ],
)  # fmt: skip
def test_a_broken_place_is_told_and_the_rest_goes_on(
    tmp_path: Path, name: str, content: bytes, whole: int, where: int, reason: str
) -> None:
    rows, quarantine = through(tmp_path / name, "disagreements", content)
    assert len(rows) == whole
    (entry,) = quarantine.rows
    assert entry["line"] == where
    assert entry["reason"].startswith(reason)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\n\n",
        b"\xef\xbb\xbf" + LINE,
        LINE[:-1],
        LINE.replace(b"\n", b"\r\n"),
        LINE.replace(b"[4, 3, 4]", b"[4.0, 3, null]"),
    ],
)
def test_what_is_not_broken_is_read(tmp_path: Path, content: bytes) -> None:
    rows, quarantine = through(tmp_path / "a.jsonl", "disagreements", content)
    assert quarantine.rows == []
    assert len(rows) == (1 if content.strip() else 0)


def test_members_of_a_gz_file_follow_one_another(tmp_path: Path) -> None:
    rows, quarantine = through(tmp_path / "a.jsonl.gz", "disagreements", PACKED + b"\0" * 100 + PACKED)
    assert (len(rows), quarantine.rows) == (6, [])


def test_a_line_that_is_too_long_is_set_aside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "LONGEST", 3000)
    monkeypatch.setattr(records, "PIECE", 1000)
    long = LINE.replace(b"Light", b"x" * 20_000)
    rows, quarantine = through(tmp_path / "a.jsonl", "disagreements", LINE + long + LINE)
    assert len(rows) == 2
    (entry,) = quarantine.rows
    assert entry["line"] == 2
    assert entry["reason"].startswith("the line is longer than")


def test_line_numbers_go_on_over_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "PIECE", 700)
    rows, quarantine = through(tmp_path / "a.jsonl", "disagreements", (LINE * 9 + b"?\n") * 40)
    assert len(rows) == 360
    assert [e["line"] for e in quarantine.rows] == list(range(10, 401, 10))


def test_lines_of_bad_csv_rows_go_on_over_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "PIECE", 700)
    rows, quarantine = through(
        tmp_path / "a.csv", "helpsteer", HEADER + (CELLS * 8 + b"q,r,7,2,3,4,0\nq,r,1,2\n") * 100
    )
    assert len(rows) == 800
    by_kind = {kind: [e["line"] for e in quarantine.rows if ("cells" in e["reason"]) == kind] for kind in (False, True)}
    assert by_kind == {False: list(range(10, 1001, 10)), True: list(range(11, 1002, 10))}


def test_csv_rows_that_are_refused_while_others_are_told_are_told_with_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.csv").write_bytes(b"a,b\n1,2\n1,2,3\n1,2\n4,5,6\n")
    refused, real = ["1,2,3"], records._Lines.refused

    def meanwhile(self: Any, *asked: int) -> list[int | None]:  # test double: the reader, ahead, refuses a further row
        refused.append("4,5,6")
        return real(self, *asked)

    monkeypatch.setattr(records._Lines, "refused", meanwhile)
    lines, good = records._Lines(tmp_path / "a.csv", records.USUAL, 2), pa.table({"a": [b"1"], "b": [b"2"]})
    first = records._csv_part(good, lines, refused)
    assert [(number, row.text) for number, row in first.unreadable] == [(3, "1,2,3")]
    monkeypatch.setattr(records._Lines, "refused", real)
    second = records._csv_part(good, lines, refused)
    assert [(number, row.text) for number, row in second.unreadable] == [(5, "4,5,6")]
    assert refused == []


HEADER = b"prompt,response," + ",".join(ATTRIBUTES).encode() + b"\n"
CELLS = b"q,r,1,2,3,4,0\n"


@pytest.mark.parametrize(
    ("content", "whole", "where", "field", "reason"),
    [
        (HEADER + CELLS + b"q,r,1,2\n" + CELLS, 2, 3, None, "the row has not the 7 cells of the header"),
        (HEADER + CELLS + b"q,r,1,2,3,4,0,9\n" + CELLS, 2, 3, None, "the row has not the 7 cells of the header"),
        (HEADER + b'"two\nlines",r,1,2,3,4,0\n' + b"q,r,7,2,3,4,0\n" + CELLS, 2, 4, "helpfulness", "helpfulness is not a whole number from 0 to 4"),
        (HEADER + CELLS + b"q,r,high,2,3,4,0\n" + CELLS, 2, 3, "helpfulness", "helpfulness is a text, not a whole number from 0 to 4"),
        (HEADER + CELLS + b"q,r,,2,3,4,0\n" + CELLS, 2, 3, "helpfulness", "helpfulness is missing"),
        (HEADER + CELLS + b"\xff,r,1,2,3,4,0\n" + "é,r,1,2,3,4,0\n".encode(), 2, 3, None, "field prompt is not UTF-8"),
        (HEADER + CELLS + CELLS + b'"q,r,1,2,3,4,0\n', 2, 4, None, "the row has not the 7 cells of the header"),
    ],
)  # fmt: skip
def test_a_bad_row_of_a_csv_file_is_set_aside(
    tmp_path: Path, content: bytes, whole: int, where: int, field: str | None, reason: str
) -> None:
    rows, quarantine = through(tmp_path / "a.csv", "helpsteer", content)
    assert len(rows) == whole
    (entry,) = quarantine.rows
    assert (entry["line"], entry["field"], entry["reason"]) == (where, field, reason)


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.csv", b"", "is empty; its first line must name the columns"),
        ("a.csv", b"prompt,prompt\n1,2\n", "column 'prompt' appears twice"),
        ("a.csv", b"prompt,answer\nq,r\n", "has no column response, helpfulness"),
        ("a.parquet", b"PAR1 cut off", "is not a whole Parquet file"),
        ("a.xlsx", b"PK", "can't be read as a workbook"),
        ("a.txt", b"q", "its name must end in one of"),
        ("a.json", b"[]", "is not a JSON list of records, or is an empty one"),
    ],
)
def test_a_file_that_cannot_be_used_at_all_is_an_error_that_names_it(
    tmp_path: Path, name: str, content: bytes, reason: str
) -> None:
    with pytest.raises(FileError, match=reason) as error:
        through(tmp_path / name, "helpsteer", content)
    assert str(tmp_path / name) in str(error.value)


def test_a_bad_row_of_a_parquet_file_is_set_aside_by_its_row(tmp_path: Path) -> None:
    table = pa.Table.from_pylist([LABEL, LABEL | {"coherence": 9}, LABEL])
    pq.write_table(table, tmp_path / "a.parquet")
    quarantine = Quarantine()
    (read_,) = read(tmp_path / "a.parquet", "helpsteer", quarantine)
    assert len(read_) == 2
    assert [(e["line"], e["field"]) for e in quarantine.rows] == [(2, "coherence")]


def test_a_parquet_column_of_another_type_is_set_aside_by_field(tmp_path: Path) -> None:
    pq.write_table(pa.Table.from_pylist([LABEL | {"coherence": "good"}]), tmp_path / "a.parquet")
    quarantine = Quarantine()
    assert sum(map(len, read(tmp_path / "a.parquet", "helpsteer", quarantine))) == 0
    assert quarantine.counts == {"coherence is a text, not a whole number from 0 to 4": 1}


def task(**changes: Any) -> dict[str, Any]:
    results = [
        {"from_name": f"{a}_{n}", "to_name": "r", "type": "choices", "value": {"choices": ["3"]}}
        for a in ATTRIBUTES
        for n in (1, 2)
    ]
    annotation = {"completed_by": {"id": 7, "email": "someone@example.org"}, "lead_time": 61.5, "result": results}
    annotation["created_at"] = "2026-01-02T03:04:05.000001Z"
    data = {"prompt_id": "p", "response_1_id": "r1", "response_2_id": "r2"}
    return {"id": 1, "data": data, "annotations": [annotation], **changes}


def changed(**changes: Any) -> dict[str, Any]:
    return task(annotations=[task()["annotations"][0] | changes])


def result(value: Any, control: str = "helpfulness_1") -> dict[str, Any]:
    return {"from_name": control, "value": value}


def test_an_export_of_label_studio_gives_a_row_a_response_and_no_account(tmp_path: Path) -> None:
    rows, quarantine = through(tmp_path / "a.json", "label_studio", json.dumps([task()]).encode())
    assert quarantine.rows == []
    assert [(r["response_id"], r["annotator_id"], r["helpfulness"], r["desk"]) for r in rows] == [
        ("r1", "label-studio-7", 3, "label_studio"),
        ("r2", "label-studio-7", 3, "label_studio"),
    ]
    assert rows[0]["annotated_at"] == datetime(2026, 1, 2, 3, 4, 5, 1, UTC)
    assert "example.org" not in str(rows)


def test_stars_count_from_one_and_numbers_from_zero(tmp_path: Path) -> None:
    results = [result({"rating": 5}), result({"number": 2}, "coherence_1"), result({"choices": ["fail"]}, "safe_1")]
    rows, quarantine = through(tmp_path / "a.json", "label_studio", json.dumps([changed(result=results)]).encode())
    assert quarantine.rows == []
    assert [(r["helpfulness"], r["coherence"], r["safe"], r["verbosity"]) for r in rows] == [(4, 2, False, None)]


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ({"id": 2}, "the task has no data"),
        ("no task", "the task has no data"),
        (task(data={"prompt_id": "p"}), "the task's data have no response_1_id, response_2_id"),
        (task(annotations=None), "the task has no list of annotations"),
        (task(annotations=[3]), "the annotation has no list of results"),
        (changed(was_cancelled=True), "the annotator skipped the task"),
        (changed(result=[result({"choices": ["9"]})]), "helpfulness is not a whole number from 0 to 4"),
        (changed(result=[result({"rating": 0})]), "helpfulness is not a whole number from 0 to 4"),
        (changed(result=[result({"choices": ["3", "4"]})]), "helpfulness is a list, not a whole number from 0 to 4"),
        (changed(result=[result({"choices": ["good"]})]), "helpfulness is a text, not a whole number from 0 to 4"),
        (changed(result=[result({"choices": ["3"]}, "charm_1")]), "a result belongs to a control that is none of"),
        (changed(completed_by=None), "annotator_id is missing"),
        (changed(result=[result({"text": ["x"]}, "comment_1")]), "helpfulness and the other ratings are missing"),
    ],
)
def test_what_is_no_annotation_of_an_export_is_set_aside_by_its_task(tmp_path: Path, bad: Any, reason: str) -> None:
    rows, quarantine = through(tmp_path / "a.json", "label_studio", json.dumps([task(), bad, task()]).encode())
    assert len(rows) == 4
    assert {e["line"] for e in quarantine.rows} == {2}
    assert all(e["reason"].startswith(reason) for e in quarantine.rows)
    assert "example.org" not in str(quarantine.rows)


def test_an_export_that_is_cut_off_is_read_up_to_the_cut(tmp_path: Path) -> None:
    content = json.dumps([task(), task()]).encode()
    rows, quarantine = through(tmp_path / "a.json", "label_studio", content[: int(len(content) * 0.8)])
    assert len(rows) == 2
    assert "breaks off after 1 whole records" in quarantine.rows[0]["reason"]
    with pytest.raises(FileError, match="is not a JSON list of records"):
        through(tmp_path / "b.json", "label_studio", b"{}")


@pytest.mark.parametrize(
    ("row", "form"),
    [(GOOD, "disagreements"), (LABEL, "helpsteer"), (RATED, "annotations"), (CHOICE, "preference")],
)
def test_a_files_form_is_told_by_its_fields(tmp_path: Path, row: dict[str, Any], form: str) -> None:
    (tmp_path / "a.jsonl").write_bytes(lines(row))
    assert form_of(tmp_path / "a.jsonl") == form


def test_a_file_of_no_known_form_is_an_error_with_its_fields(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(lines({"text": "x"}))
    with pytest.raises(FileError, match=r"form can't be recognised by the fields of its first record \(text\)"):
        form_of(tmp_path / "a.jsonl")


def test_a_field_that_the_form_does_not_have_is_named_once(tmp_path: Path) -> None:
    rows, quarantine = through(tmp_path / "a.jsonl", "helpsteer", lines(LABEL | {"more": 1}, LABEL | {"more": "x"}))
    assert len(rows) == 2
    assert list(quarantine.ignored) == ["more"]


def test_a_file_that_cannot_be_written_leaves_nothing_and_what_was_there_stays(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("before")

    def breaking() -> Any:
        yield pa.Table.from_pylist([LABEL], schema=FORMS["helpsteer"].schema)
        raise OSError("no space left")

    with pytest.raises(OSError, match="no space left"):
        write(path, "helpsteer", breaking())
    assert path.read_text() == "before"
    assert [p.name for p in tmp_path.iterdir()] == ["a.jsonl"]


def test_memory_stays_flat_however_much_a_file_unpacks_to(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl.gz"
    with gzip.open(path, "wb", compresslevel=1) as file:
        for _ in range(40):
            file.write(LINE * 5_000)  # about 1 MB: the file is a thousandth of that
    quarantine, rows = Quarantine(), 0
    tracemalloc.start()
    for table in read(path, "disagreements", quarantine):
        rows += len(table)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert rows == 200_000
    assert peak < 8 * records.PIECE
