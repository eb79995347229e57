"""Several processes of one machine that work together, and talk to the one that started them by lines.

A line that begins with `| ` is for the log, `= ` is something that is done, `! ` is why the process fails.
"""

import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.worker import Figures, Log, Spec, stop_with_parent

QUOTA = Path("/sys/fs/cgroup/cpu.max")
QUIET = {
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_LOGGING_LEVEL": "WARNING",
    "TOKENIZERS_PARALLELISM": "false",
    "PYTHONUNBUFFERED": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
}
"""The environment of a worker: nothing is told to anybody, and what libraries say is short."""

# ------------------------------------------------------------------------------------------------------------------ the one that starts them


@dataclass(frozen=True)
class Start:
    """A process to be started: what it is called where it fails, the arguments of Python, and what is new in its environment."""

    name: str
    arguments: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)


def heard(starts: Sequence[Start], log: Log) -> Iterator[str]:
    """What processes say that is done, as they say it, until all have ended. One that fails ends the others, and so does who stops to listen.

    Raises RuntimeError with the reason that a process gave, or with its last lines.
    """
    said: queue.Queue[tuple[int, str | None]] = queue.Queue()
    running, others = list[subprocess.Popen[str]](), [list[str]() for _ in starts]
    try:
        for number, start in enumerate(starts):
            running.append(
                subprocess.Popen(
                    [sys.executable, *start.arguments],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    text=True,
                    env={**os.environ, **start.environment},
                )
            )
            threading.Thread(target=_listen, args=(running[-1], number, said), daemon=True).start()
        left = len(starts)
        while left:
            number, line = said.get()
            if line is None:
                left -= 1
                if status := running[number].returncode:
                    reasons = [text[2:] for text in others[number] if text.startswith("! ")] or others[number][-40:]
                    raise RuntimeError(f"{starts[number].name} ended with status {status}:\n" + "\n".join(reasons))
            elif line.startswith("= "):
                yield line[2:]
            elif line.startswith("| "):
                log(line[2:])
            else:
                others[number].append(line)
    finally:
        for process in running:
            process.kill()
            process.wait()


def _listen(process: "subprocess.Popen[str]", number: int, said: "queue.Queue[tuple[int, str | None]]") -> None:
    for line in process.stdout or ():
        said.put((number, line.rstrip()))
    process.wait()
    said.put((number, None))


def cores() -> int:
    """Cores that this process may keep busy: those it may run on, or the quota of its container where that is less (cpu.max of cgroup v2)."""
    allowed = len(os.sched_getaffinity(0))
    try:
        quota, period = QUOTA.read_text().split()
    except OSError:  # no cgroup v2, or no container
        return allowed
    return allowed if quota == "max" else min(allowed, max(1, round(int(quota) / int(period))))


def threads() -> dict[str, str]:
    """The environment of a process that computes: how its threads wait for each other, and where a quota limits them, how many there are.

    OpenMP's threads spin while they wait. Beside anything else on the same cores they then spin away the turn of the thread that they wait
    for, at every one of the hundreds of operations of a step. Where they sleep at once, waking them takes as long as many an operation. So
    they spin for some microseconds, and sleep then; docs/how-fast.md has what each gives. What the environment says already stays.
    """
    wanted = {} if "OMP_WAIT_POLICY" in os.environ else {"GOMP_SPINCOUNT": "1000"}
    if cores() < len(os.sched_getaffinity(0)):
        wanted["OMP_NUM_THREADS"] = str(cores())
    return {name: os.environ.get(name, value) for name, value in wanted.items()}


def share_of_machine(number: int, processes: int) -> dict[str, str]:
    """The environment of one of so many processes that work side by side: an accelerator of its own, and its share of the cores."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    device = visible[number % len(visible)] if visible != [""] else str(number)
    return {"CUDA_VISIBLE_DEVICES": device, "OMP_NUM_THREADS": str(max(1, cores() // processes))}


def together(module: str, spec: Spec, log: Log) -> Figures:
    """Run a module on a spec in `spec.processes` processes that torchrun starts; figures of the first of them.

    Raises RuntimeError with the reason that one gave, or with their last lines.
    """
    place = Path(str(spec.work))
    place.mkdir(parents=True, exist_ok=True)
    spec_file, result = place.with_name(f"{place.name}.spec.json"), place.with_name(f"{place.name}.figures.json")
    spec_file.write_text(spec.model_dump_json())
    run = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(spec.processes)]
    start = Start(f"training in {spec.processes} processes", [*run, "-m", module, str(spec_file), str(result)])
    for _ in heard([start], log):
        pass
    figures: Figures = json.loads(result.read_text())
    spec_file.unlink()
    result.unlink()
    return figures


# ------------------------------------------------------------------------------------------------------------------------ one of them


def say(message: str) -> None:
    """Log of a process: a line for the one that started it."""
    _line("|", message)


def done(message: str) -> None:
    """Say that something is done."""
    _line("=", message)


@contextmanager
def taking_part(name: str = "") -> Iterator[None]:
    """Say why this process fails, where it does, and end it with status 1. It stops when the one that started it has died."""
    stop_with_parent()
    try:
        yield
    except Exception as error:
        _line("!", f"{name}{type(error).__name__}: {error}")
        raise SystemExit(1) from None


def _line(kind: str, message: str) -> None:
    print(f"{kind} {message}".replace("\n", " "), flush=True)


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
