"""One process of a training that several do together: `torchrun ... -m pipeline.reward_model.process SPEC.json FIGURES.json`."""

import json
import os
import sys
from pathlib import Path

from pipeline.reward_model.spec import TrainingSpec
from pipeline.reward_model.worker import work


def _say(message: str) -> None:
    print(f"| {message}", flush=True)


def main(given: Path, found: Path) -> None:
    """Take part in the training of a spec's file; the first process writes its figures. What goes wrong is printed after "! "."""
    try:
        figures = work(TrainingSpec.read(json.loads(given.read_text())), _say)
    except Exception as error:
        print(f"! process {os.environ['RANK']}: {type(error).__name__}: {error}".replace("\n", " "), flush=True)
        raise
    if os.environ["RANK"] == "0":
        found.write_text(json.dumps(figures))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
