"""Where workers run. One verb: `run(context, worker, spec, out)`."""

import json
import os
import signal
import subprocess
import sys
from collections import deque
from contextlib import suppress
from pathlib import Path
from typing import Any

import dagster as dg
import psutil
from upath import UPath

from pipeline.worker import ERROR, RESULT

QUIET = {
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_LOGGING_LEVEL": "WARNING",
    "TOKENIZERS_PARALLELISM": "false",
    "PYTHONUNBUFFERED": "1",
}


class LocalCompute(dg.ConfigurableResource):
    """Runs a worker as a subprocess on this machine, in a process group of its own that ends with it."""

    kv_cache_gib: int = 1

    def run(self, context: dg.AssetExecutionContext, worker: str, spec: dict[str, Any], out: UPath) -> dict[str, Any]:
        """Run `python -m WORKER` on a spec until it ends; the result that it left in `out`.

        What it prints goes to `worker.log` in a hidden folder of `out`; its progress goes to the run's log through Pipes.
        Raises `dg.Failure` with the worker's own reason, or with its exit status and last lines where it could give none.
        """
        log = Path(out.path) / ".log" / "worker.log"
        log.parent.mkdir(exist_ok=True)
        (out / ERROR).unlink(missing_ok=True)
        (out / RESULT).unlink(missing_ok=True)
        with dg.open_pipes_session(
            context=context.op_execution_context,
            context_injector=dg.PipesEnvContextInjector()
            if len(json.dumps(spec)) < 50_000
            else dg.PipesTempFileContextInjector(),
            message_reader=dg.PipesTempFileMessageReader(),
            extras={"spec": {**spec, "out": str(out)}},
        ) as session:
            env = {
                **os.environ,
                **QUIET,
                "VLLM_CPU_KVCACHE_SPACE": str(self.kv_cache_gib),
                **session.get_bootstrap_env_vars(),
            }
            with log.open("wb") as output:
                process = subprocess.Popen(
                    [sys.executable, "-m", worker],
                    env=env,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    start_new_session=True,
                )
                peak = _wait(process)
        if process.returncode != 0 or not (out / RESULT).exists():
            raise dg.Failure(description=_reason(worker, process.returncode, out, log), allow_retries=False)
        result: dict[str, Any] = json.loads((out / RESULT).read_text())
        (out / RESULT).unlink()
        context.log.info(f"{worker}: done, peak memory {peak / 2**30:.2f} GiB")
        return {**result, "peak_memory_gib": round(peak / 2**30, 3)}


def _wait(process: "subprocess.Popen[bytes]") -> int:
    """Wait for the end of a process group, or end it when this one is interrupted; the peak of its resident memory in bytes."""
    peak = 0
    try:
        while True:
            try:
                process.wait(timeout=0.5)
                return peak
            except subprocess.TimeoutExpired:
                peak = max(peak, _resident(process.pid))
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def _resident(pid: int) -> int:
    total = 0
    with suppress(psutil.NoSuchProcess):
        root = psutil.Process(pid)
        for member in [root, *root.children(recursive=True)]:
            total += member.memory_info().rss
    return total


def _reason(worker: str, status: int, out: UPath, log: Path) -> str:
    if (out / ERROR).exists():
        error = json.loads((out / ERROR).read_text())
        return f"{worker} failed: {error['type']}: {error['message']}\nIts whole output: {log}"
    died = f"was killed by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
    with log.open(errors="replace") as lines:
        last = "".join(deque(lines, maxlen=15))
    return f"{worker} {died} and left no reason. What it had finished is kept. Its last lines ({log}):\n{last}"
