"""The stage's other worker: the contexts of a delivery's prompts, by one engine and the scorers of its candidates.

Writes `contexts.parquet`, `rejected.parquet` and `candidates.parquet`: see `pipeline.responses.contexts.write_contexts`.
"""

from functools import partial

from pydantic import Field

from pipeline.engines.finished import FinishedRequests
from pipeline.engines.requests import request_key
from pipeline.engines.spec import AskingSpec
from pipeline.engines.starting import engine_of
from pipeline.responses.contexts import Scorer, write_contexts
from pipeline.settings import Checkpoint, Contexts
from pipeline.store import read_table, write_table
from pipeline.worker import Figures, Log, run_worker


class ContextsSpec(AskingSpec):
    """The contexts of a delivery; input: a table in the schema PROMPTS."""

    worker = "pipeline.responses.context_worker"
    contexts: Contexts
    scorers: dict[str, Checkpoint] = Field(description="checkpoints of the scorers, by name")


def work(spec: ContextsSpec, log: Log) -> Figures:
    """Write; see the module's description."""
    engine = engine_of(spec.engine, log)
    key = partial(request_key, model=engine.model, revision=engine.revision, template=engine.template)
    loaded = list[Scorer]()

    def scorers() -> list[Scorer]:
        if not loaded:
            from pipeline.responses.scorers import scorers_of

            loaded.extend(scorers_of(spec.contexts.scorers, spec.scorers, spec.engine.cache))
        return loaded

    table, seed = read_table(spec.input), spec.engine.profile_seed
    *tables, figures = write_contexts(
        table, spec.contexts, key, engine, FinishedRequests(spec.work), scorers, seed, log
    )
    for name, one in zip(("contexts", "rejected", "candidates"), tables, strict=True):
        write_table(one, spec.out / f"{name}.parquet")
    return {**figures, "model": engine.model, "model_revision": engine.revision}


if __name__ == "__main__":
    run_worker(work, ContextsSpec)
