"""Test doubles: workers that do one thing, for tests of `resources.compute`. Run as `python -m tests.orchestration.doubles`."""

import os
import signal
import sys
import time
from typing import Literal

from pipeline.worker import Figures, Log, Progress, Spec, run_worker


class DoubleSpec(Spec):
    """What a double does."""

    worker = "tests.orchestration.doubles"
    do: Literal["succeed", "raise", "be killed", "leave", "hang"]


def work(spec: DoubleSpec, log: Log) -> Figures:
    """Do what the spec says: succeed, raise, be killed, leave, or hang."""
    match spec.do:
        case "succeed":
            progress = Progress(log, "items", 3)
            for n in range(1, 4):
                progress.update(n)
            (spec.out / "file.txt").write_text("done")
            return {"n": 3}
        case "raise":
            raise ValueError("the input has no rows: give it some")
        case "be killed":
            print("the last thing that it said", flush=True)
            os.kill(os.getpid(), signal.SIGKILL)
        case "leave":
            sys.stdout.flush()
            os._exit(0)
        case "hang":
            (spec.out / "pid").write_text(str(os.getpid()))
            time.sleep(600)


if __name__ == "__main__":
    run_worker(work, DoubleSpec)
