"""Scores of a benchmark's responses, each conversation scored once, ever: what is scored is kept under a hash of all that it depends on.

A process that is killed loses what it scored in its last five seconds.
"""

import hashlib
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel, Field
from upath import UPath

from pipeline.evaluation.schema import SCORES
from pipeline.evaluation.score_store import KEEP_SECONDS, keep, score_store
from pipeline.evaluation.scorers.scorer import Conversation, Scored, Scorer
from pipeline.evaluation.scorers.specs import BaselineSpec, EndpointSpec, ModelSpec, ScorerSpec
from pipeline.evaluation.scorers.starting import scorer_of
from pipeline.parts import Parts
from pipeline.processes import Start, done, heard, say, share_of_machine, taking_part
from pipeline.store import read_table, write_table
from pipeline.vocabulary import OUTPUTS
from pipeline.worker import Log, Progress, Uri

ScorerSettings = ModelSpec | EndpointSpec | BaselineSpec
Several = Callable[[Scorer, Sequence[Conversation], Sequence[str], Parts, Log], Iterator[tuple[int, int, int]]]
"""A way to score: it keeps what is scored, and gives how many conversations, tokens and bytes have been done, as they are."""


def conversations(items: pa.Table) -> tuple[list[Conversation], npt.NDArray[np.int64]]:
    """The different conversations of ITEMS, each with one response, and for every response, in the items' order, which of them it is."""
    places: dict[bytes, int] = {}
    found, index = list[Conversation](), list[int]()
    for batch in items.select(["messages", "responses"]).to_batches(max_chunksize=1024):
        for row in batch.to_pylist():
            for response in row["responses"]:
                conversation = Conversation(row["messages"], response)
                place = places.setdefault(hashlib.sha256(conversation.content()).digest(), len(found))
                if place == len(found):
                    found.append(conversation)
                index.append(place)
    return found, np.array(index, dtype=np.int64)


def score_keys(identity: Mapping[str, object], asked: Sequence[Conversation]) -> list[str]:
    """Under what the score of each conversation is kept: sha256 over the scorer's identity and the conversation, 64 hex digits."""
    start = hashlib.sha256(json.dumps(identity, sort_keys=True).encode() + b"\0")
    keys = []
    for conversation in asked:
        sha = start.copy()
        sha.update(conversation.content())
        keys.append(sha.hexdigest())
    return keys


def score(
    scorer: Scorer,
    items: pa.Table,
    folder: UPath,
    log: Log,
    weights: Mapping[str, float] | None = None,
    several: Several | None = None,
) -> tuple[pa.Table, dict[str, Any]]:
    """Scores of ITEMS in the schema SCORES, and the figures of the run; what `folder` has of them is not scored again.

    weights: of the scorer's outputs, that make the goodness; a scorer of one output needs none. several: scores in several processes
    instead, see `in_processes`. Raises ValueError where weights are missing, or of outputs that there aren't.
    """
    factors = factors_of(scorer.outputs, weights, scorer.name)
    asked, index = conversations(items)
    store, keys = score_store(folder), score_keys(scorer.identity, asked)
    todo = np.flatnonzero(~np.asarray(pc.is_in(pa.array(keys, pa.string()), store.read()["key"].combine_chunks())))
    log(
        f"The scorer is {scorer.name}, version {scorer.version}: of {len(asked)} conversations, {len(asked) - len(todo)} were scored before"
    )
    begun = time.monotonic()
    if len(todo):
        rest, its_keys = [asked[n] for n in todo], [keys[n] for n in todo]
        progress, so_far = Progress(log, "conversations scored", len(rest)), [0, 0, 0]
        size = sum(len(conversation.content()) for conversation in rest)
        for more in (several or _kept)(scorer, rest, its_keys, store, log):
            so_far = [a + b for a, b in zip(so_far, more, strict=True)]
            speed = f"{so_far[1] / max(time.monotonic() - begun, 1e-9):.0f} tokens/s" if so_far[1] else ""
            progress.update(so_far[0], so_far[2] / size, note=speed)
    seconds = time.monotonic() - begun
    kept = store.read()
    store.compact()
    place = pc.index_in(pa.array(keys, pa.string()), kept["key"].combine_chunks())
    there, known = np.asarray(place.is_valid()), kept.take(place.drop_null())
    outputs, read = np.full((len(asked), len(scorer.outputs)), np.nan), np.zeros(len(asked), np.int64)
    outputs[there] = np.array(known["outputs"].to_pylist(), dtype=np.float64).reshape(-1, len(scorer.outputs))
    read[there] = known["tokens"]
    now = int(read[todo].sum())
    figures = {
        "conversations": len(asked),
        "responses": len(index),
        "scored_before": len(asked) - len(todo),
        "scored": int(there[todo].sum()),
        "not_scored": int((~there).sum()),
        "cut": pc.sum(known["cut"]).as_py() or 0,
        "empty": sum(not conversation.response.strip() for conversation in asked),
        "tokens": int(read.sum()),
        "seconds": round(seconds, 2),
        "seconds_of_all": round(pc.sum(known["seconds"]).as_py() or 0.0, 2),
        "tokens_per_second": round(now / seconds, 1) if now else None,
    }
    return table_of(items, outputs[index], scorer.outputs, factors), figures


def factors_of(outputs: Sequence[str], weights: Mapping[str, float] | None, name: str) -> npt.NDArray[np.float64]:
    """What each output is multiplied with. Raises ValueError with what is wrong."""
    if weights is None and len(outputs) > 1:
        raise ValueError(
            f"{name} has several outputs ({', '.join(outputs)}), so their weights are needed; give them with --weights {outputs[0]}=1,..."
        )
    if unknown := sorted(set(weights or {}) - set(outputs)):
        raise ValueError(f"weights: {name} has no output {', '.join(unknown)}; its outputs are {', '.join(outputs)}")
    return np.array([(weights or {outputs[0]: 1.0}).get(output, 0.0) for output in outputs], dtype=np.float64)


def table_of(
    items: pa.Table, outputs: npt.NDArray[np.float64], names: Sequence[str], factors: npt.NDArray[np.float64]
) -> pa.Table:
    """Outputs of all responses, shape (responses, outputs), in the items' order, as a table in the schema SCORES."""
    counts = np.asarray(pc.list_value_length(items["responses"])).astype(np.int64)
    item = np.repeat(np.arange(len(items)), counts)
    starts = np.repeat(np.cumsum(counts) - counts, counts)
    columns: dict[str, Any] = {name: items[name].take(pa.array(item)) for name in ("benchmark", "subset", "item_id")}
    columns["response"] = pa.array(np.arange(len(item)) - starts, pa.int32())
    columns["good"] = pc.list_flatten(items["good"])
    columns["characters"] = pc.utf8_length(pc.list_flatten(items["responses"])).cast(pa.int64())
    columns |= {name: pa.nulls(len(item), pa.float64()) for name in OUTPUTS}
    columns |= {name: outputs[:, n] for n, name in enumerate(names)}
    columns["goodness"] = outputs @ factors
    return pa.table({name: columns[name] for name in SCORES.names}, schema=SCORES)


def reweighed(scores: pa.Table, weights: Mapping[str, Mapping[str, float]]) -> pa.Table:
    """Scores with the goodness that other weights make of their outputs. weights: of each benchmark, by output."""
    goodness = np.full(len(scores), np.nan)
    for benchmark, factors in weights.items():
        mine = np.asarray(pc.equal(scores["benchmark"], benchmark))
        goodness[mine] = sum(
            factor * np.asarray(scores[name], dtype=np.float64)[mine] for name, factor in factors.items()
        )
    return scores.set_column(scores.schema.get_field_index("goodness"), SCORES.field("goodness"), pa.array(goodness))


# -------------------------------------------------------------------------------------------------------------------------- this process


def _kept(
    scorer: Scorer, asked: Sequence[Conversation], keys: Sequence[str], store: Parts, log: Log
) -> Iterator[tuple[int, int, int]]:
    """Score, and keep what is scored; see Several. What was done before an error is kept."""
    del log
    pending, written = list[Scored](), time.monotonic()

    def write() -> None:
        nonlocal written
        if pending:
            all_ = Scored(
                *(np.concatenate([getattr(s, name) for s in pending]) for name in ("rows", "outputs", "tokens", "cut"))
            )
            pending.clear()
            keep(store, [keys[row] for row in all_.rows], all_, time.monotonic() - written)
        written = time.monotonic()

    try:
        for scored in scorer.score(asked):
            pending.append(scored)
            if time.monotonic() - written > KEEP_SECONDS:
                write()
            yield len(scored.rows), int(scored.tokens.sum()), sum(len(asked[row].content()) for row in scored.rows)
    finally:
        write()


# --------------------------------------------------------------------------------------------------------------------- several processes


class Share(BaseModel):
    """What one of several processes scores."""

    scorer: ScorerSpec
    input: Uri = Field(description="table of the process's conversations and their keys")
    store: Uri


def in_processes(spec: ScorerSettings, processes: int) -> Several:
    """A way to score with so many processes of this machine, one an accelerator, each with a share of the conversations.

    A process that fails, or is killed, ends the others; what each has scored is kept.
    """

    def run(
        scorer: Scorer, asked: Sequence[Conversation], keys: Sequence[str], store: Parts, log: Log
    ) -> Iterator[tuple[int, int, int]]:
        del scorer
        order, starts = np.argsort([-len(c.content()) for c in asked], kind="stable"), list[Start]()
        with tempfile.TemporaryDirectory() as place:
            for number in range(min(processes, len(asked))):
                rows = order[number::processes]
                shares = {
                    "key": [keys[row] for row in rows],
                    "messages": [list(asked[row].messages) for row in rows],
                    "response": [asked[row].response for row in rows],
                }
                given, table = Path(place) / f"{number}.json", UPath(place) / f"{number}.parquet"
                write_table(pa.table(shares), table)
                given.write_text(Share(scorer=spec, input=table, store=store.folder).model_dump_json())
                arguments = ["-m", "pipeline.evaluation.scoring", str(given)]
                starts.append(Start(f"scoring process {number}", arguments, share_of_machine(number, processes)))
            for line in heard(starts, log):
                scored, tokens, size = line.split()
                yield int(scored), int(tokens), int(size)

    return run


def _share(given: Path) -> None:
    """Score one process' share, and say how much has been done."""
    share = Share.model_validate_json(given.read_text())
    table = read_table(share.input)
    asked = [Conversation(row["messages"], row["response"]) for row in table.to_pylist()]
    scorer = scorer_of(share.scorer, say)
    for more in _kept(scorer, asked, table["key"].to_pylist(), score_store(share.store), say):
        done(" ".join(map(str, more)))


if __name__ == "__main__":
    with taking_part():
        _share(Path(sys.argv[1]))
