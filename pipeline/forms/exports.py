"""Exports of annotation tools as records of the form `annotations`: what each tool calls things, and nothing more.

| name | what a record is | who rated | what is no rating |
|---|---|---|---|
| `label_studio_min` | Label Studio's JSON-MIN and CSV: a task's data and an annotation's answers | `annotator` | |
| `argilla` | a record with everybody's responses (`to_json`, `to_datasets`, version 1) | `user_id` | drafts, what was discarded, suggestions |
| `prodigy` | a task as one annotator answered it | `_annotator_id`, else `_session_id` | `answer` reject and ignore |
| `potato` | an instance as one annotator answered it | `user_id` or `user` | |
| `doccano` | an example with its labels, such as `helpfulness:3` | the file's name, unless it is `all` | |

Questions, controls and schemes are called as the fields of the form: `helpfulness`, or `helpfulness_1` and `helpfulness_2` where a task shows
two responses, which are then `response_1_id` and `response_2_id`. The ids stand in the record, or in its `metadata`, `meta`, `fields` or `data`.
Label Studio's own JSON export, which says most, is read by `label_studio`.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from pipeline.forms import label_studio
from pipeline.forms.renamed import renamed
from pipeline.records import Unreadable, any_records
from pipeline.vocabulary import ATTRIBUTES

NAMED = (*ATTRIBUTES, "safe", "confidence", "flags", "comment")
IDS = ("prompt_id", "response_id", "response_1_id", "response_2_id")
"""Fields of a record that tell what it rates."""
_CONTROL = re.compile(rf"({'|'.join(NAMED)})(?:_([1-9]))?")
_CHOICE = re.compile(rf"((?:{'|'.join(NAMED)})(?:_[1-9])?)\s*[:=/ _-]\s*(.+)")
_PARTED = re.compile(rf"((?:{'|'.join(NAMED)})(?:_[1-9])?)(?:\.|:::)(.*)")
_LEVEL = re.compile(r"(?:scale_)?(\d{1,3})")
_HOLDERS = ("metadata", "meta", "fields", "data")


class MisshapenError(ValueError):
    """A record that is not as its tool exports one; the message says what is wrong with it."""


class _Said(NamedTuple):
    """What one person answered: who, the answers by the names of the questions, when, and in how many seconds."""

    who: Any
    answers: Mapping[str, Any]
    at: Any = None
    seconds: Any = None


@dataclass(frozen=True)
class Tool:
    """A tool: its name for people, whether a record is of its export, and what people said in a record. The path is the file's."""

    title: str
    knows: Callable[[Mapping[str, Any]], bool]
    said: Callable[[Mapping[str, Any], Path], Iterator[_Said | Unreadable]]
    doubt: Callable[[Mapping[str, Any]], str | None] = lambda record: None
    """What its export doesn't say, where a record shows that; told once a file."""


def tool_of(record: Mapping[str, Any]) -> str | None:
    """The tool whose export a record is of, by its name in TOOLS; None for none that is known."""
    return next((name for name, tool in TOOLS.items() if tool.knows(record)), None)


def records(path: Path, name: str, columns: Mapping[str, str]) -> Iterator[tuple[int | None, Any]]:
    """Number of the record in the file, and a rating of one response each, as a record; an `Unreadable` for what gives none.

    columns: the form's names of fields, or one of IDS, and what the file calls them. Raises FileError where the file can't be read.
    """
    tool, told = TOOLS[name], False
    for number, given in any_records(path):
        if isinstance(given, Mapping):
            record = renamed({key: _decoded(value) for key, value in given.items()}, columns)
            try:
                rows, doubt = list(_rows(record, tool, path)), None if told else tool.doubt(record)
                if doubt:
                    told = True
                    yield None, Unreadable(doubt, left_out=True)
            except MisshapenError as error:
                why = f"the record is not as {tool.title} exports one: {error}"
                rows = [Unreadable(why, json.dumps(given, ensure_ascii=False, default=str)[:2000])]
            yield from ((number, row) for row in rows)
        elif isinstance(given, Unreadable):
            yield number, given
        else:
            yield number, Unreadable("the record is no object", json.dumps(given)[:200])


def _decoded(value: Any) -> Any:
    """A value; of a text that is a list or an object in JSON, as in a cell of CSV, what it holds."""
    if isinstance(value, str) and value[:1] in ("[", "{"):
        with suppress(ValueError, RecursionError):
            return json.loads(value)
    return value


def _rows(record: Mapping[str, Any], tool: Tool, path: Path) -> Iterator[Any]:
    for said in tool.said(record, path):
        if isinstance(said, Unreadable):
            yield said
            continue
        who = record.get("annotator_id", said.who)
        if who is None:
            yield Unreadable(
                f"{tool.title}'s record doesn't say who rated; add a field annotator_id, or say which field has it: --columns annotator_id=FIELD"
            )
            continue
        sides: dict[str, dict[str, Any]] = {}
        for question, answer in said.answers.items():
            control = _CONTROL.fullmatch(question)
            if control and answer is not None:
                sides.setdefault(control[2] or "", {})[control[1]] = _answer(answer, control[1])
        if not sides:
            asked = ", ".join(map(str, said.answers)) or "none"
            yield Unreadable(
                f"none of its questions is called as an attribute, safe, confidence, flags or comment: {asked[:200]}"
            )
        for side, answers in sorted(sides.items()):
            response = f"response_{side}_id" if side else "response_id"
            ids = {"prompt_id": _named(record, "prompt_id"), "response_id": _named(record, response)}
            if ids["response_id"] is None:
                fields = ", ".join(map(str, record))[:200]
                yield Unreadable(
                    f"{tool.title}'s record has no {response}; its fields are {fields}. Say which has it: --columns {response}=FIELD, or `columns` "
                    "in a profile"
                )
                continue
            yield {**ids, "annotator_id": who, **answers, "annotated_at": said.at, "lead_time_s": said.seconds}


def _named(record: Mapping[str, Any], name: str) -> Any:
    """An id of a record, or of what it holds."""
    holders = (record, *(record.get(holder) for holder in _HOLDERS))
    return next((h[name] for h in holders if isinstance(h, Mapping) and h.get(name) is not None), None)


def _answer(value: Any, name: str) -> Any:
    """An answer as the form has it. What can't be one comes back as it is: the form's rules then name it."""
    if isinstance(value, list) and len(value) == 1 and (name != "flags" or isinstance(value[0], Mapping)):
        (value,) = value
    if isinstance(value, Mapping):
        return label_studio.answer_of(value, name)
    if isinstance(value, str) and name in (*ATTRIBUTES, "confidence") and (level := _LEVEL.fullmatch(value.strip())):
        return int(level[1])
    return value


def _answers(record: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in record.items() if _CONTROL.fullmatch(key)}


def _chosen(labels: Any) -> dict[str, Any]:
    """Answers out of labels such as `helpfulness:3`; a label that is chosen twice with different answers has both."""
    found: dict[str, Any] = {}
    for label in labels if isinstance(labels, Sequence) and not isinstance(labels, str) else []:
        if choice := _CHOICE.fullmatch(str(label).strip()):
            known = found.get(choice[1])
            found[choice[1]] = (
                choice[2]
                if known in (None, choice[2])
                else [*(known if isinstance(known, list) else [known]), choice[2]]
            )
    return found


# ---------------------------------------------------------------------------------------------------------------------------- tools


def _of_label_studio(record: Mapping[str, Any], path: Path) -> Iterator[_Said | Unreadable]:
    who = record.get("annotator")
    number = int(who) if isinstance(who, str) and who.strip().isdecimal() else who
    at = record.get("updated_at") or record.get("created_at")
    yield _Said(label_studio.pseudonym(number), _answers(record), at, record.get("lead_time"))


def _of_argilla(record: Mapping[str, Any], path: Path) -> Iterator[_Said | Unreadable]:
    if isinstance(record.get("suggestions"), Mapping | list) and record["suggestions"]:
        yield Unreadable("a model's suggestion is no rating", left_out=True)
    people: dict[Any, dict[str, Any]] = {}
    for who, status, question, value in _argilla_answers(record):
        if not isinstance(who, str | int | None):
            raise MisshapenError(f"the user of a response to {question} is no text")
        if status in (None, "submitted"):
            people.setdefault(who, {})[question] = value
        else:
            why = "a draft is no rating" if status == "draft" else "the annotator discarded the record"
            yield Unreadable(why, f"{question}: {value}", left_out=True)
    for who, answers in people.items():
        yield _Said(who, answers, record.get("updated_at"))


def _argilla_doubt(record: Mapping[str, Any]) -> str | None:
    given = record.get("responses")
    answers = [a for of in given.values() for a in _records(of, "responses")] if isinstance(given, Mapping) else []
    if not answers or any("status" in answer for answer in answers):
        return None
    return "this export doesn't say which responses are drafts or discarded, so all are taken for ratings; Argilla's to_datasets says it"


def _argilla_answers(record: Mapping[str, Any]) -> Iterator[tuple[Any, Any, str, Any]]:
    """Who, the status, the question and the answer."""
    given = record.get("responses")
    if isinstance(given, Mapping):
        for question, answers in given.items():
            for answer in _records(answers, question):
                yield answer.get("user_id"), answer.get("status"), question, answer.get("value")
    elif isinstance(given, list):
        for response in _records(given, "responses"):
            values = response.get("values") or {}
            if not isinstance(values, Mapping):
                raise MisshapenError("the values of a response are no object")
            for question, answer in values.items():
                value = answer.get("value") if isinstance(answer, Mapping) else answer
                yield response.get("user_id"), response.get("status"), question, value
    for name, values in record.items():
        if name.endswith(".responses") and isinstance(values, list):
            users, statuses = (record.get(f"{name}.{part}") or [None] * len(values) for part in ("users", "status"))
            if not all(isinstance(part, list) and len(part) == len(values) for part in (users, statuses)):
                raise MisshapenError(f"{name} has not as many users and statuses as values")
            for value, who, status in zip(values, users, statuses, strict=True):
                yield who, status, name.removesuffix(".responses"), value


def _records(value: Any, name: str) -> list[Mapping[str, Any]]:
    """A list of records, which may be missing."""
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(one, Mapping) for one in value):
        raise MisshapenError(f"{name} is no list of objects")
    return value


def _of_prodigy(record: Mapping[str, Any], path: Path) -> Iterator[_Said | Unreadable]:
    if record.get("answer") != "accept":
        skipped = record.get("answer") == "ignore"
        yield Unreadable(
            "the annotator skipped the task" if skipped else "the annotator rejected the task", left_out=True
        )
        return
    who = record.get("_annotator_id") or record.get("_session_id")
    yield _Said(who, _answers(record) | _chosen(record.get("accept")), record.get("_timestamp"))


def _of_potato(record: Mapping[str, Any], path: Path) -> Iterator[_Said | Unreadable]:
    answers, given = _answers(record), record.get("label_annotations") or record.get("labels")
    for scheme, labels in given.items() if isinstance(given, Mapping) else []:
        answers[scheme] = _of_scheme(labels) if isinstance(labels, Mapping) else labels
    parted: dict[str, dict[str, Any]] = {}
    for name, value in record.items():
        if (column := _PARTED.fullmatch(name)) and value not in (None, ""):
            parted.setdefault(column[1], {})[column[2]] = value
    answers |= {scheme: _of_scheme(labels) for scheme, labels in parted.items() if scheme not in answers}
    yield _Said(record.get("user_id") or record.get("user"), answers)


def _of_scheme(labels: Mapping[str, Any]) -> Any:
    """The answer of a scheme: the value that stands with its one label, or the label where that says it; several labels as they are."""
    said = [
        label if str(value).strip().lower() in ("", "true", "x") else value
        for label, value in labels.items()
        if value not in (None, False)
    ]
    return said[0] if len(said) == 1 else said


def _of_doccano(record: Mapping[str, Any], path: Path) -> Iterator[_Said | Unreadable]:
    labels = record.get("label", record.get("labels"))
    chosen = _chosen(labels.split("#") if isinstance(labels, str) else labels)
    if not labels:
        yield Unreadable("the annotator has not rated the example", left_out=True)
        return
    name = path.name.partition(".")[0]
    comments = record.get("Comments")
    yield _Said(
        None if name == "all" else name,
        chosen | ({"comment": "\n".join(map(str, comments))} if comments and isinstance(comments, list) else {}),
    )


TOOLS = {
    "label_studio_min": Tool(
        "Label Studio", lambda record: {"annotation_id", "annotator", "lead_time"} <= record.keys(), _of_label_studio
    ),
    "prodigy": Tool("Prodigy", lambda record: {"_task_hash", "answer"} <= record.keys(), _of_prodigy),
    "argilla": Tool(
        "Argilla",
        lambda record: (
            {"responses", "fields"} <= record.keys() or any(name.endswith(".responses.users") for name in record)
        ),
        _of_argilla,
        _argilla_doubt,
    ),
    "potato": Tool(
        "Potato",
        lambda record: (
            "label_annotations" in record or ("instance_id" in record and {"user_id", "user"} & record.keys() != set())
        ),
        _of_potato,
    ),
    "doccano": Tool(
        "doccano",
        lambda record: (
            "id" in record and ("label" in record or "labels" in record) and ("text" in record or "data" in record)
        ),
        _of_doccano,
    ),
}
