"""OpenAssistant/oasst1, in the form in which it is published, as training data."""

import itertools
from collections import Counter
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipeline.forms.ratings import FieldError
from pipeline.records import FileError
from pipeline.reward_model.sources.reading import filled_text, usable
from pipeline.reward_model.sources.tables import (
    DELETED,
    OTHER_LANGUAGE,
    PREFERRED_ROWS,
    RATED_ROWS,
    REFUSED,
    REPLIES,
    SPAM,
    SYNTHETIC,
    TIES,
    VALIDATION_ROWS,
    LabelKind,
    Prompts,
    Source,
    context_id,
    different,
    response_id,
    tables_of,
)
from pipeline.settings import OasstData
from pipeline.vocabulary import MESSAGES

FORM = "messages of trees"


@dataclass(frozen=True)
class _Message:
    file: str
    line: int | None
    parent: str | None
    role: str
    text: str
    rank: int | None
    labels: Mapping[str, float]
    validation: bool


def fill(source: Source, folder: Path, data: OasstData, labels: LabelKind) -> None:
    """Open Assistant's messages (oasst-data/README.md of LAION-AI/Open-Assistant, and the card): trees by `parent_id`, roles in turn.

    Labels are means over people from 0 to 1; times 4 they are on our scale, rounded as NeMo-Aligner rounds them (method F2). Which label
    stands for which attribute is the profile's to say: NeMo-Aligner trains `quality` as an output of its own, so that `helpfulness` from
    `quality`, the default, is ours. Siblings have ranks, 0 the most preferred; ranks say no more than which is better.
    Messages that the setting `leave_out` names are left out, with all replies to them: by default what is deleted, what reviewers refused
    (`review_result` false), what is labelled as spam by more than half, and what is marked as synthetic.
    The published validation split are the files named `validation*`; the flat files of messages have none.
    """
    files = sorted(folder.glob("data/*.parquet")) or sorted(folder.glob("*.messages.jsonl*"))
    if not files:
        raise FileError(
            f"{folder}: has neither data/*.parquet nor *.messages.jsonl.gz, OpenAssistant/oasst1's flat messages"
        )
    messages, gone = dict[str, _Message](), set[str]()
    for path in files:
        for line, record in usable(path, source):
            source.forms[FORM] += 1
            try:
                if why := _left_out(record, data):
                    source.counts[why] += 1
                    gone.add(str(record.get("message_id")))
                else:
                    key = filled_text(record, "message_id")
                    if key in messages:
                        raise FieldError("message_id", "is that of an earlier message")
                    messages[key] = _message(path, line, record)
            except FieldError as error:
                source.quarantine.add(path.name, line, error.name, str(error), record)
    replies: dict[str, list[_Message]] = {}
    for message in messages.values():
        if message.role == "assistant":
            replies.setdefault(message.parent or "", []).append(message)
    prompts, rated, preferred, held_out = Prompts(data.limit), [], [], []
    for parent, siblings in replies.items():
        try:
            context = _context(messages, gone, parent)
        except FieldError as error:
            for m in siblings:
                source.quarantine.add(m.file, m.line, error.name, str(error), {"text": m.text})
            continue
        if context is None:
            source.counts[REPLIES] += len(siblings)
            continue
        if siblings[0].validation:
            source.counts[VALIDATION_ROWS] += len(siblings)
            held_out.append(context)
            continue
        prompt_id = context_id(context)
        if prompts.take(prompt_id):
            shared = {"prompt_id": prompt_id, "messages": context}
            rated += list(_rated_replies(shared, siblings, prompts, data, labels))
            preferred += list(_ranked_replies(shared, siblings, source.counts))
    source.rated, source.preferred = tables_of(iter(rated), RATED_ROWS), tables_of(iter(preferred), PREFERRED_ROWS)
    source.preferred = different(source.preferred, source.counts)
    source.validation = pa.array(held_out, MESSAGES)


def _left_out(record: Mapping[str, Any], data: OasstData) -> str | None:
    """Why a message is left out, as it is counted; None where it isn't."""
    spam = _labels(record.get("labels")).get("spam", 0) if "spam" in data.leave_out else 0
    holds = {
        "deleted": (DELETED, bool(record.get("deleted"))),
        "refused": (REFUSED, record.get("review_result") is False),
        "synthetic": (SYNTHETIC, bool(record.get("synthetic"))),
        "spam": (SPAM, spam > data.spam_above),
    }
    why = next((said for name, (said, true) in holds.items() if true and name in data.leave_out), None)
    if why is None and data.language and record.get("lang") != data.language:
        return OTHER_LANGUAGE
    return why


def _message(path: Path, line: int | None, record: Mapping[str, Any]) -> _Message:
    role, parent, rank = record.get("role"), record.get("parent_id"), record.get("rank")
    if role not in ("prompter", "assistant"):
        raise FieldError("role", "is neither prompter nor assistant")
    if parent is not None and not isinstance(parent, str):
        raise FieldError("parent_id", f"is a {type(parent).__name__}, not a text")
    if isinstance(rank, float) and rank.is_integer():
        rank = int(rank)
    if rank is not None and (not isinstance(rank, int) or isinstance(rank, bool) or rank < 0):
        raise FieldError("rank", "is not a whole number of at least 0")
    values = _labels(record.get("labels"))
    return _Message(
        path.name, line, parent, role, filled_text(record, "text"), rank, values, path.name.startswith("validation")
    )


def _labels(given: Any) -> dict[str, float]:
    """Labels by name: `{name: {value}}` as in the JSON lines, `{name: [...], value: [...]}` or `[{name, value}]` as in Parquet."""
    if given is None:
        return {}
    if isinstance(given, Mapping) and isinstance(given.get("name"), list) and isinstance(given.get("value"), list):
        if len(given["name"]) != len(given["value"]):
            raise FieldError("labels", "has different numbers of names and values")
        pairs = list(zip(given["name"], given["value"], strict=True))
    elif isinstance(given, Mapping):
        pairs = [(name, label.get("value") if isinstance(label, Mapping) else label) for name, label in given.items()]
    elif isinstance(given, list) and all(isinstance(label, Mapping) for label in given):
        pairs = [(label.get("name"), label.get("value")) for label in given]
    else:
        raise FieldError("labels", f"is a {type(given).__name__}, not an object of labels by name")
    values = {}
    for name, value in pairs:
        if value is None:
            continue
        if (
            not isinstance(name, str)
            or isinstance(value, bool)
            or not isinstance(value, int | float)
            or not 0 <= value <= 1
        ):
            raise FieldError("labels", "has a value that is not a number from 0 to 1")
        values[name] = float(value)
    return values


def _context(messages: Mapping[str, _Message], gone: Set[str], parent: str) -> list[dict[str, str]] | None:
    """The conversation up to a message; None where one of it was left out (`gone`, ids).

    Raises FieldError where it isn't whole, or the roles don't take turns.
    """
    turns: list[dict[str, str]] = []
    key: str | None = parent
    if not parent:
        raise FieldError("parent_id", "is missing, though an assistant's message needs one")
    while key is not None:
        message = messages.get(key)
        if message is None and key in gone:
            return None
        if message is None:
            raise FieldError("parent_id", "names a message that is not there")
        role = ("user", "assistant")[len(turns) % 2]
        if (message.role == "prompter") != (role == "user"):
            raise FieldError("role", "is the same as that of the message before")
        turns.append({"role": role, "content": message.text})
        if len(turns) > len(messages):
            raise FieldError("parent_id", "leads back to the message itself")
        key = message.parent
    if len(turns) % 2 == 0:
        raise FieldError("role", "of the first message is not the prompter's")
    return turns[::-1]


def _rated_replies(
    shared: dict[str, Any], siblings: list[_Message], prompts: Prompts, data: OasstData, labels: LabelKind
) -> Iterator[dict[str, Any]]:
    for message in siblings:
        position = prompts.position(shared["prompt_id"])
        levels = {a: 4 * message.labels[name] for a, name in data.labels.items() if name in message.labels}
        if levels:
            values = {a: float(round(v)) if labels == "rounded" else v for a, v in levels.items()}
            named = {"response_id": response_id(shared["prompt_id"], position), "position": position}
            yield shared | named | {"response": message.text} | values


def _ranked_replies(shared: dict[str, Any], siblings: list[_Message], counts: Counter[str]) -> Iterator[dict[str, Any]]:
    ranked = [(m.rank, m.text) for m in siblings if m.rank is not None]
    for (one, first), (two, second) in itertools.combinations(ranked, 2):
        if one == two:
            counts[TIES] += 1
        else:
            chosen, rejected = (first, second) if one < two else (second, first)
            yield shared | {"chosen": chosen, "rejected": rejected, "strength": 1.0}
