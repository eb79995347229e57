"""Desk `files`: tasks go out as a JSONL file, ratings come back as Parquet, JSONL or CSV files (gzipped or not) in a folder.

A file's rows have the columns response_id, annotator_id and the five attributes; prompt_id, safe, confidence, flags, comment, lead_time_s and
annotated_at may be there. A row that can't be used goes to the quarantine with file, line, field and reason; the rest goes on.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from pipeline.forms.rows import ANNOTATIONS, QUARANTINE
from pipeline.records import ENDINGS, FileError, Unreadable, records, storable, unstorable
from pipeline.vocabulary import ATTRIBUTES

REQUIRED = ("response_id", "annotator_id", *ATTRIBUTES)
KNOWN = (*REQUIRED, "prompt_id", "safe", "confidence", "flags", "comment", "lead_time_s", "annotated_at")
TASKS, RATINGS, ASIDE = "tasks.jsonl", "ratings", "quarantine.jsonl"
NAMED = 5
"""Rows in quarantine that an error names."""


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


def read_ratings(wanted: pa.Table, round_: int, folder: Path) -> tuple[pa.Table, pa.Table]:
    """Ratings in a folder for WANTED: annotations in the schema ANNOTATIONS, and the quarantine in the schema QUARANTINE.

    Raises `NotFinishedError` while a response has fewer ratings than wanted, with the first rows that can't be used; all of them stand in
    `quarantine.jsonl` beside the tasks.
    """
    frames, quarantine = [], list[dict[str, Any]]()
    place = folder / RATINGS
    for path in sorted(p for p in place.glob("*") if p.name.lower().endswith(ENDINGS)) if place.is_dir() else []:
        rows = list(_rows(path, quarantine))
        if rows:
            frames.append(pd.DataFrame(rows, dtype=object))
    frame = pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=["_file", "_line"], dtype=object)
    good = _usable(frame, wanted, quarantine)
    counts = good["response_id"].value_counts()
    open_ = [
        (r, n - int(counts.get(r, 0)))
        for r, n in zip(*(wanted[c].to_pylist() for c in ("response_id", "ratings")), strict=True)
    ]
    lacking = [(r, n) for r, n in open_ if n > 0]
    if quarantine:
        _write_lines(folder / ASIDE, quarantine)
    else:
        (folder / ASIDE).unlink(missing_ok=True)
    if lacking:
        named = "".join(f"\n- {e['file']}:{e['line'] or ''}: {e['reason']}" for e in quarantine[:NAMED])
        aside = (
            f"{len(quarantine)} rows are in quarantine ({folder / ASIDE})" if quarantine else "no row is in quarantine"
        )
        raise NotFinishedError(
            f"Round {round_} is not finished: {len(lacking)} of {len(wanted)} responses lack "
            f"{sum(n for _, n in lacking)} ratings in all (the first is {lacking[0][0]}); {len(good)} ratings are "
            f"usable, {aside}. The tasks are in {folder / TASKS}. Put the annotators' files ({', '.join(ENDINGS)}) "
            f"into {place} and run this step again.{named}"
        )
    return _annotations(good, wanted, round_), pa.Table.from_pylist(quarantine, schema=QUARANTINE)


def _rows(path: Path, quarantine: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Rows of a file, each with its `_file` and `_line`; what can't be read goes to the quarantine."""
    try:
        for line, row in records(path):
            if isinstance(row, dict):
                given = {k: v for k, v in row.items() if v not in ("", None)}
                if wrong := _wrong(given):
                    quarantine.append(_entry(path.name, line, wrong[0], " ".join(wrong), given))
                else:
                    yield {**given, "_file": path.name, "_line": line}
            else:
                reason, text = (
                    (row.reason, row.text) if isinstance(row, Unreadable) else ("the row is not a record", row)
                )
                quarantine.append(_entry(path.name, line, None, reason, text))
    except FileError as error:
        quarantine.append(_entry(path.name, None, None, f"the file can't be read: {error}", None))


def _wrong(row: dict[str, Any]) -> tuple[str, str] | None:
    """A field that can't be looked at any further, and what is wrong with it: a list where one value belongs, half of a character."""
    for name in KNOWN:
        value = row.get(name)
        parts = value if name == "flags" and isinstance(value, list) else [value]
        if any(isinstance(part, list | dict) for part in parts):
            return name, "is a list or an object, not one value"
        if fault := next((f for part in parts if isinstance(part, str) and (f := unstorable(part))), None):
            return name, fault
    return None


def _usable(frame: pd.DataFrame, wanted: pa.Table, quarantine: list[dict[str, Any]]) -> pd.DataFrame:
    """Rows that can be used, with ratings as whole numbers; the others go to the quarantine under the first reason that holds."""
    for name in KNOWN:
        if name not in frame:
            frame[name] = None
    read = frame  # as it stood in the files
    prompts = dict(zip(wanted["response_id"].to_pylist(), wanted["prompt_id"].to_pylist(), strict=True))
    seen = {
        (r, a)
        for r, by in zip(wanted["response_id"].to_pylist(), wanted["seen_by"].to_pylist(), strict=True)
        for a in by
    }
    checks: list[tuple[str, str, Any]] = [
        ("response_id", "is missing", frame["response_id"].isna()),
        (
            "annotator_id",
            "is missing",
            frame["annotator_id"].isna() | (frame["annotator_id"].astype(str).str.strip() == ""),
        ),
        ("response_id", "names no response of these tasks", ~frame["response_id"].isin(list(prompts))),
        (
            "prompt_id",
            "names another prompt than the response's",
            frame["prompt_id"].notna() & (frame["prompt_id"] != frame["response_id"].map(prompts)),
        ),
    ]
    for name, low, high, needed in [*((a, 0, 4, True) for a in ATTRIBUTES), ("confidence", 1, 3, False)]:
        numbers = pd.to_numeric(
            frame[name].where(~frame[name].map(lambda v: isinstance(v, bool)), "x"), errors="coerce"
        )
        given = frame[name].notna()
        if needed:
            checks.append((name, "is missing", ~given))
        fits = (numbers == np.floor(numbers)) & numbers.between(low, high)
        checks.append((name, f"is not a whole number from {low} to {high}", given & ~fits))
        frame = frame.assign(**{name: numbers})
    pairs = list(zip(frame["response_id"], frame["annotator_id"].astype(str).str.strip(), strict=True))
    frame = frame.assign(annotator_id=[a for _, a in pairs])
    checks.append(
        (
            "annotator_id",
            "names an annotator who has rated this response in an earlier round",
            pd.Series([p in seen for p in pairs], index=frame.index),
        )
    )
    bad = pd.Series(False, index=frame.index)
    for field, reason, broken in checks:
        bad |= _set_aside(read, broken & ~bad, field, reason, quarantine)
    twice = frame.loc[~bad].duplicated(["response_id", "annotator_id"]).reindex(frame.index, fill_value=False)
    bad |= _set_aside(read, twice, "annotator_id", "names an annotator who has rated this response already", quarantine)
    number = frame.loc[~bad].groupby("response_id").cumcount().reindex(frame.index, fill_value=0)
    most = frame["response_id"].map(
        dict(zip(wanted["response_id"].to_pylist(), wanted["ratings"].to_pylist(), strict=True))
    )
    bad |= _set_aside(
        read,
        ~bad & (number >= most),
        "response_id",
        "names a response that has all the ratings that were asked for",
        quarantine,
    )
    usable: pd.DataFrame = frame.loc[~bad]
    return usable


def _set_aside(frame: pd.DataFrame, broken: Any, field: str, reason: str, quarantine: list[dict[str, Any]]) -> Any:
    broken = broken.astype(bool)
    for row in frame.loc[broken].to_dict("records"):
        kept = {k: v for k, v in row.items() if not str(k).startswith("_") and v is not None and v == v}
        quarantine.append(_entry(row["_file"], row["_line"], field, f"{field} {reason}", kept))
    return broken


def _entry(file: str, line: int | None, field: str | None, reason: str, row: Any) -> dict[str, Any]:
    text = None if row is None else storable(json.dumps(row, ensure_ascii=False, default=str)[:2000])
    return {"file": file, "line": line, "field": field, "reason": reason, "row": text}


def _annotations(good: pd.DataFrame, wanted: pa.Table, round_: int) -> pa.Table:
    prompts = dict(zip(wanted["response_id"].to_pylist(), wanted["prompt_id"].to_pylist(), strict=True))
    rows = [
        {
            "prompt_id": prompts[row["response_id"]],
            "response_id": row["response_id"],
            "annotator_id": row["annotator_id"],
            "round": round_,
            **{a: int(row[a]) for a in ATTRIBUTES},
            "safe": _boolean(row["safe"]),
            "confidence": int(row["confidence"]) if row["confidence"] == row["confidence"] else None,
            "flags": [str(f) for f in row["flags"]] if isinstance(row["flags"], list) else [],
            "comment": str(row["comment"]) if isinstance(row["comment"], str) else None,
            "lead_time_s": float(pd.to_numeric(row["lead_time_s"], errors="coerce"))
            if row["lead_time_s"] is not None
            else None,
            "annotated_at": _time(row["annotated_at"]),
            "desk": "files",
            "simulated": False,
        }
        for row in good.to_dict("records")
    ]
    return pa.Table.from_pylist(rows, schema=ANNOTATIONS).sort_by(
        [(c, "ascending") for c in ("prompt_id", "response_id", "annotator_id")]
    )


def _boolean(value: Any) -> bool | None:
    return {"true": True, "1": True, "pass": True, "false": False, "0": False, "fail": False}.get(
        str(value).strip().lower()
    )


def _time(value: Any) -> Any:
    stamp = pd.to_datetime(value, errors="coerce", utc=True) if value is not None else pd.NaT
    return None if stamp is pd.NaT else stamp.to_pydatetime()
