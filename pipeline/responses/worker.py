"""The stage's worker: the responses of one checkpoint's generators, by one engine.

Writes `answers.parquet`, a row for each of the input, in the same order.
"""

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.engines.asking import Asking, Question
from pipeline.engines.spec import AskingSpec
from pipeline.settings import Sampling
from pipeline.store import read_table, write_table
from pipeline.worker import Figures, Log, run_worker


class ResponsesSpec(AskingSpec):
    """The responses of some generators; input: a table in the schema REQUESTS."""

    worker = "pipeline.responses.worker"


def work(spec: ResponsesSpec, log: Log) -> Figures:
    """Answer; see the module's description."""
    asking = Asking.of(spec, log)
    answers, tally = asking.ask(questions_in(read_table(spec.input)))
    write_table(answers, spec.out / "answers.parquet")
    return {**tally.figures(), "refused": {**tally.refused}, **asking.model}


def questions_in(table: pa.Table) -> Iterator[Question]:
    """The rows of REQUESTS."""
    sampling = {text: Sampling.model_validate_json(text) for text in pc.unique(table["sampling"]).to_pylist()}
    for batch in table.to_batches(max_chunksize=1024):
        for row in batch.to_pylist():
            yield Question(row["messages"], sampling[row["sampling"]], row["seed"])


if __name__ == "__main__":
    run_worker(work, ResponsesSpec)
