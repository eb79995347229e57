"""Conversations without ratings that policies are tuned on: read, each once, cut after the last answer, disjoint from what policies are measured by.

A policy learns every assistant turn of a conversation. So all user turns up to each of them are a prompt that it is trained on, and a
conversation is left out where one of these is equal to a prompt of a benchmark, of a validation split, or to one that is held out. Prompts
are equal where their user turns have the same words (`pipeline.texts.words`), whatever the system and the assistant say.
"""

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.alignment.schema import TUNED_ON
from pipeline.prompts.shapes import Whole
from pipeline.prompts.sources import ReadReport, SourceError, refuse_unread, whole_conversations
from pipeline.reward_model.schema import DROPPED
from pipeline.reward_model.sources import context_id
from pipeline.reward_model.training_data import with_split
from pipeline.settings import Decontamination, Source
from pipeline.texts.decontamination import overlaps
from pipeline.texts.words import keys_of, prompt_texts, words_of
from pipeline.vocabulary import MESSAGES

Keys = npt.NDArray[np.uint64]
Rows = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

READ = pa.schema(
    [
        ("source", pa.string()),
        ("prompt_id", pa.string()),
        ("response_id", pa.string()),
        ("messages", MESSAGES),
        ("response", pa.string()),
    ]
)
"""Conversations as they are read: all before the last assistant turn, and that turn."""
BATCH = 10_000
SHORTENED = "conversations that lost turns after their last answer"
UNANSWERED = "conversations without an answer left out"
REPEATED = "repeated conversations left out"
JOINED = "conversations of which turns of one side were joined"
MOVED = "conversations put on the side where the data have their prompt"
CROSSED = "conversations left out, as a prompt of theirs is held out elsewhere"
"""What is counted, besides records set aside, by the reason."""


class Read(NamedTuple):
    """Conversations (schema READ), a report a source, and what was counted."""

    table: pa.Table
    reports: list[ReadReport]
    counts: Counter[str]


class Sided(NamedTuple):
    """Conversations in the schema TUNED_ON, those left out for a benchmark or a validation split (DROPPED), and what was counted."""

    table: pa.Table
    dropped: pa.Table
    counts: Counter[str]


def read(sources: Mapping[str, Source]) -> Read:
    """All conversations of some sources that have an answer, each once, in their order.

    Raises SourceError where a source can't be read, where none of its records holds a conversation, or where no conversation has an answer.
    """
    stream, reports = whole_conversations(sources)
    counts = Counter[str]()
    table = pa.Table.from_batches(_batches(stream, counts), schema=READ)
    refuse_unread(reports)
    if not len(table):
        kept, names = sum(report.kept for report in reports), ", ".join(sources)
        raise SourceError(
            f"none of the {kept} conversations of {names} has an answer of the assistant, so there is nothing to learn from them"
        )
    for report in reports:
        counts.update({f"records of conversations set aside: {reason}": n for reason, n in report.reasons.items()})
    return Read(table, reports, counts)


def _batches(stream: Iterable[tuple[str, Whole]], counts: Counter[str]) -> Iterator[pa.RecordBatch]:
    seen, rows = set[bytes](), list[tuple[str, str, str, list[dict[str, str]], str]]()
    for source, whole in stream:
        open_end = whole.messages[-1]["role"] == "user"
        messages = whole.messages[:-1] if open_end else whole.messages
        if not messages or messages[-1]["role"] != "assistant":
            counts[UNANSWERED] += 1
            continue
        before, last = messages[:-1], messages[-1]
        counts[SHORTENED] += open_end
        counts[JOINED] += bool(whole.joined)
        prompt_id = context_id(before)
        identity = hashlib.blake2b(f"{prompt_id}\0{last['content']}".encode(), digest_size=16).digest()
        if identity in seen:
            counts[REPEATED] += 1
            continue
        seen.add(identity)
        rows.append((source, prompt_id, identity.hex(), before, last["content"]))
        if len(rows) == BATCH:
            yield _batch(rows)
            rows = []
    if rows:
        yield _batch(rows)


def _batch(rows: list[tuple[str, str, str, list[dict[str, str]], str]]) -> pa.RecordBatch:
    sources, prompts, responses, messages, texts = zip(*rows, strict=True)
    turns = [[m[name] for before in messages for m in before] for name in ("role", "content")]
    ends = np.append(0, np.cumsum([len(before) for before in messages]))
    fields = [MESSAGES.value_type.field(n) for n in range(2)]
    structs = pa.StructArray.from_arrays([pa.array(column, pa.string()) for column in turns], fields=fields)
    lists = pa.ListArray.from_arrays(pa.array(ends, pa.int32()), structs)
    columns = [pa.array(column, pa.string()) for column in (sources, prompts, responses, texts)]
    return pa.record_batch([*columns[:3], lists, columns[3]], READ)


# ----------------------------------------------------------------------------------------------------------------------------- sides


def sided(
    told: pa.Table,
    data: Iterable[pa.Table],
    share: float,
    validation: Mapping[str, pa.ChunkedArray | pa.Array],
    benchmarks: Mapping[str, pa.ChunkedArray],
    rule: Decontamination,
) -> Sided:
    """Conversations on their sides, train and held_out.

    told: schema READ; data: tables with `split` (train or held_out) and `messages` of the rated responses and pairs that are tuned on beside
    them; validation, benchmarks: by name, the conversations that must not be trained.

    A conversation whose prompt the data have goes to its side there, so that the data stay as they are without conversations. The others are
    held out by the hash that holds out the data's prompts, of the first prompt of each: conversations that begin alike, as those of a tree
    do, are on one side. What would then be trained on a prompt that is held out elsewhere is left out. Raises ValueError where a side
    has none.
    """
    prompts = Prompts.of(told["messages"])
    dropped = _dropped(told, prompts, validation, benchmarks, rule)
    here = ~np.asarray(pc.is_in(told["response_id"], dropped["response_id"]), dtype=bool)
    held, trained = _of_data(data)
    in_held, in_trained = np.isin(prompts.whole, held), np.isin(prompts.whole, trained)
    drawn = np.asarray(with_split(pa.table({"prompt_id": prompts.first}), share)["split"]) != "train"
    held_out = np.where(in_held | in_trained, in_held, drawn)
    learns_held_out = ~held_out & prompts.any(prompts.keys, np.append(held, prompts.whole[held_out]))
    crossed = here & (learns_held_out | (in_held & in_trained))
    kept = here & ~crossed
    _both_sides(held_out[kept], int((~here).sum()), int(crossed.sum()))
    counts = Counter({MOVED: int((kept & (held_out != drawn)).sum()), CROSSED: int(crossed.sum())})
    whole = told.append_column("split", pa.array(np.where(held_out, "held_out", "train")))
    whole = whole.append_column("origin", pa.array(["conversations"] * len(told), pa.string()))
    whole = whole.append_column("best", pa.array(np.ones(len(told), dtype=bool)))
    table = whole.filter(pa.array(kept)).select(TUNED_ON.names).cast(TUNED_ON)
    return Sided(table, dropped.select(DROPPED.names), counts)


@dataclass(frozen=True)
class Prompts:
    """The prompts of conversations: each user turn, with those before it.

    keys: a hash of each prompt's words, 64 bits, in order: the same for equal prompts (`texts.words.keys_of`), and else, but for one pair in
    1e19, another; row: the conversation of each; whole: of every conversation that has a prompt the key of the last, which has all its user
    turns; first: of these the words of the first user turn.
    """

    keys: Keys
    row: Rows
    whole: Keys
    first: list[str]

    @classmethod
    def of(cls, messages: pa.ChunkedArray | pa.Array) -> Self:
        """The prompts of a column of lists of role and content."""
        digests, row, first = list[bytes](), [np.zeros(0, np.int64)], list[str]()
        start = 0
        for chunk in messages.chunks if isinstance(messages, pa.ChunkedArray) else [messages]:
            for part in (chunk.slice(at, BATCH) for at in range(0, len(chunk), BATCH)):
                row.append(start + _hash(part, digests, first))
                start += len(part)
        keys, rows = np.frombuffer(b"".join(digests), dtype="<u8").astype(np.uint64), np.concatenate(row)
        return cls(keys, rows, keys[np.append(rows[1:] != rows[:-1], True)[: len(rows)]], first)

    def any(self, keys: Keys, among: Keys) -> Mask:
        """Of each conversation, whether one of its `keys` is among others. For conversations each of which has a prompt."""
        hits = np.zeros(len(self.whole), dtype=bool)
        hits[self.row[np.isin(keys, among)]] = True
        return hits


def _hash(lists: pa.Array, digests: list[bytes], first: list[str]) -> Rows:
    """Append a digest of every prompt of some conversations, and the words of the first prompt of each; the conversation of each prompt."""
    lengths = np.asarray(pc.fill_null(pc.list_value_length(lists), 0), dtype=np.int64)
    turns = lists.flatten()
    mine = pc.equal(pc.struct_field(turns, "role"), "user")
    row = np.repeat(np.arange(len(lists)), lengths)[np.asarray(mine, dtype=bool)]
    texts = pc.fill_null(pc.struct_field(turns, "content").filter(mine), "")
    said, at, hashed = list[str](), -1, hashlib.blake2b(digest_size=8)
    worded = False
    for place, text, words in zip(
        row.tolist(), texts.to_pylist(), pc.binary_join(words_of(texts), " ").to_pylist(), strict=True
    ):
        if begins := place != at:
            said, at, hashed, worded = [], place, hashlib.blake2b(digest_size=8), False
        said.append(text)
        if words:
            hashed.update((" " * worded + words).encode())
            worded = True
        # turns without words are told apart by what they are instead
        key = words if worded else keys_of(pa.array(["\n".join(said)], pa.string()))[0].as_py()
        digests.append(hashed.digest() if worded else hashlib.blake2b(key.encode(), digest_size=8).digest())
        if begins:
            first.append(key)
    return row


def _of_data(data: Iterable[pa.Table]) -> tuple[Keys, Keys]:
    """Of the data the keys of the prompts that are held out, and of those that are trained, with those on the way to them."""
    held, trained = [np.zeros(0, np.uint64)], [np.zeros(0, np.uint64)]
    for table in data:
        train = pc.equal(table["split"], "train")
        held.append(Prompts.of(table["messages"].filter(pc.invert(train))).whole)
        trained.append(Prompts.of(table["messages"].filter(train)).keys)
    return np.concatenate(held), np.concatenate(trained)


def _dropped(
    told: pa.Table,
    prompts: Prompts,
    validation: Mapping[str, pa.ChunkedArray | pa.Array],
    benchmarks: Mapping[str, pa.ChunkedArray],
    rule: Decontamination,
) -> pa.Table:
    """Conversations that must not be trained: schema DROPPED with `response_id`, by prompt and benchmark.

    They have a prompt that is equal to one of a validation split or benchmark, or their user turns overlap with a benchmark's.
    """
    found = dict[tuple[int, str], float]()
    for name, messages in {**validation, **benchmarks}.items():
        equal = prompts.any(prompts.keys, Prompts.of(messages).whole)
        found |= dict.fromkeys(((row, name) for row in np.flatnonzero(equal).tolist()), 1.0)
    texts = {name: prompt_texts(messages) for name, messages in benchmarks.items()}
    for close in overlaps(prompt_texts(told["messages"]), texts, rule).to_pylist():
        place = (close["prompt"], close["benchmark"])
        found[place] = max(found.get(place, 0.0), close["overlap"])
    rows = told.select(["prompt_id", "response_id", "source"]).take(pa.array([row for row, _ in found], pa.int64()))
    table = rows.append_column("benchmark", pa.array([name for _, name in found], pa.string()))
    table = table.append_column("overlap", pa.array(list(found.values()), pa.float64()))
    return table.sort_by([("prompt_id", "ascending"), ("benchmark", "ascending")])


def _both_sides(out: Mask, dropped: int, crossed: int) -> None:
    held_out = int(out.sum())
    if not held_out or held_out == len(out):
        raise ValueError(
            f"there are {len(out) - held_out} conversations to train on and {held_out} held out; both are needed. {dropped} were left out, as a "
            f"prompt of theirs is in a benchmark or a validation split, and {crossed}, as one is held out elsewhere. Bring more conversations, or "
            "change alignment.held_out_share"
        )
