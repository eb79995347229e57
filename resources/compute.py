"""Where workers run. One verb: `run(context, spec)`; the spec names its worker."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections import deque
from contextlib import suppress
from pathlib import Path
from typing import Any

import dagster as dg
import psutil
from upath import UPath

from pipeline.engines.spec import AskingSpec
from pipeline.processes import QUIET, threads
from pipeline.settings import Profile
from pipeline.worker import ERROR, RESULT, Figures, Spec

PLACE = "helpsteer-place"
"""Name in a Ray job's metadata of the folder that it works in: no two jobs at a time have the same."""
NO_RESULT = "The job ended, and there is no result: do the cluster's nodes see the store at the same path?"


class Compute(dg.ConfigurableResource["Compute"], ABC):
    """Something that runs workers."""

    kv_cache_gib: int = 1

    @abstractmethod
    def run(self, context: dg.AssetExecutionContext, spec: Spec) -> Figures:
        """Run the worker of a spec until it ends; the result that it left in `spec.out`. Its progress goes to the run's log through Pipes.

        Raises `dg.Failure` with the worker's own reason, or with how it ended and its last lines where it could give none.
        """

    def _environment(self) -> dict[str, str]:
        return {**QUIET, **threads(), "VLLM_CPU_KVCACHE_SPACE": str(self.kv_cache_gib)}


def compute_of(profile: Profile) -> Compute:
    """The compute that a profile names."""
    wanted = profile.compute
    if wanted.kind == "local":
        return LocalCompute(kv_cache_gib=wanted.kv_cache_gib)
    cluster = wanted.ray
    return RayCompute(
        kv_cache_gib=wanted.kv_cache_gib,
        address=cluster.address,
        python=cluster.python or sys.executable,
        cpus=cluster.job_cpus,
        gpu=wanted.device == "cuda",
    )


class LocalCompute(Compute):
    """Runs a worker as a subprocess on this machine, in a process group of its own that ends with it."""

    def run(self, context: dg.AssetExecutionContext, spec: Spec) -> Figures:
        """See `Compute.run`. What it prints goes to `worker.log` in a hidden folder of `out`."""
        log, given = Path(spec.out.path) / ".log" / "worker.log", spec.model_dump(mode="json")
        log.parent.mkdir(exist_ok=True)
        _forget(spec.out)
        with dg.open_pipes_session(
            context=context.op_execution_context,
            context_injector=dg.PipesEnvContextInjector()
            if len(json.dumps(given)) < 50_000
            else dg.PipesTempFileContextInjector(),
            message_reader=dg.PipesTempFileMessageReader(),
            extras={"spec": given},
        ) as session:
            env = {**os.environ, **self._environment(), **session.get_bootstrap_env_vars()}
            with log.open("wb") as output:
                process = subprocess.Popen(
                    [sys.executable, "-m", spec.worker],
                    env=env,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    start_new_session=True,
                )
                peak = _wait(process)
        if process.returncode != 0 or not (spec.out / RESULT).exists():
            raise dg.Failure(description=_reason(spec, process.returncode, log), allow_retries=False)
        result = _result(spec.out)
        context.log.info(f"{spec.worker} is done; its memory was at most {peak / 2**30:.2f} GiB")
        return {**result, "peak_memory_gib": round(peak / 2**30, 3)}


class RayCompute(Compute):
    """Runs a worker as a job on a Ray cluster. An engine's replicas are actors that the job starts; see `pipeline.engines.ray`."""

    address: str
    python: str
    cpus: int = 2
    gpu: bool = False

    def run(self, context: dg.AssetExecutionContext, spec: Spec) -> Figures:
        """See `Compute.run`. What it prints is the job's log, on the cluster's dashboard and in the step's standard output."""
        from dagster_ray import PipesRayJobClient

        _forget(spec.out)
        place = str(spec.work or spec.out)
        try:
            client = PipesRayJobClient(address=self.address)
            self._stop_earlier(context, client.client, place)
        except (OSError, RuntimeError) as error:
            raise dg.Failure(
                description=f"No Ray cluster takes jobs at {self.address}: {error}. Start one (`ray start --head`), or name it in "
                "the profile under compute.ray.address",
                allow_retries=False,
            ) from None
        # for replicas, which have what an engine needs
        waits = isinstance(spec, AskingSpec) and spec.engine.cluster is not None
        job: dict[str, Any] = {
            "entrypoint": shlex.join([self.python, "-m", spec.worker]),
            "runtime_env": {"env_vars": {**self._environment(), "OMP_NUM_THREADS": str(self.cpus)}},
            "metadata": {PLACE: place},
            "entrypoint_num_cpus": 0 if waits else self.cpus,
            "entrypoint_num_gpus": 0 if waits or not self.gpu else spec.processes,
        }
        said = ""
        try:
            given = spec.model_dump(mode="json")
            client.run(context=context.op_execution_context, submit_job_params=job, extras={"spec": given})
        except RuntimeError as error:
            said = str(error)
        except OSError as error:
            said = (
                f"The cluster at {self.address} went away: {error}. A job that goes on there is stopped by the next run"
            )
        if said or not (spec.out / RESULT).exists():
            why = f"{spec.worker} left no reason. What it had finished is kept. {said or NO_RESULT}"
            raise dg.Failure(description=_known(spec) or why, allow_retries=False)
        return _result(spec.out)

    def _stop_earlier(self, context: dg.AssetExecutionContext, client: Any, place: str) -> None:
        """Stop a job that a step has left behind: two of them would do the same work twice."""
        for job in client.list_jobs():
            if not job.status.is_terminal() and (job.metadata or {}).get(PLACE) == place:
                context.log.warning(f"The Ray job {job.submission_id}, which an earlier run has left, is being stopped")
                client.stop_job(job.submission_id)
                while not client.get_job_status(job.submission_id).is_terminal():
                    time.sleep(0.2)


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


def _forget(out: UPath) -> None:
    """Take away what an earlier worker left, so that it isn't taken for this one's."""
    for name in (ERROR, RESULT):
        (out / name).unlink(missing_ok=True)


def _result(out: UPath) -> Figures:
    result: Figures = json.loads((out / RESULT).read_text())
    (out / RESULT).unlink()
    return result


def _known(spec: Spec) -> str | None:
    """The reason that a worker gave for its failure."""
    if not (spec.out / ERROR).exists():
        return None
    error = json.loads((spec.out / ERROR).read_text())
    return f"{spec.worker} failed: {error['type']}: {error['message']}"


def _reason(spec: Spec, status: int, log: Path) -> str:
    if known := _known(spec):
        return f"{known}\nIts whole output is in {log}"
    died = f"was killed by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
    with log.open(errors="replace") as lines:
        last = "".join(deque(lines, maxlen=15))
    return f"{spec.worker} {died} and left no reason. What it had finished is kept. The last lines of its output ({log}):\n{last}"
