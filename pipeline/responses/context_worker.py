"""The stage's other worker: the contexts of a delivery's prompts, by one engine and the scorers of its candidates.

Writes `contexts.parquet`, `rejected.parquet` and `candidates.parquet`: see `pipeline.responses.contexts.write_contexts`.
"""

from pydantic import Field

from pipeline.engines.asking import Asking
from pipeline.engines.spec import AskingSpec
from pipeline.responses.contexts import Scorer, write_contexts
from pipeline.settings import Checkpoint, Contexts
from pipeline.store import read_table, write_table
from pipeline.worker import Figures, Log, run_worker


class ContextsSpec(AskingSpec):
    """The contexts of a delivery; input: a table in the schema PROMPTS."""

    worker = "pipeline.responses.context_worker"
    contexts: Contexts
    scorers: dict[str, Checkpoint] = Field(description="checkpoints of the scorers that rank candidates, by name")


def work(spec: ContextsSpec, log: Log) -> Figures:
    """Write; see the module's description."""
    asking = Asking.of(spec, log)
    loaded = list[Scorer]()

    def scorers() -> list[Scorer]:
        if not loaded:
            from pipeline.responses.scorers import scorers_of

            loaded.extend(scorers_of(spec.contexts.scorers, spec.scorers, spec.engine.cache))
        return loaded

    made = write_contexts(read_table(spec.input), spec.contexts, asking, scorers, spec.engine.profile_seed)
    write_table(made.contexts, spec.out / "contexts.parquet")
    write_table(made.rejected, spec.out / "rejected.parquet")
    write_table(made.candidates, spec.out / "candidates.parquet")
    return {**made.figures, **asking.model}


if __name__ == "__main__":
    run_worker(work, ContextsSpec)
