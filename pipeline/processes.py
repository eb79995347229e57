"""Several processes that work together on one machine."""

import json
import os
import subprocess
import sys
from pathlib import Path

from pipeline.worker import Figures, Log, Spec


def rank() -> int:
    """Number of this process among those that torchrun started together; 0 where it is alone."""
    return int(os.environ.get("RANK", "0"))


def join() -> int:
    """Join the other processes of this training, if there are any; this one's rank."""
    if "RANK" in os.environ:
        import torch
        from torch import distributed

        if not distributed.is_initialized():
            if torch.cuda.is_available():
                torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
            distributed.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    return rank()


def silent(message: str) -> None:
    """Log of a process that leaves the talking to the first one."""
    del message


def together(spec: Spec, log: Log) -> Figures:
    """Train in several processes of this machine, started by torchrun. Raises RuntimeError with the end of what they said."""
    place = Path(str(spec.work))
    place.mkdir(parents=True, exist_ok=True)
    given, found = place.with_name(f"{place.name}.spec.json"), place.with_name(f"{place.name}.figures.json")
    given.write_text(spec.model_dump_json())
    command = ["torch.distributed.run", "--standalone", "--nproc-per-node", str(spec.processes)]
    process = subprocess.Popen(
        [sys.executable, "-m", *command, "-m", "pipeline.reward_model.process", str(given), str(found)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    said: list[str] = []
    for line in process.stdout or ():
        said.append(line.rstrip())
        if line.startswith("| "):
            log(line[2:].rstrip())
    if process.wait():
        reasons = [line[2:] for line in said if line.startswith("! ")] or said[-40:]
        raise RuntimeError(f"training in {spec.processes} processes failed:\n" + "\n".join(reasons))
    figures: Figures = json.loads(found.read_text())
    given.unlink()
    found.unlink()
    return figures
