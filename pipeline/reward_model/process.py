"""One process of a training that several do together: `torchrun ... -m pipeline.reward_model.process SPEC.json FIGURES.json`."""

import json
import os
import sys
from pathlib import Path

from pipeline.reward_model.worker import work


def _say(message: str) -> None:
    print(f"| {message}", flush=True)


if __name__ == "__main__":
    figures = work(json.loads(Path(sys.argv[1]).read_text()), _say)
    if os.environ["RANK"] == "0":
        Path(sys.argv[2]).write_text(json.dumps(figures))
