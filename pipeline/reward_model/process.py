"""One process of a training that several do together: `torchrun ... -m pipeline.reward_model.process SPEC.json FIGURES.json`."""

import json
import sys
from pathlib import Path

from pipeline.processes import rank, say, taking_part
from pipeline.reward_model.spec import TrainingSpec
from pipeline.reward_model.worker import work


def main(spec: Path, result: Path) -> None:
    """Take part in the training of a spec's file; the first process writes its figures."""
    with taking_part(f"process {rank()}: "):
        figures = work(TrainingSpec.read(json.loads(spec.read_text())), say)
        if not rank():
            result.write_text(json.dumps(figures))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
