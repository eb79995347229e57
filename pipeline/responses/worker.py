"""The stage's worker: the responses of one checkpoint's generators, by one engine.

Writes `answers.parquet`, a row for each of the input, in the same order.
"""

from collections.abc import Callable, Iterator
from functools import partial

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.engines.finished import FinishedRequests, finish, outcomes
from pipeline.engines.requests import Request, request_key
from pipeline.engines.spec import AskingSpec
from pipeline.engines.starting import engine_of
from pipeline.settings import Sampling
from pipeline.store import read_table, write_table
from pipeline.worker import Figures, Log, run_worker


class ResponsesSpec(AskingSpec):
    """The responses of some generators; input: a table in the schema REQUESTS."""

    worker = "pipeline.responses.worker"


def work(spec: ResponsesSpec, log: Log) -> Figures:
    """Answer; see the module's description."""
    engine = engine_of(spec.engine, log)
    key = partial(request_key, model=engine.model, revision=engine.revision, template=engine.template)
    requests = list(requests_in(read_table(spec.input), key))
    keys, finished = [request.key for request in requests], FinishedRequests(spec.work)
    figures = finish(requests, engine, finished, log)
    del requests  # their texts make room for the answers
    write_table(outcomes(keys, finished, figures["refused"]), spec.out / "answers.parquet")
    return {**figures, "model": engine.model, "model_revision": engine.revision}


def requests_in(table: pa.Table, key: Callable[..., str]) -> Iterator[Request]:
    """The rows of REQUESTS with their keys. key: `request_key` with model, revision and template given."""
    sampling = {text: Sampling.model_validate_json(text) for text in pc.unique(table["sampling"]).to_pylist()}
    for batch in table.to_batches(max_chunksize=1024):
        for row in batch.to_pylist():
            settings, seed = sampling[row["sampling"]], row["seed"]
            yield Request(key(row["messages"], sampling=settings, seed=seed), row["messages"], settings, seed)


if __name__ == "__main__":
    run_worker(work, ResponsesSpec)
