"""The code location as the commands here see it, and the console that they print to."""

import dagster as dg
from rich.console import Console

console = Console(highlight=False, soft_wrap=True)


def resolve_job(name: str) -> dg.JobDefinition:
    """A job of the code location, found again by the run."""
    return definitions().resolve_job_def(name)


def definitions() -> dg.Definitions:
    """The profile's definitions. Loaded at their first use: a profile that can't be used is told by `main` before."""
    from pipeline.definitions import defs

    return defs
