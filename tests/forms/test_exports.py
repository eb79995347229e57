"""Exports of annotation tools: the same ratings as plain annotations, whoever exported them; what is no rating is counted apart.

The shapes are those of label-studio-sdk 2.1.2's converter (JSON-MIN, CSV), argilla 2.8 (to_list, flat and nested, and its first version's
records), potato-annotation 2.12 (tabular and JSON lines) and its first version's, doccano 1.8 and Prodigy's db-out.
"""

import csv
import io
import json
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.forms import exports
from pipeline.forms.ratings import Habits, Quarantine, form_of, read
from pipeline.records import FileError
from pipeline.vocabulary import ATTRIBUTES

Row = dict[str, Any]


def ratings(levels: list[list[int]]) -> list[Row]:
    """Ratings of the responses A and B to each of some prompts by three people."""
    return [
        {
            "prompt_id": f"p{p}",
            "response_id": name,
            "annotator_id": f"u{who}",
            "comment": 'fine, "ok"',
            "flags": ["x", "y"],
            "safe": True,
        }
        | {a: (level + n) % 5 for n, a in enumerate(ATTRIBUTES)}
        for p, row in enumerate(levels)
        for (name, who), level in zip([(n, w) for n in "AB" for w in range(3)], row, strict=True)
    ]


def answers(row: Row, side: str = "") -> Row:
    """The answers of a rating by their questions."""
    return {f"{name}{side}": row[name] for name in (*ATTRIBUTES, "safe", "flags", "comment")}


def by_task(rows: list[Row]) -> list[tuple[str, str, Row, Row]]:
    """Prompt, person, and their ratings of A and B."""
    tasks: dict[tuple[str, str], dict[str, Row]] = defaultdict(dict)
    for row in rows:
        tasks[row["prompt_id"], row["annotator_id"]][row["response_id"]] = row
    return [(*names, both["A"], both["B"]) for names, both in tasks.items()]


def label_studio_min(rows: list[Row]) -> list[Row]:
    """JSON-MIN: choices as texts, stars and numbers as lists of one."""
    found = []
    for prompt, who, first, second in by_task(rows):
        said: Row = {}
        for side, row in (("_1", first), ("_2", second)):
            said |= {f"{a}{side}": str(row[a]) for a in ATTRIBUTES[:3]}
            said |= {
                f"complexity{side}": [{"number": row["complexity"]}],
                f"verbosity{side}": [{"rating": row["verbosity"] + 1}],
            }
            said |= {
                f"safe{side}": "pass",
                f"flags{side}": {"choices": row["flags"]},
                f"comment{side}": row["comment"],
            }
        data = {"prompt_id": prompt, "response_1_id": "A", "response_2_id": "B", "id": 1, "text": "hello"}
        found.append({**data, **said, "annotator": int(who[1:]), "annotation_id": len(found), "created_at": None, "updated_at": None,
                      "lead_time": 31.5})  # fmt: skip
    return found


def argilla_flat(rows: list[Row]) -> list[Row]:
    """Argilla's to_datasets: a record a response, the responses of everybody to a question in a list; a draft of somebody else."""
    records: dict[tuple[str, str], Row] = {}
    for row in rows:
        names = {"prompt_id": row["prompt_id"], "response_id": row["response_id"]}
        record = records.setdefault((row["prompt_id"], row["response_id"]), {"id": "x", "status": "completed", **names})
        for question, value in answers(row).items():
            for part, said in (("", value), (".users", row["annotator_id"]), (".status", "submitted")):
                record.setdefault(f"{question}.responses{part}", []).append(said)
    for record in records.values():
        for part, said in (("", 4), (".users", "drafter"), (".status", "draft")):
            record[f"helpfulness.responses{part}"] += [said]
    return list(records.values())


def argilla_first(rows: list[Row]) -> list[Row]:
    """Records of Argilla's first version, with the ids in their metadata."""
    records: dict[tuple[str, str], Row] = {}
    for row in rows:
        names = {"prompt_id": row["prompt_id"], "response_id": row["response_id"]}
        record = records.setdefault(
            (row["prompt_id"], row["response_id"]), {"fields": {"text": "x"}, "metadata": names, "responses": []}
        )
        values = {question: {"value": value} for question, value in answers(row).items()}
        record["responses"].append({"user_id": row["annotator_id"], "status": "submitted", "values": values})
    for record in records.values():
        record["responses"].append({"user_id": "bored", "status": "discarded", "values": {"helpfulness": {"value": 0}}})
    return list(records.values())


def prodigy(rows: list[Row]) -> list[Row]:
    """Prodigy's db-out: choices among options that name the attribute and its level; a task that was skipped."""
    found = [
        {
            "text": "hello", "meta": {"prompt_id": r["prompt_id"], "response_id": r["response_id"]}, "_input_hash": 1, "_task_hash": 2,
            "accept": [f"{a}:{r[a]}" for a in ATTRIBUTES], "answer": "accept", "_annotator_id": r["annotator_id"], "_timestamp": 1751000000,
            "safe": True, "flags": r["flags"], "comment": r["comment"],
        }
        for r in rows
    ]  # fmt: skip
    return [*found, found[0] | {"_annotator_id": "late", "answer": "ignore"}]


def potato(rows: list[Row]) -> list[Row]:
    """Potato's annotated instances, where the instance is a response and its fields come along."""
    return [
        {
            "instance_id": f"{r['prompt_id']}/{r['response_id']}", "user_id": r["annotator_id"], "prompt_id": r["prompt_id"],
            "response_id": r["response_id"],
            "labels": {a: {f"scale_{r[a]}": str(r[a])} for a in ATTRIBUTES} | {"safe": {"yes": "true"}, "flags": {"x": "true", "y": "true"}}
            | {"comment": {"text_box": r["comment"]}},
        }
        for r in rows
    ]  # fmt: skip


def potato_columns(rows: list[Row]) -> list[Row]:
    """Potato's tabular export: a column a scheme and label."""
    return [
        {"instance_id": "x", "user_id": r["annotator_id"], "prompt_id": r["prompt_id"], "response_id": r["response_id"]}
        | {f"{a}.{r[a]}": str(r[a]) for a in ATTRIBUTES}
        | {"safe.yes": "true", "flags.x": "true", "flags.y": "true", "comment.text_box": r["comment"]}
        for r in rows
    ]


def doccano(rows: list[Row]) -> list[Row]:
    """doccano's export of one annotator, whom a field names here."""
    return [
        {"id": n, "data": "hello", "prompt_id": r["prompt_id"], "response_id": r["response_id"], "annotator_id": r["annotator_id"],
         "label": [f"{a}: {r[a]}" for a in ATTRIBUTES] + ["safe: yes", "flags: x", "flags: y"], "Comments": [r["comment"]]}
        for n, r in enumerate(rows)
    ]  # fmt: skip


TOOLS: dict[str, tuple[str, Callable[[list[Row]], list[Row]], dict[str, int]]] = {
    "label_studio_min": ("label_studio_min", label_studio_min, {}),
    "argilla_flat": ("argilla", argilla_flat, {"a draft is no rating": 1}),
    "argilla_first": ("argilla", argilla_first, {"the annotator discarded the record": 1}),
    "prodigy": ("prodigy", prodigy, {"the annotator skipped the task": 0}),
    "potato": ("potato", potato, {}),
    "potato_columns": ("potato", potato_columns, {}),
    "doccano": ("doccano", doccano, {}),
}
"""By export: the tool, how it writes, and what it leaves out for each response (0: once)."""


def saved(path: Path, records: list[Row], kind: str) -> Path:
    """Write records as JSON lines, as a list, or as CSV with JSON in its cells."""
    if kind == "csv":
        text, names = io.StringIO(newline=""), list(dict.fromkeys(n for r in records for n in r))
        writer = csv.DictWriter(text, names)
        writer.writeheader()
        writer.writerows(
            [{k: json.dumps(v) if isinstance(v, list | dict) else v for k, v in r.items()} for r in records]
        )
        path.write_text(text.getvalue())
    elif kind == "json":
        path.write_text(json.dumps(records, indent=1))
    else:
        path.write_text("".join(json.dumps(r) + "\n" for r in records))
    return path


def read_back(path: Path, aside: Quarantine, habits: Habits | None = None) -> list[Row]:
    """The ratings of a file, in order, with what people answered."""
    tables = read(path, form_of(path), aside, habits=habits or Habits())
    rows = (
        pa.concat_tables(tables)
        .select([*("prompt_id", "response_id", "annotator_id"), *ATTRIBUTES, "safe", "flags", "comment"])
        .to_pylist()
    )
    return sorted(rows, key=lambda r: (r["prompt_id"], r["response_id"], r["annotator_id"]))


@pytest.mark.parametrize("name", TOOLS)
@settings(max_examples=15, deadline=None)
@given(
    levels=st.lists(st.lists(st.integers(0, 4), min_size=6, max_size=6), min_size=1, max_size=3),
    kind=st.sampled_from(["jsonl", "json", "csv"]),
)
def test_an_export_says_what_plain_annotations_say(
    tmp_path_factory: pytest.TempPathFactory, name: str, levels: list[list[int]], kind: str
) -> None:
    tool, write, left_out = TOOLS[name]
    rows, aside = ratings(levels), Quarantine()
    path = saved(tmp_path_factory.mktemp("export") / f"a.{kind}", write(rows), kind)
    assert form_of(path) == tool
    wanted = (
        [r | {"annotator_id": f"label-studio-{r['annotator_id'][1:]}"} for r in rows]
        if tool == "label_studio_min"
        else rows
    )
    found = read_back(path, aside)
    assert found == sorted(
        [{k: r[k] for k in found[0]} for r in wanted],
        key=lambda r: (r["prompt_id"], r["response_id"], r["annotator_id"]),
    )
    assert not aside.counts
    assert dict(aside.left_out) == {why: n * len(levels) * 2 or 1 for why, n in left_out.items()}


def test_argillas_nested_export_does_not_say_what_is_a_draft_and_is_told_of_once(tmp_path: Path) -> None:
    values = {a: [{"value": 2, "user_id": "u1"}] for a in ATTRIBUTES}
    records = [
        {
            "id": n,
            "fields": {},
            "metadata": {"prompt_id": "p", "response_id": n},
            "responses": values,
            "suggestions": {"helpfulness": {}},
        }
        for n in "AB"
    ]
    aside = Quarantine()
    assert len(read_back(saved(tmp_path / "a.json", records, "json"), aside)) == 2
    assert dict(aside.left_out) == {"a model's suggestion is no rating": 2}
    assert ["doesn't say which responses are drafts" in note for note in aside.notes] == [True]
    assert aside.read == 4


@pytest.mark.parametrize(
    ("name", "changed", "columns", "why"),
    [
        (
            "a.jsonl",
            {"response_id": None},
            {},
            r"doccano's record has no response_id; its fields are id, .*--columns response_id=FIELD",
        ),
        ("all.jsonl", {}, {}, "doccano's record doesn't say who rated"),
        ("a.jsonl", {"label": ["good"]}, {}, "none of its questions is called as an attribute"),
        ("a.jsonl", {"label": ["helpfulness: 1", "helpfulness: 2"]}, {}, r"helpfulness is a list, not a whole number"),
        ("a.jsonl", {"response_id": None}, {"response_id": "id"}, None),
        ("all.jsonl", {}, {"annotator_id": "data"}, None),
        ("a.jsonl", {"label": []}, {}, None),
    ],
)
def test_what_an_export_does_not_say_is_told_with_what_to_do(
    tmp_path: Path, name: str, changed: Row, columns: dict[str, str], why: str | None
) -> None:
    record: Row = {
        "id": 1,
        "data": "x",
        "prompt_id": "p",
        "response_id": "A",
        "label": [f"{a}: 1" for a in ATTRIBUTES],
    } | changed
    aside = Quarantine()
    path = saved(tmp_path / name, [{k: v for k, v in record.items() if v is not None}], "jsonl")
    list(read(path, form_of(path), aside, habits=Habits(columns)))
    reasons = [r["reason"] for r in aside.rows]
    assert len(reasons) == (why is not None or changed.get("label") == [])
    if why is not None:
        with pytest.raises(AssertionError, match=why):
            raise AssertionError(reasons[0])


JUNK = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-9, 9),
        st.floats(),
        st.text(max_size=3),
        st.sampled_from(["3", "²", "submitted"]),
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=2), st.dictionaries(st.text(max_size=3), inner, max_size=2)),
    max_leaves=4,
)


@pytest.mark.parametrize("name", TOOLS)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_whatever_stands_in_an_export_is_read_or_set_aside(
    tmp_path_factory: pytest.TempPathFactory, name: str, data: st.DataObject
) -> None:
    tool, write, _ = TOOLS[name]
    records = write(ratings([[0, 1, 2, 3, 4, 0]]))
    for _ in range(data.draw(st.integers(1, 3))):
        place: Any = records[data.draw(st.integers(0, len(records) - 1))]
        while isinstance(place, dict | list) and place:
            key = data.draw(st.sampled_from(sorted(place) if isinstance(place, dict) else range(len(place))))
            inner = place[key]
            if not isinstance(inner, dict | list) or not inner or data.draw(st.booleans()):
                place[key] = data.draw(JUNK)
                break
            place = inner
    aside = Quarantine()
    path = saved(tmp_path_factory.mktemp("junk") / "a.jsonl", records, "jsonl")
    rows = sum(map(len, read(path, tool, aside)))
    assert aside.read >= rows + aside.counts.total()
    assert all(row["reason"] for row in aside.rows)


def test_a_form_of_no_tool_is_refused_with_its_fields(tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"the fields of its first record \(question, score\)"):
        form_of(saved(tmp_path / "a.jsonl", [{"question": "q", "score": 1}], "jsonl"))
    assert exports.tool_of({"prompt_id": "p", "response_id": "r", "annotator_id": "a", "id": 1}) is None
