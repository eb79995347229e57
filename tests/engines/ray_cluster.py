"""A real Ray cluster on this machine, for tests and benchmarks."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil

from pipeline.settings import PROJECT
from tests.helpers import PATIENCE, free_ports


@dataclass
class Cluster:
    """Addresses of a running cluster: for jobs, and for drivers."""

    jobs: str
    drivers: str


@contextmanager
def cluster(cpus: int) -> Iterator[Cluster]:
    """A cluster of one node on loopback, in a process group of its own, gone afterwards."""
    port, dashboard, *others = free_ports(6)
    agents = (
        "dashboard-agent-listen-port",
        "dashboard-agent-grpc-port",
        "metrics-export-port",
        "ray-client-server-port",
    )
    with tempfile.TemporaryDirectory(prefix="ray", dir="/tmp") as folder:
        options = {
            "node-ip-address": "127.0.0.1",
            "port": port,
            "dashboard-host": "127.0.0.1",
            "dashboard-port": dashboard,
            "include-dashboard": "true",
            "num-cpus": cpus,
            "temp-dir": folder,
            **dict(zip(agents, others, strict=True)),
        }
        command = [str(Path(sys.executable).parent / "ray"), "start", "--head", "--block", "--disable-usage-stats"]
        log = Path(folder) / "start.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                command + [f"--{name}={value}" for name, value in options.items()],
                cwd=PROJECT,
                env={**os.environ, "PYTHONPATH": str(PROJECT)},
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        try:
            found = Cluster(f"http://127.0.0.1:{dashboard}", f"127.0.0.1:{port}")
            _wait(found.jobs, process, log)
            yield found
        finally:
            with suppress(psutil.NoSuchProcess):
                for member in psutil.Process(process.pid).children(recursive=True):
                    with suppress(psutil.NoSuchProcess):
                        member.kill()
            process.kill()
            process.wait()


def _wait(jobs: str, process: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if httpx.post(f"{jobs}/api/jobs/", json={"entrypoint": "true"}, timeout=20).status_code == 200:
                return  # the dashboard stands before the agent that takes jobs
        except httpx.HTTPError:
            pass
        time.sleep(0.5)
    raise RuntimeError(f"Ray did not start:\n{log.read_text()[-2000:]}")
