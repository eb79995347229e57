"""The stage's worker: one engine, and either the contexts of a delivery's prompts or the responses of one checkpoint's generators.

Spec: task (`contexts` | `responses`), input (URI of a Parquet file), work (URI of the finished requests), cache (folder of
de-quantised checkpoints), checkpoint, device, profile_seed; for contexts also contexts (settings), scorers (checkpoints by name). Writes
`answers.parquet`, or `contexts.parquet`, `rejected.parquet` and `candidates.parquet`.
"""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from upath import UPath

from pipeline.engines.finished import FinishedRequests, finish, outcomes
from pipeline.engines.requests import Message, Request, request_key
from pipeline.engines.starting import LazyEngine, engine_of
from pipeline.responses.contexts import Scorer, write_contexts
from pipeline.settings import Checkpoint, Contexts, Sampling
from pipeline.store import read_table, write_table
from pipeline.worker import Log, Spec, run_worker


def work(spec: Spec, log: Log) -> dict[str, Any]:
    """Do the task of a spec; see the module's description."""
    engine = engine_of(spec, log)
    finished = FinishedRequests(UPath(spec["work"]))
    key = partial(request_key, model=engine.model, revision=engine.revision, template=engine.template)
    table = read_table(UPath(spec["input"]))
    task = {"contexts": _contexts, "responses": _responses}[spec["task"]]
    return {**task(spec, table, key, engine, finished, log), "model": engine.model, "model_revision": engine.revision}


def _responses(
    spec: Spec, table: pa.Table, key: Any, engine: LazyEngine, finished: FinishedRequests, log: Log
) -> dict[str, Any]:
    """Answer every row of REQUESTS; `answers.parquet` has a row for each, in the same order."""
    requests = list(requests_in(table, key))
    keys = [request.key for request in requests]
    figures = finish(requests, engine, finished, log)
    del requests  # their texts make room for the answers
    write_table(outcomes(keys, finished, figures["refused"]), UPath(spec["out"]) / "answers.parquet")
    return figures


def requests_in(table: pa.Table, key: Any) -> Iterator[Request]:
    """The rows of REQUESTS with their keys. key: `request_key` with model, revision and template given."""
    sampling = {text: Sampling.model_validate_json(text) for text in pc.unique(table["sampling"]).to_pylist()}
    for batch in table.to_batches(max_chunksize=1024):
        for row in batch.to_pylist():
            yield _request(key, row["messages"], sampling[row["sampling"]], row["seed"])


def _contexts(
    spec: Spec, table: pa.Table, key: Any, engine: LazyEngine, finished: FinishedRequests, log: Log
) -> dict[str, Any]:
    """Contexts of PROMPTS, those refused, and all candidates, as three files."""
    wanted, loaded = Contexts.model_validate(spec["contexts"]), list[Scorer]()

    def scorers() -> list[Scorer]:
        if not loaded:
            from pipeline.responses.scorers import scorers_of

            checkpoints = {name: Checkpoint.model_validate(c) for name, c in spec["scorers"].items()}
            loaded.extend(scorers_of(wanted.scorers, checkpoints, Path(spec["cache"])))
        return loaded

    *tables, figures = write_contexts(table, wanted, key, engine, finished, scorers, spec["profile_seed"], log)
    for name, one in zip(("contexts", "rejected", "candidates"), tables, strict=True):
        write_table(one, UPath(spec["out"]) / f"{name}.parquet")
    return figures


def _request(key: Any, messages: list[Message], sampling: Sampling, seed: int) -> Request:
    return Request(key(messages, sampling=sampling, seed=seed), messages, sampling, seed)


if __name__ == "__main__":
    run_worker(work)
