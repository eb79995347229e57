"""The stage's worker: one engine, and either the contexts of a delivery's prompts or the responses of one checkpoint's generators.

Spec: task (`contexts` | `responses`), input (URI of a Parquet file), work (URI of the finished requests), cache (folder of
de-quantised checkpoints), checkpoint, device, profile_seed; for contexts also sampling, system_prompt. Writes `answers.parquet` or
`contexts.parquet`.
"""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from upath import UPath

from pipeline.draws import seeds
from pipeline.responses.engines import LazyEngine, engine_of
from pipeline.responses.requests import (
    REFUSED,
    FinishedRequests,
    Message,
    Request,
    finish,
    outcomes,
    request_key,
)
from pipeline.responses.schema import CONTEXTS, REJECTED_CONTEXTS
from pipeline.settings import Checkpoint, Sampling
from pipeline.store import write_table
from pipeline.worker import Log, Spec, run_worker


def work(spec: Spec, log: Log) -> dict[str, Any]:
    """Do the task of a spec; see the module's description."""
    checkpoint = Checkpoint.model_validate(spec["checkpoint"])
    engine = engine_of(checkpoint, Path(spec["cache"]), spec["device"], spec["profile_seed"], log)
    finished = FinishedRequests(UPath(spec["work"]))
    key = partial(request_key, model=engine.model, revision=engine.revision, template=engine.template)
    with UPath(spec["input"]).open("rb") as file:
        table = pq.read_table(file)
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
    """Write the assistant turns between the user turns of PROMPTS anew, turn by turn, all prompts of a turn at once.

    A model that writes nothing leaves an empty assistant turn, counted. A conversation that is refused (it has outgrown the model's
    context, say) goes to `rejected.parquet` with the reason.
    """
    sampling = Sampling.model_validate(spec["sampling"])
    system: list[Message] = [{"role": "system", "content": spec["system_prompt"]}] if spec["system_prompt"] else []
    turns: dict[str, list[str]] = dict(zip(table["prompt_id"].to_pylist(), table["turns"].to_pylist(), strict=True))
    conversations: dict[str, list[Message]] = {i: [{"role": "user", "content": t[0]}] for i, t in turns.items()}
    empty, rejected = dict.fromkeys(turns, 0), dict[str, str]()
    totals = {"reused": 0, "answered": 0, "prompt_tokens": 0, "output_tokens": 0, "seconds": 0.0, "start_seconds": 0.0}
    for turn in range(1, max(map(len, turns.values()), default=1)):
        ids = [i for i, t in turns.items() if len(t) > turn and i not in rejected]
        seed = seeds(ids, f"{spec['profile_seed']}/context/{turn}")
        requests = [_request(key, system + conversations[i], sampling, int(s)) for i, s in zip(ids, seed, strict=True)]
        log(f"contexts: assistant turn {turn} of {len(ids)} conversations")
        figures = finish(requests, engine, finished, log)
        for name in totals:
            totals[name] += figures[name]
        answers = outcomes([r.key for r in requests], finished, figures["refused"])
        for i, answer in zip(ids, answers.to_pylist(), strict=True):
            if answer["finish_reason"] == REFUSED:
                rejected[i] = answer["detail"]
            empty[i] += not answer["text"]
            conversations[i] += [
                {"role": "assistant", "content": answer["text"]},
                {"role": "user", "content": turns[i][turn]},
            ]
    model, revision = engine.model, engine.revision
    rows = [
        {
            "prompt_id": i,
            "messages": messages,
            "n_turns": len(turns[i]),
            "model": model if len(turns[i]) > 1 else None,
            "model_revision": revision if len(turns[i]) > 1 else None,
            "empty_turns": empty[i],
        }
        for i, messages in sorted(conversations.items())
        if i not in rejected
    ]
    write_table(pa.Table.from_pylist(rows, schema=CONTEXTS), UPath(spec["out"]) / "contexts.parquet")
    reasons = [{"prompt_id": i, "reason": reason} for i, reason in sorted(rejected.items())]
    write_table(pa.Table.from_pylist(reasons, schema=REJECTED_CONTEXTS), UPath(spec["out"]) / "rejected.parquet")
    return {**totals, "rejected": len(rejected)}


def _request(key: Any, messages: list[Message], sampling: Sampling, seed: int) -> Request:
    return Request(key(messages, sampling=sampling, seed=seed), messages, sampling, seed)


if __name__ == "__main__":
    run_worker(work)
