"""The stage's worker: scores every response of benchmarks' items. What was scored before is not scored again.

Writes `scores.parquet`, in the schema SCORES.
"""

from pydantic import Field

from pipeline.evaluation.scorers.specs import ScorerSpec
from pipeline.evaluation.scorers.starting import scorer_of
from pipeline.evaluation.scoring import in_processes, score
from pipeline.store import read_table, write_table
from pipeline.worker import Figures, Log, Spec, Uri, run_worker


class ScoringSpec(Spec):
    """The scores of one scorer."""

    worker = "pipeline.evaluation.worker"
    scorer: ScorerSpec
    input: Uri = Field(description="table of the benchmarks' items, in the schema ITEMS")
    work: Uri = Field(description="folder that keeps scores from run to run")
    weights: dict[str, float] = Field(description="weights of the scorer's outputs, by name")


def work(spec: ScoringSpec, log: Log) -> Figures:
    """Score; see the module's description."""
    scorer = scorer_of(spec.scorer, log)
    several = in_processes(spec.scorer, spec.processes) if spec.processes > 1 else None
    table, figures = score(scorer, read_table(spec.input), spec.work, log, spec.weights, several)
    write_table(table, spec.out / "scores.parquet")
    return {**figures, "device": scorer.device, "model_version": scorer.version, "scored_as": scorer.identity}


if __name__ == "__main__":
    run_worker(work, ScoringSpec)
