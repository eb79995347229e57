"""Desk `files`: tasks go out as a JSONL file, ratings come back as files in a folder, of all kinds that `forms.ratings` reads.

A file's rows have the columns response_id, annotator_id and the five attributes, or what the profile calls them; prompt_id, safe, confidence,
flags, comment, lead_time_s and annotated_at may be there. Or it is the export of an annotation tool. A row that can't be used goes to the
quarantine with file, line, field and reason; the rest goes on.
"""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from pipeline.annotations.people import RATED_AGAIN, People, stands
from pipeline.forms import ratings as formats
from pipeline.forms.ratings import FORMS, READ, USUAL_HABITS, Habits, Quarantine
from pipeline.forms.rows import ANNOTATIONS
from pipeline.records import FileError
from pipeline.vocabulary import ATTRIBUTES

DESK = replace(
    FORMS["annotations"],
    fields={
        **FORMS["annotations"].fields,
        "prompt_id": replace(FORMS["annotations"].fields["prompt_id"], required=False),
        **{a: replace(FORMS["annotations"].fields[a], required=True) for a in ATTRIBUTES},
    },
)
"""The form `annotations` as annotators of the desk give it: the prompt is known, and all five attributes are needed."""
TASKS, RATINGS, ASIDE = "tasks.jsonl", "ratings", "quarantine.jsonl"
NAMED = 5
"""Rows in quarantine that an error names."""
_NULLABLE = {pa.int8(): pd.Int8Dtype(), pa.bool_(): pd.BooleanDtype()}


class NotFinishedError(RuntimeError):
    """Annotators are still at work; the message says how many tasks lack ratings, and where they are expected."""


def write_tasks(tasks: pa.Table, wanted: pa.Table, folder: Path) -> Path:
    """Write what annotators are asked as `tasks.jsonl`, one task a line, and make the folder for their ratings. The file's path."""
    asked = {row["response_id"]: row for row in wanted.to_pylist()}
    lines = []
    for task in tasks.to_pylist():
        responses = [
            {
                "response_id": task[f"response_{n}_id"],
                "response": task[f"response_{n}"],
                **_asked(asked, task[f"response_{n}_id"]),
            }
            for n in (1, 2)
        ]
        if any(r["ratings_wanted"] for r in responses):
            lines.append({"prompt_id": task["prompt_id"], "messages": task["messages"], "responses": responses})
    (folder / RATINGS).mkdir(parents=True, exist_ok=True)
    return _write_lines(folder / TASKS, lines)


def _write_lines(path: Path, rows: list[dict[str, Any]]) -> Path:
    """Write rows as JSON lines, whole or not at all; the path."""
    part = path.with_name(f".{path.name}")
    part.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return part.replace(path)


def _asked(asked: dict[str, dict[str, Any]], response: str) -> dict[str, Any]:
    row = asked.get(response)
    return {"ratings_wanted": row["ratings"] if row else 0, "not_by": row["seen_by"] if row else []}


def read_ratings(
    wanted: pa.Table, round_: int, folder: Path, habits: Habits = USUAL_HABITS
) -> tuple[pa.Table, pa.Table]:
    """Ratings in a folder for WANTED: annotations in the schema ANNOTATIONS, and the quarantine in the schema QUARANTINE.

    Files are read as `python -m pipeline.annotations` reads them. Raises `NotFinishedError` while a response has fewer ratings than wanted,
    with the first rows that can't be used; all of them stand in `quarantine.jsonl` beside the tasks.
    """
    frames, aside, place = list[pd.DataFrame](), Quarantine(), folder / RATINGS
    for path in sorted(p for p in place.glob("*") if p.is_file()) if place.is_dir() else []:
        frames += _frames(path, aside, habits)
    frame = (
        pd.concat(frames, ignore_index=True)
        if frames
        else ANNOTATIONS.empty_table().to_pandas().assign(_file="", _line=None)
    )
    good = _usable(frame, wanted, aside)
    counts = good["response_id"].value_counts()
    open_ = [
        (r, n - int(counts.get(r, 0)))
        for r, n in zip(*(wanted[c].to_pylist() for c in ("response_id", "ratings")), strict=True)
    ]
    lacking = [(r, n) for r, n in open_ if n > 0]
    if aside.rows:
        _write_lines(folder / ASIDE, aside.rows)
    else:
        (folder / ASIDE).unlink(missing_ok=True)
    if lacking:
        first = sorted(aside.rows, key=lambda e: e["line"] is not None)  # what concerns a whole file
        named = "".join(f"\n- {e['file']}:{e['line'] or ''}: {e['reason']}" for e in first[:NAMED])
        where = (
            f"{len(aside.rows)} rows are in quarantine ({folder / ASIDE})" if aside.rows else "no row is in quarantine"
        )
        raise NotFinishedError(
            f"Round {round_} is not finished: {len(lacking)} of {len(wanted)} responses lack "
            f"{sum(n for _, n in lacking)} ratings in all (the first is {lacking[0][0]}); {len(good)} ratings are "
            f"usable, {where}. The tasks are in {folder / TASKS}. Put the annotators' files ({', '.join(formats.ENDINGS)}) "
            f"into {place} and run this step again.{named}"
        )
    return _annotations(good, wanted, round_), aside.table()


def _frames(path: Path, aside: Quarantine, habits: Habits) -> list[pd.DataFrame]:
    """Rows of a file in the columns of ANNOTATIONS, each with its `_file` and `_line`; what can't be read is set aside, a whole file too."""
    if not path.name.lower().endswith(formats.ENDINGS):
        if not path.name.startswith((".", "~")):
            aside.add(
                path.name,
                None,
                None,
                f"the file is not read: its name ends in none of {', '.join(formats.ENDINGS)}",
                None,
            )
        return []
    try:
        return [
            table.to_pandas(types_mapper=_NULLABLE.get).assign(_file=path.name, _line=numbers())
            for table, numbers in formats.numbered(path, _form_of(path, habits), DESK, aside, habits=habits)
        ]
    except FileError as error:
        aside.add(path.name, None, None, f"the file can't be read: {error}", None)
        return []


def _form_of(path: Path, habits: Habits) -> str:
    """The form of a file that holds ratings: an export's, else that of annotations."""
    try:
        form = formats.form_of(path, habits.columns)
    except FileError:
        return DESK.name
    return form if form in READ else DESK.name


def _usable(frame: pd.DataFrame, wanted: pa.Table, aside: Quarantine) -> pd.DataFrame:
    """Rows that can be used, each person's last for a response; the others are set aside under the first reason that holds."""
    names = wanted["response_id"].to_pylist()
    prompts = dict(zip(names, wanted["prompt_id"].to_pylist(), strict=True))
    earlier = wanted["seen_by"].to_pylist()
    people = People(sorted({a for by in earlier for a in by}))
    frame = frame.assign(
        annotator_id=people.called(pa.chunked_array([pa.array(frame["annotator_id"], pa.string())])).to_pylist()
    )
    seen = {(r, a) for r, by in zip(names, earlier, strict=True) for a in by}
    rated = pd.Series(
        [pair in seen for pair in zip(frame["response_id"], frame["annotator_id"], strict=True)],
        frame.index,
        dtype=bool,
    )
    checks: list[tuple[str, str, Any]] = [
        ("response_id", "names no response of these tasks", ~frame["response_id"].isin(list(prompts))),
        (
            "prompt_id",
            "names another prompt than the response's",
            frame["prompt_id"].notna() & (frame["prompt_id"] != frame["response_id"].map(prompts)),
        ),
        ("annotator_id", "names an annotator who has rated this response in an earlier round", rated),
    ]
    bad = pd.Series(False, index=frame.index)
    for field, reason, broken in checks:
        bad |= _set_aside(frame, broken & ~bad, f"{field} {reason}", aside)
    rest = frame.loc[~bad]
    columns = {
        "prompt_id": rest["response_id"].map(prompts),
        **{c: rest[c] for c in ("response_id", "annotator_id", "annotated_at")},
    }
    last = pd.Series(stands(pa.table({c: pa.Array.from_pandas(v) for c, v in columns.items()})), rest.index)
    bad |= _set_aside(frame, (~last).reindex(frame.index, fill_value=False), RATED_AGAIN, aside, fault=False)
    number = frame.loc[~bad].groupby("response_id").cumcount().reindex(frame.index, fill_value=0)
    most = frame["response_id"].map(dict(zip(names, wanted["ratings"].to_pylist(), strict=True))).astype(float)
    bad |= _set_aside(
        frame,
        ~bad & (number >= most),
        "response_id names a response that has all the ratings that were asked for",
        aside,
    )
    for called, spelled in people.spelled.items():
        one = f"annotator_id: one person is taken for {', '.join(spelled)}, and called {called}"
        aside.add(RATINGS, None, "annotator_id", one, None, fault=False)
    usable: pd.DataFrame = frame.loc[~bad]
    return usable


def _set_aside(frame: pd.DataFrame, broken: Any, reason: str, aside: Quarantine, fault: bool = True) -> Any:
    broken = broken.astype(bool)
    for row in frame.loc[broken].to_dict("records"):
        kept = {
            k: v for k, v in row.items() if not k.startswith("_") and (isinstance(v, list | np.ndarray) or pd.notna(v))
        }
        aside.add(row["_file"], row["_line"], reason.partition(" ")[0], reason, kept, fault)
    return broken


def _annotations(good: pd.DataFrame, wanted: pa.Table, round_: int) -> pa.Table:
    prompts = dict(zip(wanted["response_id"].to_pylist(), wanted["prompt_id"].to_pylist(), strict=True))
    table = pa.Table.from_pandas(good[ANNOTATIONS.names], schema=ANNOTATIONS, preserve_index=False)
    flags = pa.array([[] if f is None else f for f in table["flags"].to_pylist()], ANNOTATIONS.field("flags").type)
    said = {
        "prompt_id": pa.array([prompts[r] for r in table["response_id"].to_pylist()], pa.string()),
        "round": pa.array([round_] * len(table), pa.int8()),
        "flags": flags,
        "desk": pa.array(["files"] * len(table)),
        "simulated": pa.array([False] * len(table)),
    }
    columns = {name: said.get(name, table[name]) for name in ANNOTATIONS.names}
    return pa.table(columns, schema=ANNOTATIONS).sort_by(
        [(c, "ascending") for c in ("prompt_id", "response_id", "annotator_id")]
    )
