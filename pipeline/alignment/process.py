"""A step of a command in a process of its own, so that its memory is free when training begins.

`python -m pipeline.alignment.process WORKER SPEC.json FIGURES.json`
"""

import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from pipeline.evaluation import worker as scoring
from pipeline.processes import Start, heard, say, taking_part
from pipeline.responses import worker as responses
from pipeline.worker import Figures, Log, Spec

WORKERS: Mapping[str, tuple[type[Spec], Callable[[Any, Log], Figures]]] = {
    responses.ResponsesSpec.worker: (responses.ResponsesSpec, responses.work),
    scoring.ScoringSpec.worker: (scoring.ScoringSpec, scoring.work),
}
"""What can run so: by the worker's name its spec and its function."""


def apart(what: str, spec: Spec, environment: Mapping[str, str], log: Log) -> Figures:
    """Run the worker of a spec in a process of its own; its figures. what: what it is called where it fails.

    environment: what is new in the process' environment. It ends with this process. Raises RuntimeError with the reason that it gave, or
    with its last lines.
    """
    with TemporaryDirectory() as place:
        given, result = Path(place) / "spec.json", Path(place) / "figures.json"
        given.write_text(spec.model_dump_json())
        module = ["-m", "pipeline.alignment.process", spec.worker]
        for _ in heard([Start(what, [*module, str(given), str(result)], environment)], log):
            pass
        figures: Figures = json.loads(result.read_text())
    return figures


def main(worker: str, spec: Path, result: Path) -> None:
    """Do the work of a spec's file, and write its figures."""
    with taking_part():
        kind, work = WORKERS[worker]
        result.write_text(json.dumps(work(kind.read(json.loads(spec.read_text())), say)))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
