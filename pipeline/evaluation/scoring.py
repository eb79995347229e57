"""Scores of a benchmark's responses, each conversation scored once, ever: what is scored is kept under a hash of all that it depends on.

A process that is killed loses what it scored in its last five seconds.
"""

import hashlib
import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from upath import UPath

from pipeline.evaluation.schema import SCORES
from pipeline.evaluation.score_store import KEEP_SECONDS, ScoreStore
from pipeline.evaluation.scorers.scorer import Conversation, Scored, Scorer
from pipeline.evaluation.scorers.specs import BaselineSpec, EndpointSpec, ModelSpec
from pipeline.evaluation.scorers.starting import scorer_of
from pipeline.store import read_table, write_json, write_table
from pipeline.vocabulary import OUTPUTS
from pipeline.worker import Log, Progress

ScorerSettings = ModelSpec | EndpointSpec | BaselineSpec


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


def keys_of(identity: Mapping[str, Any], asked: Sequence[Conversation]) -> list[str]:
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
    several: Callable[..., Any] | None = None,
) -> tuple[pa.Table, dict[str, Any]]:
    """Scores of ITEMS in the schema SCORES, and the figures of the run; what `folder` has of them is not scored again.

    weights: of the scorer's outputs, that make the goodness; a scorer of one output needs none. several: scores in several processes
    instead, see `in_processes`. Raises ValueError where weights are missing, or of outputs that there aren't.
    """
    factors = factors_of(scorer.outputs, weights, scorer.name)
    asked, index = conversations(items)
    store, keys = ScoreStore(folder), keys_of(scorer.identity, asked)
    todo = np.flatnonzero(~np.asarray(pc.is_in(pa.array(keys, pa.string()), store.read()["key"].combine_chunks())))
    log(f"{scorer.name}: {len(asked)} conversations, {len(asked) - len(todo)} scored before")
    begun = time.monotonic()
    if len(todo):
        rest, its_keys = [asked[n] for n in todo], [keys[n] for n in todo]
        progress, done, tokens = Progress(log, "scored", len(rest)), 0, 0
        for more, read in (several or _kept)(scorer, rest, its_keys, store, log):
            done, tokens = done + more, tokens + read
            progress.update(done, f"{tokens / max(time.monotonic() - begun, 1e-9):.0f} tokens/s" if tokens else "")
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
            f"{name} has the outputs {', '.join(outputs)}: their weights are needed (--weights {outputs[0]}=1,...)"
        )
    if unknown := sorted(set(weights or {}) - set(outputs)):
        raise ValueError(f"weights of {', '.join(unknown)}: {name} predicts {', '.join(outputs)}")
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
    scorer: Scorer, asked: Sequence[Conversation], keys: Sequence[str], store: ScoreStore, log: Log
) -> Iterator[tuple[int, int]]:
    """Score, and keep what is scored; how many conversations and tokens have been done, as they are. What was done before an error is kept."""
    del log
    pending, written = list[Scored](), time.monotonic()

    def write() -> None:
        nonlocal written
        if pending:
            all_ = Scored(
                *(np.concatenate([getattr(s, name) for s in pending]) for name in ("rows", "outputs", "tokens", "cut"))
            )
            pending.clear()
            store.append([keys[row] for row in all_.rows], all_, time.monotonic() - written)
        written = time.monotonic()

    try:
        for scored in scorer.score(asked):
            pending.append(scored)
            if time.monotonic() - written > KEEP_SECONDS:
                write()
            yield len(scored.rows), int(scored.tokens.sum())
    finally:
        write()


# --------------------------------------------------------------------------------------------------------------------- several processes


def in_processes(
    spec: ScorerSettings, processes: int
) -> Callable[[Scorer, Sequence[Conversation], Sequence[str], ScoreStore, Log], Iterator[tuple[int, int]]]:
    """A way to score with so many processes of this machine, one an accelerator, each with a share of the conversations.

    A process that fails, or is killed, ends the others; what each has scored is kept.
    """

    def run(
        scorer: Scorer, asked: Sequence[Conversation], keys: Sequence[str], store: ScoreStore, log: Log
    ) -> Iterator[tuple[int, int]]:
        del scorer
        order = np.argsort([-len(c.content()) for c in asked], kind="stable")
        said: queue.Queue[tuple[int, str | None]] = queue.Queue()
        running = list[subprocess.Popen[str]]()
        with tempfile.TemporaryDirectory() as place:
            try:
                for number in range(min(processes, len(asked))):
                    rows = order[number::processes]
                    shares = {
                        "key": [keys[row] for row in rows],
                        "messages": [list(asked[row].messages) for row in rows],
                        "response": [asked[row].response for row in rows],
                    }
                    given, table = UPath(place) / f"{number}.json", UPath(place) / f"{number}.parquet"
                    write_table(pa.table(shares), table)
                    task = {"spec": spec.model_dump(mode="json"), "input": str(table), "store": str(store.folder)}
                    write_json(given, task)
                    running.append(_start(given, number, processes))
                    threading.Thread(target=_listen, args=(running[-1], number, said), daemon=True).start()
                yield from _until_done(running, said, log)
            finally:
                for process in running:
                    process.kill()
                    process.wait()

    return run


def _start(given: UPath, number: int, processes: int) -> "subprocess.Popen[str]":
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    device = visible[number % len(visible)] if visible != [""] else str(number)
    cores = max(1, (os.cpu_count() or 1) // processes)
    env = {**os.environ, "CUDA_VISIBLE_DEVICES": device, "OMP_NUM_THREADS": str(cores)}
    command = [sys.executable, "-m", "pipeline.evaluation.scoring", str(given)]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=env, stdin=subprocess.DEVNULL
    )


def _listen(process: "subprocess.Popen[str]", number: int, said: "queue.Queue[tuple[int, str | None]]") -> None:
    for line in process.stdout or ():
        said.put((number, line.rstrip()))
    process.wait()
    said.put((number, None))


def _until_done(
    running: Sequence["subprocess.Popen[str]"], said: "queue.Queue[tuple[int, str | None]]", log: Log
) -> Iterator[tuple[int, int]]:
    lines: list[list[str]] = [[] for _ in running]
    left = len(running)
    while left:
        number, line = said.get()
        if line is None:
            left -= 1
            if status := running[number].returncode:
                reasons = [text[2:] for text in lines[number] if text.startswith("! ")] or lines[number][-15:]
                raise RuntimeError(f"scoring process {number} ended with status {status}:\n" + "\n".join(reasons))
        elif line.startswith("= "):
            done, tokens = line[2:].split()
            yield int(done), int(tokens)
        elif line.startswith("| "):
            log(line[2:])
        else:
            lines[number].append(line)


def _share(given: Path) -> int:
    """Score one process' share; progress, what is logged and what goes wrong are printed after `= `, `| ` and `! `."""
    task = json.loads(given.read_text())

    def say(message: str) -> None:
        print(f"| {message}".replace("\n", " "), flush=True)

    try:
        from pipeline.evaluation.scorers.specs import SPEC

        table = read_table(UPath(task["input"]))
        asked = [Conversation(row["messages"], row["response"]) for row in table.to_pylist()]
        scorer = scorer_of(SPEC.validate_python(task["spec"]), say)
        for done, tokens in _kept(scorer, asked, table["key"].to_pylist(), ScoreStore(UPath(task["store"])), say):
            print(f"= {done} {tokens}", flush=True)
    except Exception as error:
        print(f"! {type(error).__name__}: {error}".replace("\n", " "), flush=True)
        return 1
    return 0


if __name__ == "__main__":
    from pipeline.worker import stop_with_parent

    stop_with_parent()
    sys.exit(_share(Path(sys.argv[1])))
