"""The stage's worker: scores every response of benchmarks' items. What was scored before is not scored again.

Spec: scorer (see `pipeline.evaluation.scorers.starting.ScorerSpec`), input (URI of a table in the schema ITEMS), work (URI of the scores that are
kept), weights (of the scorer's outputs), processes. Writes `scores.parquet`, in the schema SCORES.
"""

from typing import Any

from upath import UPath

from pipeline.evaluation.scorers.specs import SPEC
from pipeline.evaluation.scorers.starting import scorer_of
from pipeline.evaluation.scoring import in_processes, score
from pipeline.store import read_table, write_table
from pipeline.worker import Log, Spec, run_worker


def work(spec: Spec, log: Log) -> dict[str, Any]:
    """Score; see the module's description."""
    settings = SPEC.validate_python(spec["scorer"])
    scorer = scorer_of(settings, log)
    several = in_processes(settings, spec["processes"]) if spec["processes"] > 1 else None
    table, figures = score(scorer, read_table(UPath(spec["input"])), UPath(spec["work"]), log, spec["weights"], several)
    write_table(table, UPath(spec["out"]) / "scores.parquet")
    return {**figures, "device": scorer.device, "model_version": scorer.version, "scored_as": scorer.identity}


if __name__ == "__main__":
    run_worker(work)
