"""The code location as the commands here see it. Loaded at its first use: a profile that can't be used is told before that."""

import dagster as dg


def definitions() -> dg.Definitions:
    """The definitions of the profile that `PIPELINE_PROFILE` names."""
    from pipeline.definitions import defs

    return defs


def resolve_job(name: str) -> dg.JobDefinition:
    """A job of the code location, found again by the run."""
    return definitions().resolve_job_def(name)
