"""What recipes train on, as tables: this store's data set, and published data sets in the form in which they are published.

| kind | ratings | preferences |
|---|---|---|
| `collected` | labels, or their means (the train split) | which response's mean helpfulness is higher, by how much |
| `helpsteer2` | five labels, 0 to 4 | people's, 1 to 3, where the file is there; else from helpfulness |
| `helpsteer` | five labels, 0 to 4 | from helpfulness, every pair of a prompt's responses |
| `oasst` | labels times 4, rounded (method F2) or not | from the ranks of sibling replies; strength 1 |
| `hh_rlhf` | none | chosen and rejected; strength 1 |
| `file` | as `helpsteer2` | as `helpsteer2` |

Files are read as a stream; a record that can't be used is set aside with its line, field and reason. A source's own validation split is
never trained on: it is counted, and its prompts are kept to be looked for among the others. Texts are data: nothing in them is run.
"""

import hashlib
import itertools
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.forms import ratings
from pipeline.forms.helpsteer import messages_of
from pipeline.forms.ratings import FieldError, Quarantine
from pipeline.hub import HubError, fetch
from pipeline.records import FileError, Unreadable, records, unstorable
from pipeline.reward_model.schema import PREFERRED, RATED
from pipeline.settings import (
    COLLECTED,
    PROJECT,
    FileData,
    HelpSteer2Data,
    HelpSteerData,
    HHData,
    OasstData,
    Profile,
    Recipe,
    TrainingData,
)
from pipeline.vocabulary import ATTRIBUTES, MESSAGES

LabelKind = Literal["rounded", "mean"]

RATED_ROWS = pa.schema([f for f in RATED if f.name != "split"])
PREFERRED_ROWS = pa.schema([f for f in PREFERRED if f.name != "split"])
"""RATED and PREFERRED before the development prompts are held out."""

COLUMNS = ["split", "prompt_id", "response_id", "position", "messages", "response", *ATTRIBUTES,
           *(f"{a}_mean" for a in ATTRIBUTES)]  # fmt: skip
"""Columns of our data set that training data are made of."""

TIES, SAME_TEXT, UNRATED = "ties dropped", "pairs of equal texts dropped", "pairs without helpfulness dropped"
VALIDATION_ROWS, VALIDATION_PAIRS = "validation rows left out", "validation pairs left out"
DELETED, OTHER_LANGUAGE = "deleted messages left out", "messages in another language left out"
"""What is counted."""

ROWS, PREFERENCES = "train.jsonl.gz", "preference/preference.jsonl.gz"
VALIDATION = "validation.jsonl.gz"
BATCH = 4096


@dataclass
class Source:
    """Training data before the split.

    rated: schema RATED_ROWS, by prompt in the order of the source; preferred: schema PREFERRED_ROWS; validation: the prompts (lists of role
    and content) of the source's own validation split; quarantine: schema QUARANTINE; counts: what was left out.
    """

    name: str
    licence: str
    rated: pa.Table = field(default_factory=RATED_ROWS.empty_table)
    preferred: pa.Table = field(default_factory=PREFERRED_ROWS.empty_table)
    validation: pa.Array = field(default_factory=lambda: pa.array([], MESSAGES))
    quarantine: Quarantine = field(default_factory=Quarantine)
    counts: Counter[str] = field(default_factory=Counter)


def source_of(recipe: Recipe, profile: Profile, data: pa.Table) -> Source:
    """What a recipe learns from: this store's data set (`data`, with COLUMNS), or what the profile names. Raises as `read` does."""
    if recipe.data == COLLECTED:
        return collected(data, recipe.labels, profile.dataset.licence)
    return read(recipe.data, profile.training_data[recipe.data], recipe.labels)


def read(name: str, data: TrainingData, labels: LabelKind) -> Source:
    """Published training data of a profile. labels: `mean` for ratings before rounding, where the source has them.

    Raises FileError where files can't be had, or hold nothing to train on, and ValueError for means that the source doesn't have.
    """
    if labels == "mean" and data.rated and not data.means:
        raise ValueError(
            f"training data {name} ({data.kind}) has no ratings before rounding; set the recipe's labels to rounded"
        )
    source = Source(name, data.licence)
    match data:
        case HelpSteer2Data():
            folder = _folder(data, [ROWS, VALIDATION, PREFERENCES])
            _helpsteer(source, folder / ROWS, folder / VALIDATION, folder / PREFERENCES, data.limit)
        case HelpSteerData():
            folder = _folder(data, [ROWS, VALIDATION])
            _helpsteer(source, folder / ROWS, folder / VALIDATION, None, data.limit)
        case FileData():
            rows, preferences = (PROJECT / Path(p).expanduser() if p else None for p in (data.path, data.preferences))
            if preferences and not preferences.is_file():
                raise FileError(f"{preferences}: there is no such file, though training data {name} names it")
            _helpsteer(source, rows, None, preferences, data.limit)
        case OasstData():
            _oasst(source, _folder(data, ["data/*.parquet"]), data, labels)
        case HHData():
            wanted = [f"{subset}/{split}.jsonl.gz" for subset in data.subsets for split in ("train", "test")]
            _hh_rlhf(source, _folder(data, wanted), data)
    if not len(source.rated) and not len(source.preferred):
        first = f"; the first record set aside: {source.quarantine.rows[0]['reason']}" if source.quarantine.rows else ""
        raise FileError(f"training data {name}: nothing in it can be trained on{first}")
    return source


def collected(data: pa.Table, labels: LabelKind, licence: str) -> Source:
    """Training data of this store's data set: its train split. data: schema DATASET (at least COLUMNS).

    labels: `rounded` takes the published labels, `mean` the means of the kept ratings. A preference is for the response with the higher
    mean helpfulness; its strength is the difference.
    """
    train = data.filter(pc.equal(data["split"], "train"))
    columns = {f.name: train[f.name].cast(f.type) for f in RATED_ROWS if f.name not in ATTRIBUTES}
    columns |= {a: train[a if labels == "rounded" else f"{a}_mean"].cast(pa.float64()) for a in ATTRIBUTES}
    held_out = data.filter(pc.equal(data["split"], "validation"))
    source = Source(COLLECTED, licence, pa.table(columns, schema=RATED_ROWS))
    source.counts[VALIDATION_ROWS] = len(held_out)
    means = train["helpfulness_mean"].cast(pa.float64())
    source.preferred = preferences_of(source.rated, means, source.counts)
    return source


def preferences_of(rows: pa.Table, helpfulness: pa.ChunkedArray, counts: Counter[str]) -> pa.Table:
    """Every pair of a prompt's responses with the more helpful one chosen, in the schema PREFERRED_ROWS; strength: the difference.

    rows: schema RATED_ROWS; helpfulness: of each. Pairs without a rating, of equal helpfulness, or of equal texts are counted and dropped.
    """
    prompt, level = _numbered(rows["prompt_id"]), np.asarray(helpfulness.to_numpy(), dtype=np.float64)
    order = np.argsort(prompt, kind="stable")
    prompt, level = prompt[order], level[order]
    firsts, seconds = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for step in range(1, int(np.bincount(prompt).max(initial=1))):
        first = np.flatnonzero(prompt[step:] == prompt[:-step])
        firsts.append(first)
        seconds.append(first + step)
    first, second = np.concatenate(firsts), np.concatenate(seconds)
    by_prompt = np.lexsort((second, first))
    first, second = first[by_prompt], second[by_prompt]
    gap = level[first] - level[second]
    rated, decided = np.isfinite(gap), np.isfinite(gap) & (gap != 0)
    counts[UNRATED] += int((~rated).sum())
    counts[TIES] += int((rated & ~decided).sum())
    better, worse = np.where(gap > 0, first, second)[decided], np.where(gap > 0, second, first)[decided]
    chosen, rejected = (rows.take(pa.array(order[side])) for side in (better, worse))
    columns = {
        "prompt_id": chosen["prompt_id"],
        "messages": chosen["messages"],
        "chosen": chosen["response"],
        "rejected": rejected["response"],
        "strength": pa.array(np.abs(gap[decided]), pa.float64()),
    }
    return _different(pa.table(columns, schema=PREFERRED_ROWS), counts)


def _numbered(ids: pa.ChunkedArray) -> npt.NDArray[np.int64]:
    """Prompts as numbers, in the order in which they first come."""
    return np.asarray(pc.index_in(ids, pc.unique(ids)), dtype=np.int64)


def _different(pairs: pa.Table, counts: Counter[str]) -> pa.Table:
    kept = pairs.filter(pc.not_equal(pairs["chosen"], pairs["rejected"]))
    counts[SAME_TEXT] += len(pairs) - len(kept)
    return kept


def context_id(messages: Iterable[Mapping[str, str]]) -> str:
    """Id of a prompt in published data: sha256 of its turns, roles and texts as they are. Rows and pairs of a prompt have the same one."""
    turns = [[turn["role"], turn["content"]] for turn in messages]
    return hashlib.sha256(json.dumps(turns, ensure_ascii=False).encode()).hexdigest()


class _Prompts:
    """The first so many prompts of a source: which are taken, and how many responses each has had so far."""

    def __init__(self, limit: int | None) -> None:
        self._limit = limit
        self._responses: Counter[str] = Counter()
        self._known: dict[str, None] = {}

    def take(self, prompt_id: str) -> bool:
        if prompt_id in self._known:
            return True
        if self._limit is not None and len(self._known) >= self._limit:
            return False
        self._known[prompt_id] = None
        return True

    def position(self, prompt_id: str) -> int:
        self._responses[prompt_id] += 1
        return self._responses[prompt_id]


# --------------------------------------------------------------------------------------------------------------------- files, the hub


def _folder(data: HelpSteer2Data | HelpSteerData | OasstData | HHData, patterns: list[str]) -> Path:
    """The folder that has a published data set's files: a local one, or the hub's, with those files that match."""
    if data.folder:
        folder = PROJECT / Path(data.folder).expanduser()
        if not folder.is_dir():
            raise FileError(f"{folder}: there is no such folder, though training data of kind {data.kind} names it")
        return folder
    try:
        return fetch(data.hub, data.revision, patterns, "dataset")
    except HubError as error:
        raise FileError(
            f"{error}. Without network, give training data of kind {data.kind} a `folder` that has {', '.join(patterns)}"
        ) from error


def _there(path: Path) -> Path:
    if not path.is_file():
        raise FileError(f"{path}: there is no such file, and nothing to train on without it")
    return path


# ---------------------------------------------------------------------------------------------------------------------------- HelpSteer


def _helpsteer(
    source: Source, rows: Path | None, validation: Path | None, preferences: Path | None, limit: int | None
) -> None:
    """Files in HelpSteer2's form (method E). People's preferences where their file is there, else those that the ratings give."""
    prompts = _Prompts(limit)
    if rows:
        parts = [_rated_rows(t, prompts) for t in ratings.read(_there(rows), "helpsteer", source.quarantine)]
        source.rated = pa.concat_tables([RATED_ROWS.empty_table(), *parts])
    held_out: list[Any] = []
    if validation and validation.is_file():
        for table in ratings.read(validation, "helpsteer", source.quarantine):
            source.counts[VALIDATION_ROWS] += len(table)
            held_out += [messages_of(p) for p in pc.unique(table["prompt"]).to_pylist()]
    if preferences and preferences.is_file():
        pairs = [PREFERRED_ROWS.empty_table()]
        for table in ratings.read(preferences, "preference", source.quarantine):
            val = table.filter(pc.equal(table["split"], "val"))
            source.counts[VALIDATION_PAIRS] += len(val)
            held_out += [messages_of(p) for p in pc.unique(val["prompt"]).to_pylist()]
            train = table.filter(pc.equal(table["split"], "train"))
            pairs.append(_preferred_rows(train, prompts, source.counts))
        source.preferred = _different(pa.concat_tables(pairs), source.counts)
    else:
        source.preferred = preferences_of(source.rated, source.rated["helpfulness"], source.counts)
    source.validation = pa.array(held_out, MESSAGES)


def _contexts(prompts: pa.ChunkedArray) -> tuple[list[str], pa.Array]:
    """Id and turns of the prompts of a table, in HelpSteer2's form."""
    texts = prompts.to_pylist()
    known = {text: messages_of(text) for text in dict.fromkeys(texts)}
    ids = {text: context_id(messages) for text, messages in known.items()}
    return [ids[text] for text in texts], pa.array([known[text] for text in texts], MESSAGES)


def _rated_rows(table: pa.Table, prompts: _Prompts) -> pa.Table:
    ids, messages = _contexts(table["prompt"])
    taken = [prompts.take(prompt_id) for prompt_id in ids]
    positions = [prompts.position(prompt_id) for prompt_id in ids]
    columns: dict[str, Any] = {
        "prompt_id": pa.array(ids, pa.string()),
        "response_id": pa.array([_response_id(i, p) for i, p in zip(ids, positions, strict=True)], pa.string()),
        "position": pa.array(positions, pa.int64()),
        "messages": messages,
        "response": table["response"],
    }
    columns |= {a: table[a].cast(pa.float64()) for a in ATTRIBUTES}
    return pa.table(columns, schema=RATED_ROWS).filter(pa.array(taken, pa.bool_()))


def _response_id(prompt_id: str, position: int) -> str:
    return f"{prompt_id[:24]}-{position}"


def _preferred_rows(table: pa.Table, prompts: _Prompts, counts: Counter[str]) -> pa.Table:
    """Rows of HelpSteer2's preference file as pairs: a negative strength says that response 1 is better, 0 that neither is (method E)."""
    ids, messages = _contexts(table["prompt"])
    taken = np.array([prompts.take(prompt_id) for prompt_id in ids], dtype=bool)
    strength = np.asarray(table["preference_strength"], dtype=np.int64)
    counts[TIES] += int((taken & (strength == 0)).sum())
    first = pa.array(strength < 0)
    columns = {
        "prompt_id": pa.array(ids, pa.string()),
        "messages": messages,
        "chosen": pc.if_else(first, table["response_1"], table["response_2"]),
        "rejected": pc.if_else(first, table["response_2"], table["response_1"]),
        "strength": pa.array(np.abs(strength), pa.float64()),
    }
    return pa.table(columns, schema=PREFERRED_ROWS).filter(pa.array(taken & (strength != 0)))


# --------------------------------------------------------------------------------------------------------------- records, one by one


def _text(record: Mapping[str, Any], name: str) -> str:
    value = record.get(name)
    if not isinstance(value, str):
        raise FieldError(name, "is missing" if value is None else f"is a {type(value).__name__}, not a text")
    if fault := unstorable(value):
        raise FieldError(name, fault)
    if not value.strip():
        raise FieldError(name, "is blank")
    return value


def _usable(path: Path, quarantine: Quarantine) -> Iterator[tuple[int | None, Mapping[str, Any]]]:
    """A file's records with their lines; what is no record is set aside."""
    for line, record in records(path):
        if isinstance(record, Unreadable):
            quarantine.add(path.name, line, None, record.reason, record.text)
        elif not isinstance(record, Mapping):
            quarantine.add(path.name, line, None, f"not a record but a {type(record).__name__}", record)
        else:
            yield line, record


def _tables(rows: Iterator[dict[str, Any]], schema: pa.Schema) -> pa.Table:
    parts = [schema.empty_table()]
    while some := list(itertools.islice(rows, BATCH)):
        parts.append(pa.Table.from_pylist(some, schema=schema))
    return pa.concat_tables(parts)


# ---------------------------------------------------------------------------------------------------------------------- Open Assistant


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


def _oasst(source: Source, folder: Path, data: OasstData, labels: LabelKind) -> None:
    """Open Assistant's messages (oasst-data/README.md of LAION-AI/Open-Assistant, and the card): trees by `parent_id`, roles in turn.

    Labels are means over people from 0 to 1; times 4 they are on our scale, rounded as NeMo-Aligner rounds them (method F2). Which label
    stands for which attribute is the profile's to say: NeMo-Aligner trains `quality` as an output of its own, so that `helpfulness` from
    `quality`, the default, is ours. Siblings have ranks, 0 the most preferred; ranks say no more than which is better.
    The published validation split are the files named `validation*`; the flat files of messages have none.
    """
    files = sorted(folder.glob("data/*.parquet")) or sorted(folder.glob("*.messages.jsonl*"))
    if not files:
        raise FileError(
            f"{folder}: has neither data/*.parquet nor *.messages.jsonl.gz, OpenAssistant/oasst1's flat messages"
        )
    messages: dict[str, _Message] = {}
    for path in files:
        for line, record in _usable(path, source.quarantine):
            try:
                if record.get("deleted"):
                    source.counts[DELETED] += 1
                elif data.language and record.get("lang") != data.language:
                    source.counts[OTHER_LANGUAGE] += 1
                else:
                    key = _text(record, "message_id")
                    if key in messages:
                        raise FieldError("message_id", "is that of an earlier message")
                    messages[key] = _message(path, line, record)
            except FieldError as error:
                source.quarantine.add(path.name, line, error.name, str(error), record)
    replies: dict[str, list[_Message]] = {}
    for message in messages.values():
        if message.role == "assistant":
            replies.setdefault(message.parent or "", []).append(message)
    prompts, rated, preferred, held_out = _Prompts(data.limit), [], [], []
    for parent, siblings in replies.items():
        try:
            context = _context(messages, parent)
        except FieldError as error:
            for m in siblings:
                source.quarantine.add(m.file, m.line, error.name, str(error), {"text": m.text})
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
    source.rated, source.preferred = _tables(iter(rated), RATED_ROWS), _tables(iter(preferred), PREFERRED_ROWS)
    source.preferred = _different(source.preferred, source.counts)
    source.validation = pa.array(held_out, MESSAGES)


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
        path.name, line, parent, role, _text(record, "text"), rank, values, path.name.startswith("validation")
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


def _context(messages: Mapping[str, _Message], parent: str) -> list[dict[str, str]]:
    """The conversation up to a message. Raises FieldError where it isn't whole, or the roles don't take turns."""
    turns: list[dict[str, str]] = []
    key: str | None = parent
    if not parent:
        raise FieldError("parent_id", "is missing, though an assistant's message needs one")
    while key is not None:
        message = messages.get(key)
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
    shared: dict[str, Any], siblings: list[_Message], prompts: _Prompts, data: OasstData, labels: LabelKind
) -> Iterator[dict[str, Any]]:
    for message in siblings:
        position = prompts.position(shared["prompt_id"])
        levels = {a: 4 * message.labels[name] for a, name in data.labels.items() if name in message.labels}
        if levels:
            values = {a: float(round(v)) if labels == "rounded" else v for a, v in levels.items()}
            named = {"response_id": _response_id(shared["prompt_id"], position), "position": position}
            yield shared | named | {"response": message.text} | values


def _ranked_replies(shared: dict[str, Any], siblings: list[_Message], counts: Counter[str]) -> Iterator[dict[str, Any]]:
    ranked = [(m.rank, m.text) for m in siblings if m.rank is not None]
    for (one, first), (two, second) in itertools.combinations(ranked, 2):
        if one == two:
            counts[TIES] += 1
        else:
            chosen, rejected = (first, second) if one < two else (second, first)
            yield shared | {"chosen": chosen, "rejected": rejected, "strength": 1.0}


# ----------------------------------------------------------------------------------------------------------------------------- HH-RLHF

_TURN = re.compile(r"\n\n(Human|Assistant):")


def _hh_rlhf(source: Source, folder: Path, data: HHData) -> None:
    """Anthropic's pairs (arXiv 2204.05862, and the card): a line has two transcripts, `chosen` and `rejected`, of one conversation.

    They must differ in the last answer alone. The published test split is left out. `red-team-attempts` are no preferences, says the card.
    """
    prompts, held_out = _Prompts(data.limit), list[list[dict[str, str]]]()

    def pairs(split: str) -> Iterator[dict[str, Any]]:
        for subset in data.subsets:
            path = folder / subset / f"{split}.jsonl.gz"
            if split == "test" and not path.is_file():
                continue
            for line, record in _usable(_there(path), source.quarantine):
                try:
                    yield _pair(record)
                except FieldError as error:
                    source.quarantine.add(f"{subset}/{path.name}", line, error.name, str(error), record)

    for pair in pairs("test"):
        source.counts[VALIDATION_PAIRS] += 1
        held_out.append(pair["messages"])
    taken = (pair for pair in pairs("train") if prompts.take(pair["prompt_id"]))
    source.preferred = _different(_tables(taken, PREFERRED_ROWS), source.counts)
    source.validation = pa.array(held_out, MESSAGES)


def _pair(record: Mapping[str, Any]) -> dict[str, Any]:
    chosen, rejected = (_transcript(record, name) for name in ("chosen", "rejected"))
    if chosen[:-1] != rejected[:-1]:
        raise FieldError("rejected", "differs from chosen before the last answer")
    return {
        "prompt_id": context_id(chosen[:-1]),
        "messages": chosen[:-1],
        "chosen": chosen[-1]["content"],
        "rejected": rejected[-1]["content"],
        "strength": 1.0,
    }


def _transcript(record: Mapping[str, Any], name: str) -> list[dict[str, str]]:
    """A transcript's turns. Raises FieldError where the human doesn't begin, turns aren't taken, one is blank, or no answer is last."""
    before, *parts = _TURN.split(_text(record, name))
    roles, texts = parts[::2], [text.strip() for text in parts[1::2]]
    if before.strip() or not roles:
        raise FieldError(name, "does not begin with Human:")
    if roles != ["Human", "Assistant"] * (len(roles) // 2):
        raise FieldError(name, "doesn't alternate between Human and Assistant, with an answer at the end")
    if not all(texts):
        raise FieldError(name, "has a blank turn")
    return [{"role": ("user", "assistant")[n % 2], "content": text} for n, text in enumerate(texts)]
