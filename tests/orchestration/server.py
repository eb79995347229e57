"""A real `dagster dev` on loopback for tests: webserver and daemon, driven over GraphQL as the UI drives them."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipeline.settings import PROJECT
from tests.helpers import PATIENCE, free_ports

QUICK_DAEMON = Path(__file__).with_name("quick_daemon")


class Server:
    def __init__(self, url: str) -> None:
        self.url = url

    def query(self, text: str, **variables: Any) -> Any:
        body = json.dumps({"query": text, "variables": variables}).encode()
        request = urllib.request.Request(f"{self.url}/graphql", body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            return json.load(answer)["data"]

    def add_delivery(self, key: str, location: str) -> None:
        answer = self.query(
            """mutation($key: String!, $selector: RepositorySelector!) {
                 addDynamicPartition(partitionKey: $key, partitionsDefName: "delivery", repositorySelector: $selector) { __typename }
               }""",
            key=key,
            selector={"repositoryName": "__repository__", "repositoryLocationName": location},
        )
        assert answer["addDynamicPartition"]["__typename"] == "AddDynamicPartitionSuccess", answer

    def backfill(self, assets: list[str], partitions: list[str]) -> str:
        """What `Materialize selected` does for assets with and without partitions; the status at the end."""
        answer = self.query(
            """mutation($params: LaunchBackfillParams!) {
                 launchPartitionBackfill(backfillParams: $params) {
                   __typename ... on LaunchBackfillSuccess { backfillId } ... on PythonError { message } } }""",
            params={"assetSelection": [{"path": a.split("/")} for a in assets], "partitionNames": partitions},
        )["launchPartitionBackfill"]
        backfill = answer["backfillId"]
        return self.wait(
            lambda: self.query("query($id: String!) { partitionBackfillOrError(backfillId: $id) { ... on PartitionBackfill { status } } }",
                               id=backfill)["partitionBackfillOrError"]["status"],
            {"COMPLETED_SUCCESS", "COMPLETED_FAILED", "FAILED", "CANCELED"},
        )  # fmt: skip

    def launch(self, assets: list[str], location: str) -> str:
        """Start a run of unpartitioned assets, as the UI's button does; its id."""
        answer = self.query(
            """mutation($params: ExecutionParams!) {
                 launchPipelineExecution(executionParams: $params) { __typename ... on LaunchRunSuccess { run { runId } } } }""",
            params={
                "selector": {
                    "repositoryName": "__repository__",
                    "repositoryLocationName": location,
                    "pipelineName": "__ASSET_JOB",
                    "assetSelection": [{"path": a.split("/")} for a in assets],
                    "assetCheckSelection": None,
                },
                "mode": "default",
            },
        )
        return str(answer["launchPipelineExecution"]["run"]["runId"])

    def run_status(self, run: str) -> str:
        return self.wait(
            lambda: self.query("query($id: ID!) { runOrError(runId: $id) { ... on Run { status } } }", id=run)[
                "runOrError"
            ]["status"],
            {"SUCCESS", "FAILURE", "CANCELED"},
        )

    @staticmethod
    def wait(state: Any, ends: set[str], seconds: float = PATIENCE) -> str:
        deadline = time.monotonic() + seconds
        while (now := state()) not in ends:
            assert time.monotonic() < deadline, f"still {now} after {seconds} s"
            time.sleep(0.5)
        return str(now)


@contextmanager
def dagster_dev(home: Path, module: str, env: Mapping[str, str]) -> Iterator[Server]:
    """`dagster dev` on a module until the end of the block, with a daemon that doesn't wait half a minute between two looks."""
    home.mkdir(exist_ok=True)
    shutil.copy(PROJECT / "pipeline" / "dagster.yaml", home / "dagster.yaml")
    (port,) = free_ports(1)
    command = [sys.executable, "-m", "dagster", "dev", "-m", module, "-h", "127.0.0.1", "-p", str(port)]
    log = (home / "dev.log").open("wb")
    process = subprocess.Popen(
        command,
        cwd=PROJECT,
        env={
            **os.environ,
            **env,
            "DAGSTER_HOME": str(home),
            "PYTHONPATH": os.pathsep.join([str(QUICK_DAEMON), *filter(None, [os.environ.get("PYTHONPATH")])]),
        },
        stdout=log,
        stderr=log,
        start_new_session=True,
    )
    try:
        server = Server(f"http://127.0.0.1:{port}")
        deadline = time.monotonic() + PATIENCE
        while True:
            with contextlib.suppress(OSError):
                if server.query("{ workspaceOrError { __typename } }"):
                    break
            assert process.poll() is None, (home / "dev.log").read_text()[-3000:]
            assert time.monotonic() < deadline, (home / "dev.log").read_text()[-3000:]
            time.sleep(0.5)
        yield server
    finally:
        os.killpg(process.pid, signal.SIGINT)
        try:
            process.wait(5)  # it seldom ends by itself, and what it holds is thrown away
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        log.close()
