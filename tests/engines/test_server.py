"""vLLM's own OpenAI-compatible server on loopback, with the real SmolLM2-135M-Instruct, killed in the middle."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path

import pytest
from upath import UPath

from pipeline.engines.finished import FinishedRequests, finish
from pipeline.engines.openai import OpenAIEngine
from pipeline.engines.requests import Request
from pipeline.models.checkpoints import resolve
from pipeline.settings import Sampling, Server, load_profile
from tests.helpers import PATIENCE, free_ports

pytestmark = pytest.mark.engine


class VLLMServer:
    """`vllm serve` in a process group of its own."""

    OPTIONS = (
        "--served-model-name smol --host 127.0.0.1 --dtype bfloat16 --max-model-len 2048 --enforce-eager"
        " --no-enable-chunked-prefill --max-num-batched-tokens 4096 --generation-config vllm"  # as the worker: see VLLMEngine
    )

    def __init__(self, folder: Path, log: Path) -> None:
        (self.port,) = free_ports(1)
        self._folder, self._log = folder, log
        self.start()

    def start(self) -> None:
        command = [
            sys.executable,
            "-m",
            "vllm.entrypoints.openai.api_server",
            "--model",
            str(self._folder),
            "--port",
            str(self.port),
        ]
        env = {**os.environ, "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_LOGGING_LEVEL": "WARNING", "VLLM_NO_USAGE_STATS": "1"}
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                [*command, *self.OPTIONS.split()], env=env, stdout=log, stderr=log, start_new_session=True
            )

    def wait(self) -> None:
        deadline = time.monotonic() + PATIENCE
        while True:
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"http://127.0.0.1:{self.port}/health", timeout=5).close()
                return
            assert self.process.poll() is None, self._log.read_text()[-3000:]
            assert time.monotonic() < deadline, self._log.read_text()[-3000:]
            time.sleep(0.5)

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def test_what_a_real_server_answered_before_it_was_killed_is_kept_and_the_rest_is_told(
    tmp_path: Path, checkpoint_cache: Path
) -> None:
    """That a server which comes back is asked for the rest is tested with a double (`test_engines`)."""
    folder = resolve(load_profile("tiny").checkpoints["smollm2_135m_instruct"], checkpoint_cache)
    served = VLLMServer(folder, tmp_path / "server.log")
    try:
        served.wait()
        finished, said = FinishedRequests(UPath(tmp_path / "work")), list[str]()
        requests = [
            Request(
                f"k{n}",
                [{"role": "user", "content": f"Tell me about the number {n}."}],
                Sampling(temperature=0.8, max_tokens=24),
                n,
            )
            for n in range(40)
        ]

        def kill_at_half() -> None:
            while len(finished.keys()) < 10:
                time.sleep(0.2)
            served.kill()

        killer = threading.Thread(target=kill_at_half)
        killer.start()
        server = Server(base_url=f"http://127.0.0.1:{served.port}/v1", model="smol", concurrency=8, patience_s=3)
        tally = finish(requests, [OpenAIEngine(server, said.append)], finished, said.append, every=5)
        killer.join()
        answers = finished.read().to_pylist()
        assert 10 <= tally.answered < 40
        assert tally.answered + len(tally.refused) == 40
        assert all(reason.startswith("no answer came within 3 s") for reason in tally.refused.values())
        assert {a["request_key"] for a in answers} == {r.key for r in requests} - set(tally.refused)
        assert len({a["text"] for a in answers}) == tally.answered
        assert all(a["output_tokens"] > 0 and a["prompt_tokens"] > 0 for a in answers)
        assert any("tried again" in line for line in said), "the kill was noticed"
    finally:
        served.kill()
