"""Desks: the simulated panel and the drop folder, with every kind of row that can't be used."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from openpyxl import Workbook

from pipeline.annotations.consensus import spreads
from pipeline.annotations.files import NotFinishedError, read_ratings, write_tasks
from pipeline.annotations.people import RATED_AGAIN
from pipeline.annotations.schema import TASKS
from pipeline.annotations.simulated import qualities, rate
from pipeline.annotations.tasks import escalated, tasks_of, wanted_at_first
from pipeline.forms.ratings import Habits
from pipeline.forms.rows import ANNOTATIONS
from pipeline.responses.schema import RESPONSE_PAIRS
from pipeline.settings import SimulatedDesk
from pipeline.vocabulary import ATTRIBUTES

PANEL = SimulatedDesk(kind="simulated")
GOOD = "The library lends books to the people of the town, and it keeps a list of what they have. You can ask for a card at the desk."
GIBBERISH = "Zorp lantern quintuple marzipan velocity ocelot Primat furlough xylem bracken tundra ossify quartz."


def tasks(n: int) -> pa.Table:
    rows = [
        {
            "prompt_id": f"p{i:03d}",
            "messages": [{"role": "user", "content": "What does the library of the town lend?"}],
            "response_1_id": f"r{i:03d}a",
            "response_1": GOOD,
            "response_2_id": f"r{i:03d}b",
            "response_2": GIBBERISH,
        }
        for i in range(n)
    ]
    return pa.Table.from_pylist(rows, schema=TASKS)


def test_tasks_are_blind_and_pair_the_responses_in_order() -> None:
    rows = [
        {
            "prompt_id": "p",
            "position": position,
            "response_id": f"r{position}",
            "generator": "secret",
            "response": f"t{position}",
        }
        for position in (2, 1)
    ]
    table = tasks_of(pa.Table.from_pylist(rows, schema=RESPONSE_PAIRS))
    assert table.schema.equals(TASKS)
    assert "secret" not in json.dumps(table.to_pylist())
    assert table.to_pylist()[0]["response_1_id"] == "r1"


def test_a_prompt_without_two_responses_is_an_error() -> None:
    rows = [{"prompt_id": "p", "position": 1, "response_id": "r1"}]
    with pytest.raises(ValueError, match="exactly two responses"):
        tasks_of(pa.Table.from_pylist(rows, schema=RESPONSE_PAIRS))


def test_the_panel_is_marked_and_rates_both_responses_by_the_same_people() -> None:
    given = tasks(30)
    ratings = rate(given, wanted_at_first(given, 3), 1, PANEL, 7).to_pandas()
    assert ratings["simulated"].all()
    assert (ratings["desk"] == "simulated").all()
    assert (ratings.groupby("response_id").size() == 3).all()
    people = ratings.groupby(["prompt_id", "response_id"])["annotator_id"].agg(lambda a: tuple(sorted(a)))
    assert (people.groupby("prompt_id").nunique() == 1).all()
    assert ratings[list(ATTRIBUTES)].min().min() >= 0
    assert ratings[list(ATTRIBUTES)].max().max() <= 4


def test_the_panel_prefers_sense_to_gibberish() -> None:
    good, bad = qualities([GOOD, GIBBERISH], ["What does the library of the town lend?"] * 2)
    assert good[0] > bad[0] + 1
    assert good[2] > bad[2] + 1


def test_a_rating_depends_on_the_response_and_the_annotator_alone() -> None:
    few, many = (rate(t, wanted_at_first(t, 3), 1, PANEL, 7).to_pandas() for t in (tasks(5), tasks(40)))
    merged = few.merge(many, on=["response_id", "annotator_id"], suffixes=("", "_many"))
    assert len(merged) == len(few)
    for attribute in ATTRIBUTES:
        assert (merged[attribute] == merged[f"{attribute}_many"]).all()


def test_only_a_wide_spread_asks_for_more_and_others_rate_it() -> None:
    given = tasks(200)
    first = rate(given, wanted_at_first(given, 3), 1, PANEL, 7)
    more = escalated(first, 2, 2)
    by_response = spreads(first).to_pandas().set_index("response_id")["spread"]
    assert set(more["response_id"].to_pylist()) == set(by_response[by_response > 2].index)
    assert 0.02 < len(more) / 400 < 0.5, "the panel disagrees now and then, as people do"
    second = rate(given, more, 2, PANEL, 7)
    assert len(second) == 2 * len(more)
    together = pa.concat_tables([first, second]).to_pandas()
    assert not together.duplicated(["response_id", "annotator_id"]).any()


def test_no_extra_annotators_means_no_escalation() -> None:
    given = tasks(50)
    assert len(escalated(rate(given, wanted_at_first(given, 3), 1, PANEL, 7), 2, 0)) == 0


def test_a_panel_that_is_too_small_is_an_error() -> None:
    given = tasks(1)
    with pytest.raises(ValueError, match="9 more annotators are asked for"):
        rate(given, wanted_at_first(given, 9), 1, SimulatedDesk(kind="simulated", annotators=5), 1)


# ------------------------------------------------------------------------------------------------------------------------ drop folder


def row(response: str, annotator: str, **changes: Any) -> dict[str, Any]:
    return {"response_id": response, "annotator_id": annotator, **dict.fromkeys(ATTRIBUTES, 3), **changes}


def whole(given: pa.Table, annotators: int = 3) -> list[dict[str, Any]]:
    responses = [r for t in given.to_pylist() for r in (t["response_1_id"], t["response_2_id"])]
    return [row(r, f"ann{n}") for r in responses for n in range(annotators)]


@pytest.fixture
def desk(tmp_path: Path) -> Path:
    given = tasks(2)
    write_tasks(given, wanted_at_first(given, 3), tmp_path)
    return tmp_path


def drop(desk: Path, name: str, rows: list[dict[str, Any]]) -> None:
    path = desk / "ratings" / name
    if path.suffix == ".parquet":
        pd.DataFrame(rows).to_parquet(path)
    elif path.suffix == ".csv":
        pd.DataFrame(rows).to_csv(path, index=False)
    else:
        path.write_text("".join(json.dumps(r) + "\n" for r in rows))


def collect(desk: Path) -> tuple[pa.Table, pa.Table]:
    return read_ratings(wanted_at_first(tasks(2), 3), 1, desk)


def test_tasks_go_out_with_what_is_wanted(desk: Path) -> None:
    lines = [json.loads(line) for line in (desk / "tasks.jsonl").read_text().splitlines()]
    assert [line["prompt_id"] for line in lines] == ["p000", "p001"]
    assert lines[0]["responses"][0] == {"response_id": "r000a", "response": GOOD, "ratings_wanted": 3, "not_by": []}


@pytest.mark.parametrize("ending", ["jsonl", "csv", "parquet"])
def test_ratings_come_back_from_every_kind_of_file(desk: Path, ending: str) -> None:
    extra = {
        "safe": "true",
        "confidence": 2,
        "comment": "fine",
        "lead_time_s": 31.5,
        "annotated_at": "2026-01-02T03:04:05Z",
    }
    drop(desk, f"a.{ending}", [r | extra for r in whole(tasks(2))])
    annotations, quarantine = collect(desk)
    assert annotations.schema.equals(ANNOTATIONS)
    assert len(annotations) == 12
    assert len(quarantine) == 0
    first = annotations.to_pylist()[0]
    assert (first["helpfulness"], first["safe"], first["confidence"], first["comment"]) == (3, True, 2, "fine")
    assert first["lead_time_s"] == 31.5
    assert first["annotated_at"].isoformat() == "2026-01-02T03:04:05+00:00"
    assert not first["simulated"]


@pytest.mark.parametrize(
    ("bad", "field", "reason"),
    [
        (row("r000a", "x", helpfulness=7), "helpfulness", "is not a whole number from 0 to 4"),
        (row("r000a", "x", coherence=-1), "coherence", "is not a whole number from 0 to 4"),
        (row("r000a", "x", verbosity=2.5), "verbosity", "is a number with a fraction, not a whole number from 0 to 4"),
        (row("r000a", "x", complexity="high"), "complexity", "is a text, not a whole number from 0 to 4"),
        (row("r000a", "x", correctness=True), "correctness", "is true or false, not a whole number from 0 to 4"),
        (row("r000a", "x", confidence=9), "confidence", "is not a whole number from 1 to 3"),
        (row("r000a", "x", helpfulness=None), "helpfulness", "is missing"),
        (row("r000a", None), "annotator_id", "is missing"),  # type: ignore[arg-type]
        (row("r000a", "  "), "annotator_id", "is blank"),
        (row(None, "x"), "response_id", "is missing"),  # type: ignore[arg-type]
        (row("elsewhere", "x"), "response_id", "names no response of these tasks"),
        (row("r000a", "x", prompt_id="p001"), "prompt_id", "names another prompt than the response's"),
        (row("r000a", "ann9"), "response_id", "names a response that has all the ratings that were asked for"),
        (row("r000a", "x", response_id=["r000a"]), "response_id", "is not a text"),
        (row("r000a", "x", lead_time_s=[1, 2]), "lead_time_s", "is no time in seconds"),
        (row("r000a", "x", lead_time_s=-5), "lead_time_s", "is negative, and no time can be"),
        (
            row("r000a", "x", annotated_at="yesterday"),
            "annotated_at",
            "is no time in ISO 8601, no date, and no seconds since 1970",
        ),
        (
            row("r000a", "x", safe="perhaps"),
            "safe",
            "is none of true, yes, safe, pass, 1 and false, no, unsafe, fail, 0",
        ),
        (row("r000a", "x", comment="cut \ud83d"), "comment", "holds half of a character (a lone surrogate)"),
        (row("r000a", "x", flags=["\ud83d"]), "flags", "holds half of a character (a lone surrogate)"),
    ],
)
def test_a_row_that_cannot_be_used_is_set_aside_with_file_line_and_reason(
    desk: Path, bad: dict[str, Any], field: str, reason: str
) -> None:
    drop(desk, "a.jsonl", whole(tasks(2)))
    drop(desk, "b.jsonl", [bad])
    annotations, quarantine = collect(desk)
    assert len(annotations) == 12
    (entry,) = quarantine.to_pylist()
    assert (entry["file"], entry["line"], entry["field"], entry["reason"]) == ("b.jsonl", 1, field, f"{field} {reason}")
    assert json.loads(entry["row"]).get("complexity") == bad.get("complexity"), "as it stood in the file"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("b.jsonl", b'{"response_id": "r000a", "annot'),
        ("b.jsonl", b"[1, 2]\n"),
        ("b.jsonl", b"\xff\xfe not UTF-8\n"),
        ("b.parquet", b"PAR1 cut off"),
        ("b.csv", b'response_id,annotator_id\n"r000a,x\n'),
        ("b.csv", b"response_id,annotator_id\nr000a,x,too,many\n"),
    ],
)
def test_a_broken_file_is_set_aside_and_loses_nothing_else(desk: Path, name: str, content: bytes) -> None:
    drop(desk, "a.jsonl", whole(tasks(2)))
    (desk / "ratings" / name).write_bytes(content)
    annotations, quarantine = collect(desk)
    assert len(annotations) == 12
    assert quarantine["file"].to_pylist() == [name]


def test_a_person_counts_once_for_a_response_with_the_last_rating(desk: Path) -> None:
    drop(desk, "a.jsonl", whole(tasks(2)))
    drop(desk, "b.jsonl", [row("r000a", " ANN0 ", helpfulness=0)])
    annotations, quarantine = collect(desk)
    rated = {(r["response_id"], r["annotator_id"]): r["helpfulness"] for r in annotations.to_pylist()}
    assert len(rated) == len(annotations) == 12
    assert (rated["r000a", "ann0"], rated["r000a", "ann1"]) == (0, 3)
    entries = quarantine.to_pylist()
    assert [(e["file"], e["line"], e["reason"]) for e in entries] == [
        ("a.jsonl", 1, RATED_AGAIN),
        ("ratings", None, "annotator_id: one person is taken for ann0, ANN0, and called ann0"),
    ]


def test_one_person_spelled_in_three_ways_is_one_and_three_people_are_three(desk: Path) -> None:
    responses = [r for t in tasks(2).to_pylist() for r in (t["response_1_id"], t["response_2_id"])]
    drop(desk, "1.csv", [row(r, name) for r in responses for name in ("1.0", "Anna")])  # type: ignore[arg-type]
    drop(desk, "2.jsonl", [row(r, name) for r in responses for name in (1, "anna ", "ANNA")])  # type: ignore[arg-type]
    with pytest.raises(NotFinishedError, match="4 of 4 responses lack 4 ratings"):
        collect(desk)
    drop(desk, "3.jsonl", [row(r, 2) for r in responses])  # type: ignore[arg-type]
    annotations, quarantine = collect(desk)
    assert set(annotations["annotator_id"].to_pylist()) == {"1.0", "Anna", "2"}
    assert "annotator_id: one person is taken for 1.0, 1, and called 1.0" in quarantine["reason"].to_pylist()


def test_what_people_write_of_a_response_is_understood(desk: Path) -> None:
    words = ["safe", "unsafe", "Unsafe", "yes", "no", "1.0", "0", "TRUE", "fail", "", "false", "pass"]
    flags = ["pii", "pii|code", "", "pii; code", '["pii"]', *[""] * 7]
    times = ["31.2", "0:31", "31s", "", "31,2", "nan", *[""] * 6]
    moments = ["2024-05-01 10:00:00", "05/06/2024", "13/06/2024 10:00", "1714557600", "1714557600000", *[""] * 7]
    rows = [
        r | {"safe": safe, "flags": flag, "lead_time_s": time, "annotated_at": at}
        for r, safe, flag, time, at in zip(whole(tasks(2)), words, flags, times, moments, strict=True)
    ]
    drop(desk, "a.csv", rows)
    annotations, quarantine = collect(desk)
    assert len(quarantine) == 0
    found = annotations.to_pylist()
    assert [r["safe"] for r in found] == [True, False, False, True, False, True, False, True, False, None, False, True]
    assert [r["flags"] for r in found[:6]] == [["pii"], ["pii", "code"], [], ["pii", "code"], ["pii"], []]
    assert [r["lead_time_s"] for r in found[:6]] == pytest.approx([31.2, 31, 31, None, 31.2, None])
    assert [r["annotated_at"] and r["annotated_at"].isoformat()[:16] for r in found[:6]] == [
        "2024-05-01T10:00", "2024-06-05T00:00", "2024-06-13T10:00", "2024-05-01T10:00", "2024-05-01T10:00", None
    ]  # fmt: skip


def test_dates_that_may_be_read_two_ways_are_set_aside(desk: Path) -> None:
    drop(desk, "a.csv", [r | {"annotated_at": ""} for r in whole(tasks(2))])
    drop(desk, "b.csv", [row("r000a", "x", annotated_at="05/06/2024")])
    _, quarantine = collect(desk)
    assert "may be read two ways (05/06)" in quarantine["reason"][0].as_py()


def test_a_file_that_is_not_read_is_named(desk: Path) -> None:
    drop(desk, "a.jsonl", whole(tasks(2)))
    (desk / "ratings" / "ratings.docx").write_bytes(b"PK")
    (desk / "ratings" / ".~lock.a.csv#").write_text("")
    annotations, quarantine = collect(desk)
    assert len(annotations) == 12
    assert quarantine["file"].to_pylist() == ["ratings.docx"]
    assert "its name ends in none of .jsonl," in quarantine["reason"][0].as_py()


def test_a_label_studio_export_is_read(desk: Path) -> None:
    export = [
        {
            "data": {"prompt_id": t["prompt_id"], "response_1_id": t["response_1_id"], "response_2_id": t["response_2_id"]},
            "annotations": [
                {"completed_by": n, "created_at": "2026-01-02T03:04:05Z", "result": [
                    {"from_name": f"{a}_{position}", "value": {"choices": ["3"]}} for a in ATTRIBUTES for position in (1, 2)
                ]}
                for n in range(3)
            ],
        }
        for t in tasks(2).to_pylist()
    ]  # fmt: skip
    (desk / "ratings" / "export.json").write_text(json.dumps(export))
    annotations, _ = collect(desk)
    assert set(annotations["annotator_id"].to_pylist()) == {f"label-studio-{n}" for n in range(3)}
    assert set(annotations["desk"].to_pylist()) == {"files"}


def test_a_teams_own_names_and_scale_are_read_by_the_profiles_table(desk: Path) -> None:
    book = Workbook()
    assert book.active is not None
    given = [r | dict.fromkeys(ATTRIBUTES, 5) for r in whole(tasks(2))]
    book.active.append(["Item", "Rater", *ATTRIBUTES])
    for r in given:
        book.active.append([r["response_id"], r["annotator_id"], *(r[a] for a in ATTRIBUTES)])
    book.save(desk / "ratings" / "team.xlsx")
    wanted = wanted_at_first(tasks(2), 3)
    habits = Habits({"response_id": "Item", "annotator_id": "Rater"}, {"all": {str(n + 1): n for n in range(5)}})
    annotations, quarantine = read_ratings(wanted, 1, desk, habits)
    assert (len(annotations), len(quarantine)) == (12, 0)
    assert set(annotations["helpfulness"].to_pylist()) == {4}
    with pytest.raises(NotFinishedError, match="has no column response_id, annotator_id"):
        read_ratings(wanted, 1, desk)
    with pytest.raises(NotFinishedError, match="another scale than 0 to 4: 12 rows have one above 4"):
        read_ratings(wanted, 1, desk, Habits(habits.columns))


def test_an_export_of_a_tool_is_read_without_the_prompt_which_is_known(desk: Path) -> None:
    lines = [
        {"_task_hash": 1, "answer": "accept", "_annotator_id": r["annotator_id"], "meta": {"response_id": r["response_id"]},
         "accept": [f"{a}:3" for a in ATTRIBUTES]}
        for r in whole(tasks(2))
    ]  # fmt: skip
    drop(desk, "prodigy.jsonl", lines)
    annotations, quarantine = collect(desk)
    assert (len(annotations), len(quarantine)) == (12, 0)
    assert set(annotations["annotator_id"].to_pylist()) == {"ann0", "ann1", "ann2"}


def test_unfinished_work_says_what_is_missing_and_where_it_is_expected(desk: Path) -> None:
    drop(desk, "a.jsonl", whole(tasks(2))[:10])
    with pytest.raises(NotFinishedError, match="1 of 4 responses lack 2 ratings") as unfinished:
        collect(desk)
    assert str(desk / "ratings") in str(unfinished.value)


def test_while_ratings_are_missing_the_rows_that_cannot_be_used_are_named(desk: Path) -> None:
    rows = whole(tasks(2))
    drop(desk, "a.jsonl", [*rows[:-1], rows[-1] | {"helpfulness": 7}])
    with pytest.raises(NotFinishedError, match=r"- a\.jsonl:12: helpfulness is not a whole number from 0 to 4"):
        collect(desk)
    (entry,) = map(json.loads, (desk / "quarantine.jsonl").read_text().splitlines())
    assert (entry["file"], entry["line"]) == ("a.jsonl", 12)
    drop(desk, "a.jsonl", rows)
    assert len(collect(desk)[0]) == 12
    assert not (desk / "quarantine.jsonl").exists()


def test_an_annotator_of_the_first_round_is_not_taken_in_the_second(desk: Path) -> None:
    wanted = pa.Table.from_pylist(
        [{"prompt_id": "p000", "response_id": "r000a", "ratings": 1, "seen_by": ["ann0"], "spread": 3}],
        schema=escalated(ANNOTATIONS.empty_table(), 2, 2).schema,
    )
    drop(desk, "a.jsonl", [row("r000a", "ann0"), row("r000a", "ann7")])
    annotations, quarantine = read_ratings(wanted, 2, desk)
    assert annotations["annotator_id"].to_pylist() == ["ann7"]
    assert quarantine["reason"].to_pylist() == [
        "annotator_id names an annotator who has rated this response in an earlier round"
    ]


def test_strangers_comments_are_kept_as_they_are(desk: Path) -> None:
    comment = "<script>alert(1)</script> =HYPERLINK(1) ../../etc"
    drop(desk, "a.jsonl", [r | {"comment": comment} for r in whole(tasks(2))])
    assert set(collect(desk)[0]["comment"].to_pylist()) == {comment}
    assert np.isfinite(collect(desk)[0]["helpfulness"].to_numpy()).all()
