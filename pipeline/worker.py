"""What every worker process shares: the spec that it is given, progress, its manifest, its last words.

A worker is `python -m pipeline.<stage>.worker`. It opens Dagster Pipes, finds its spec in the extras, writes its files into
`spec.out`, and closes with `_result.json` (figures) there; on an error it leaves `_error.json`, and exits with 1.
A worker whose parent has died stops too.
"""

import os
import shutil
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Annotated, ClassVar, Self, TypeVar

from dagster_pipes import open_dagster_pipes
from pydantic import BaseModel, ConfigDict, Field, JsonValue, PlainSerializer, ValidationError
from upath import UPath

from pipeline.store import write_json

RESULT = "_result.json"
ERROR = "_error.json"
Log = Callable[[str], None]
Figures = dict[str, JsonValue]
"""What a worker gives back: a JSON object."""
Uri = Annotated[UPath, PlainSerializer(str)]
"""A file or folder on any storage; text in JSON."""


class Spec(BaseModel):
    """What a worker is to do: made by an asset or a command, sent as JSON, read by the worker. Each worker has a subclass of its own."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    worker: ClassVar[str]
    """The module that does it: `python -m MODULE`."""
    out: Uri = Field(description="folder that the worker writes into")
    work: Uri | None = Field(None, description="folder that the worker resumes from; the same at every run")
    processes: int = Field(
        1, ge=1, description="number of processes that work together on the worker's machine, one for each accelerator"
    )

    @classmethod
    def read(cls, given: object) -> Self:
        """A spec as it came, a JSON object. Raises ValueError with every field that can't be used."""
        try:
            return cls.model_validate(given)
        except ValidationError as error:
            raise ValueError(f"{cls.worker} can't use its {cls.__name__}: {faults(error)}") from None


def faults(error: ValidationError) -> str:
    """What is wrong with a model's fields, without the values: they may be long, or secret."""
    return "; ".join(f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}" for problem in error.errors())


S = TypeVar("S", bound=Spec)


class Progress:
    """Says how far the work is, and how long the rest will take: at once, then at most every `every` seconds, then at the end."""

    def __init__(
        self, log: Log, what: str, total: int, every: float = 5.0, lengths: Sequence[int] | None = None
    ) -> None:
        """lengths: of the things in tokens, where the longest are done first."""
        self._log, self._what, self._total, self._every = log, what, total, every
        self._work = list(accumulate(sorted(lengths, reverse=True))) if lengths else None
        self._start = self._said = time.monotonic()
        self._first = True

    def update(self, done: int, share: float | None = None, *, note: str = "", left: float | None = None) -> None:
        """Say that `done` of the total are done, where the time has come.

        share: of the work, 0 to 1, where it isn't that of the things or their lengths; left: seconds of work ahead, where they are known better
        than by what the share done so far took.
        """
        now = time.monotonic()
        if not self._first and done < self._total and now - self._said < self._every:
            return
        self._first, self._said = False, now
        if share is None:
            share = self._work[done - 1] / self._work[-1] if self._work and done else done / self._total
        if left is None and share:
            left = (now - self._start) * (1 - share) / share
        ahead = f", {left:.0f} s left" if left and done < self._total else ""
        self._log(f"{self._what}: {done}/{self._total}{f', {note}' if note else ''}{ahead}")


def run_worker(work: Callable[[S, Log], Figures], kind: type[S]) -> None:
    """Run a worker's function on the spec that came through Pipes, of its `kind`; what it returns is the result.

    Exits with 1 on an error, with the error's type and message in `_error.json`.
    """
    stop_with_parent()
    with open_dagster_pipes() as pipes:
        given = pipes.extras["spec"]
        out = UPath(given["out"])
        try:
            write_json(out / RESULT, work(kind.read(given), pipes.log.info))
        except BaseException as error:
            traceback.print_exc()
            write_json(out / ERROR, {"type": type(error).__name__, "message": str(error)})
            sys.stderr.flush()
            raise SystemExit(1) from None


def remove_others(place: Path) -> None:
    """Remove what runs on other data or settings left beside a folder that a training resumes from: nobody goes on from it."""
    place.parent.mkdir(parents=True, exist_ok=True)
    for other in place.parent.iterdir():
        if other != place:
            shutil.rmtree(other)


def stop_with_parent() -> None:
    """End this process when its parent has died: it works for nobody."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1.0)
        os._exit(130)

    threading.Thread(target=watch, daemon=True).start()
