"""Label Studio's JSON export as annotations, and back.

A task's `data` has prompt_id, response_1_id and response_2_id. An annotation's results are controls named `<field>_<1 or 2>`: the five
attributes, `safe` and `confidence` as choices or numbers, `flags` as choices, `comment` as text. What a person skipped, a draft, an annotation
marked as ground truth and a model's prediction are no ratings, and are counted apart. A rating has the time at which it was last changed.
Accounts become pseudonyms: their number, or a hash of an e-mail address; in the quarantine too.
"""

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipeline.forms.streams import in_whole_prompts
from pipeline.records import Unreadable, json_list
from pipeline.vocabulary import ATTRIBUTES

NAME = "label_studio"
_CONTROL = re.compile(rf"({'|'.join(ATTRIBUTES)}|safe|confidence|flags|comment)_([12])")
_ACCOUNT = re.compile(r"label-studio-(\d+)")
_OF_PEOPLE = {"completed_by", "created_by", "created_username", "last_created_by", "updated_by", "reviewed_by", "reviewers", "annotators",
             "comment_authors", "email", "username", "first_name", "last_name", "initials", "avatar"}  # fmt: skip
_SAFE = {"pass": True, "safe": True, "true": True, "fail": False, "unsafe": False, "false": False}


def records(path: Path, seen: Callable[[int], None] = lambda _: None) -> Iterator[tuple[int, Any]]:
    """Number of the task (from 1) and an annotation of one response each, as a record; an `Unreadable` for what gives none.

    Read task by task. Raises FileError where the file is no list of tasks.
    """
    for number, task in json_list(path, seen):
        if isinstance(task, Unreadable):
            yield number, task
        else:
            yield from ((number, record) for record in _of_task(task))


def _of_task(task: Any) -> Iterator[Any]:
    data = task.get("data") if isinstance(task, Mapping) else None
    if not isinstance(data, Mapping):
        yield Unreadable("the task has no data", _text(_nameless(task)))
        return
    missing = [n for n in ("prompt_id", "response_1_id", "response_2_id") if not isinstance(data.get(n), str)]
    annotations = task.get("annotations")
    if missing or not isinstance(annotations, list):
        reason = f"the task's data have no {', '.join(missing)}" if missing else "the task has no list of annotations"
        yield Unreadable(reason, _text(_nameless(task)))
        return
    for kind, reason in (("drafts", "a draft is no rating"), ("predictions", "a model's prediction is no rating")):
        others = task.get(kind)
        for other in others if isinstance(others, list) else []:
            yield Unreadable(reason, _text(_nameless(other)), left_out=True)
    for annotation in sorted(annotations, key=_changed):
        if not isinstance(annotation, Mapping) or not isinstance(annotation.get("result"), list):
            yield Unreadable("the annotation has no list of results", _text(_nameless(annotation)))
        elif annotation.get("was_cancelled"):
            yield Unreadable("the annotator skipped the task", _text(_nameless(annotation)), left_out=True)
        elif annotation.get("ground_truth"):
            yield Unreadable(
                "an annotation marked as ground truth is gold, no rater's", _text(_nameless(annotation)), left_out=True
            )
        else:
            yield from _of_annotation(annotation, data)


def _changed(annotation: Any) -> str:
    """When an annotation was last changed, as its export writes it, by which a task's annotations are sorted."""
    at = (annotation.get("updated_at") or annotation.get("created_at")) if isinstance(annotation, Mapping) else None
    return at if isinstance(at, str) else ""


def _of_annotation(annotation: Mapping[str, Any], data: Mapping[str, Any]) -> Iterator[Any]:
    meta = annotation.get("meta")
    known = meta if isinstance(meta, Mapping) else {}
    rows: dict[str, dict[str, Any]] = {}
    for result in annotation["result"]:
        control = _CONTROL.fullmatch(str(result.get("from_name"))) if isinstance(result, Mapping) else None
        if control is None:
            yield Unreadable(
                "a result belongs to a control that is none of the five attributes, safe, confidence, flags and comment",
                _text(result),
            )
            continue
        name, position = control.groups()
        rows.setdefault(position, {})[name] = answer_of(result.get("value"), name)
    for position in sorted(rows):
        yield {
            "prompt_id": data["prompt_id"],
            "response_id": data[f"response_{position}_id"],
            "annotator_id": pseudonym(annotation.get("completed_by")),
            "round": known.get("round", 1),
            "flags": None,
            **rows[position],
            "lead_time_s": annotation.get("lead_time"),
            "annotated_at": annotation.get("updated_at") or annotation.get("created_at"),
            "desk": known.get("desk", NAME),
            "simulated": known.get("simulated", False),
        }


def answer_of(value: Any, name: str) -> Any:
    """What a control says. Something that it can't say comes back as it is: the form's rules then name it."""
    if not isinstance(value, Mapping):
        return value
    content = next((value[kind] for kind in ("choices", "number", "text") if kind in value), None)
    if "rating" in value:
        stars = value["rating"]
        return stars - 1 if name in ATTRIBUTES and isinstance(stars, int) and not isinstance(stars, bool) else stars
    if name == "flags" or not isinstance(content, list) or len(content) != 1:
        return content
    (only,) = content
    if name == "comment" or not isinstance(only, str):
        return only
    if name == "safe":
        return _SAFE.get(only.strip().lower(), only)
    return int(only) if re.fullmatch(r"\d{1,3}", only) else only


def pseudonym(account: Any) -> Any:
    """What an account is called here: by its number, or by a hash of its e-mail address. Anything else comes back as it is."""
    number = account.get("id") if isinstance(account, Mapping) else account
    if isinstance(number, str) and "@" in number:
        return f"label-studio-{hashlib.sha256(number.strip().lower().encode('utf-8', 'replace')).hexdigest()[:16]}"
    return f"label-studio-{number}" if isinstance(number, int) and not isinstance(number, bool) else number


def _nameless(value: Any) -> Any:
    """A task or annotation without its accounts' names and addresses, as it may be kept in a quarantine."""
    if isinstance(value, list):
        return [_nameless(part) for part in value]
    if not isinstance(value, Mapping):
        return value
    kept = {k: v for k, v in value.items() if k not in _OF_PEOPLE}
    who = {"completed_by": pseudonym(value["completed_by"])} if "completed_by" in value else {}
    return {k: _nameless(v) for k, v in kept.items()} | who


def _text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)


def write(tables: Iterable[pa.Table], file: Any) -> None:
    """Annotations (schema ANNOTATIONS) as an export: a task a prompt, an annotation for all that one person said of it at one time.

    A prompt's rows must stand together (`in_whole_prompts`). Of its responses the first by id is number 1. Raises ValueError for a
    prompt with more than two responses.
    """
    file.write(b"[")
    number = 0
    for table in in_whole_prompts(tables):
        tasks: dict[str, list[dict[str, Any]]] = {}
        for row in table.to_pylist():
            tasks.setdefault(row["prompt_id"], []).append(row)
        for prompt, rows in tasks.items():
            file.write(
                (",\n" if number else "\n").encode()
                + json.dumps(_task(prompt, rows, number + 1), ensure_ascii=False).encode()
            )
            number += 1
    file.write(b"\n]\n")


def _task(prompt: str, rows: list[dict[str, Any]], number: int) -> dict[str, Any]:
    responses = sorted({row["response_id"] for row in rows})
    if len(responses) > 2:
        raise ValueError(f"prompt {prompt} has {len(responses)} responses; a task of Label Studio has at most two")
    data = {
        "prompt_id": prompt,
        "response_1_id": responses[0],
        "response_2_id": responses[1] if len(responses) > 1 else "",
    }
    annotations: dict[Any, dict[str, Any]] = {}
    for row in rows:
        at = row["annotated_at"].isoformat() if row["annotated_at"] else None
        meta = {name: row[name] for name in ("round", "desk", "simulated")}
        said = (row["annotator_id"], at, row["lead_time_s"], *meta.values())
        account = _ACCOUNT.fullmatch(row["annotator_id"])
        annotation = annotations.setdefault(
            said,
            {
                "id": len(annotations) + 1,
                "completed_by": int(account[1]) if account else row["annotator_id"],
                "was_cancelled": False,
                "lead_time": row["lead_time_s"],
                "created_at": at,
                "meta": meta,
                "result": [],
            },
        )
        annotation["result"] += _results(row, responses.index(row["response_id"]) + 1)
    return {"id": number, "data": data, "annotations": list(annotations.values())}


def _results(row: Mapping[str, Any], position: int) -> Iterator[dict[str, Any]]:
    for name in (*ATTRIBUTES, "safe", "confidence", "flags", "comment"):
        value = row[name]
        if value is None:
            continue
        if name == "comment":
            kind, content = "textarea", {"text": [value]}
        else:
            said = value if name == "flags" else ["pass" if value else "fail"] if name == "safe" else [str(value)]
            kind, content = "choices", {"choices": said}
        yield {"from_name": f"{name}_{position}", "to_name": f"response_{position}", "type": kind, "value": content}
