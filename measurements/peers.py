"""Generation here beside datatrove's InferenceRunner: the same requests to the same vLLM server, and work repeated after a kill.

`python -m measurements.peers --peer-python PYTHON [--prompts N] [--max-tokens N] [--concurrency N] [--rounds N] [--kills N]`. PYTHON is the
interpreter of an environment with datatrove, for its versions are not ours: `python -m venv peer`, then
`peer/bin/pip install "datatrove[io]==0.10.1" aiofiles aiosqlite httpx xxhash` (its extra `inference` would bring vLLM and SGLang too).

A vLLM server with SmolLM2-135M-Instruct is started on loopback, without prefix caching, so that no run gains from the one before it.
Ours: the `openai` engine through `finish` and the store, as the worker does. datatrove: server type `endpoint`, with checkpoints.
Each run is a process of its own. Prints one JSON object:

- `tokens_per_second`: output tokens over the time from the first request asked for until the outcome is written (imports not on the clock),
  in turns, the order changing each round. `ratio`: ours over datatrove's, the mean over the rounds. `runs` also has each process's whole
  wall time (`process_seconds`) and what it took of the processor while the clock ran (`cpu_seconds`).
- `in_process`: our `vllm` engine with the same requests after the server has ended. It has all of them at once: `--concurrency` is not its.
  On a CPU the server's engine is bound to all cores but one, this one has them all, and loses most of its speed where others use them too:
  see `machine.load_before`, and measure on a quiet machine.
- `after_kill`: each side goes through a counting proxy, is killed (SIGKILL) half a second after a share of its answers has been delivered,
  and started again. `repeated`: requests beyond one of each prompt, of which `finished` had been delivered before the kill (work lost);
  the others were in flight, which nobody can keep. Shares lie between 0.4 and 0.6 over `--kills` runs.
"""

import argparse
import contextlib
import http.client
import json
import os
import platform
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from upath import UPath

from measurements.generation import keyed, quiet
from pipeline.engines.finished import FinishedRequests, finish, outcomes
from pipeline.engines.requests import Engine, Request
from pipeline.models.checkpoints import resolve
from pipeline.prompts.filters import candidate_prompts
from pipeline.prompts.sources import conversations
from pipeline.settings import Decontamination, PromptFilters, Sampling, Server, ShareGPTSource, load_profile
from pipeline.store import write_table

Figures = dict[str, Any]
CHECKPOINT = load_profile("tiny").checkpoints["smollm2_135m_instruct"]
MODEL = "smol"
SIDES: dict[str, Figures] = {
    "pipeline": {"setting": "finish's defaults: a journal at once, Parquet every 512 or 5 s"},
    "datatrove": {"setting": "checkpoints_local_dir, records_per_chunk=500 (its README's)", "records_per_chunk": 500},
    "datatrove_small_chunks": {"setting": "checkpoints_local_dir, records_per_chunk=10", "records_per_chunk": 10},
    "datatrove_no_checkpoints": {"setting": "its default: no checkpoints_local_dir", "records_per_chunk": None},
}
COMPARED = ("pipeline", "datatrove")
"""The sides whose throughput is taken."""


# ----------------------------------------------------------------------------------------------------------------- one side, a process


def child(spec: Figures) -> None:
    """One of our runs: to the end, or on from what an earlier one has left in the folder."""
    sampling = Sampling.model_validate(spec["sampling"])
    rows = [json.loads(line) for line in Path(spec["requests"]).read_text().splitlines()]
    requests = [keyed([{"role": "user", "content": row["text"]}], sampling, row["seed"]) for row in rows]
    folder = Path(spec["folder"])
    if spec["side"] == "in_process":
        from pipeline.engines.vllm import VLLMEngine

        engine = VLLMEngine(resolve(CHECKPOINT, Path(spec["cache"])), CHECKPOINT, "cpu", 1)
        finish(requests[: spec["concurrency"]], [engine], FinishedRequests(UPath(folder / "warm")), quiet)
        runs = []
        for turn in range(spec["rounds"]):
            engine._llm.reset_prefix_cache()
            runs.append(timed(requests, engine, folder / str(turn)))
        print(json.dumps(runs))
    else:
        from pipeline.engines.openai import OpenAIEngine

        server = Server(base_url=f"{spec['url']}/v1", model=MODEL, concurrency=spec["concurrency"])
        print(json.dumps(timed(requests, OpenAIEngine(server, quiet), folder)))


def timed(requests: list[Request], engine: Engine, folder: Path) -> Figures:
    """What the worker does with requests, and what it takes."""
    begun, cpu = time.perf_counter(), time.process_time()
    finished = FinishedRequests(UPath(folder / "work"))
    tally = finish(requests, [engine], finished, quiet)
    table = outcomes([r.key for r in requests], finished, tally.refused)
    write_table(table, UPath(folder / "answers.parquet"))
    seconds, cpu = time.perf_counter() - begun, time.process_time() - cpu
    answers = len(set(table["request_key"].to_pylist())) - len(tally.refused)
    tokens = sum(table["output_tokens"].to_pylist())
    return {"rows": len(table), "answers": answers, "output_tokens": tokens, "seconds": seconds, "cpu_seconds": cpu}


def started(side: str, spec: Figures, peer: str) -> subprocess.Popen[str]:
    """A side's process, in a group of its own; it says its figures as JSON when it has come to its end."""
    script = Path(__file__).parent / "peers_datatrove.py"
    spec = {**spec, **SIDES.get(side, {}), "side": side, "model": MODEL}
    command = [peer, str(script)] if "records_per_chunk" in spec else [sys.executable, __file__, "--child"]
    Path(spec["folder"]).mkdir(parents=True, exist_ok=True)
    with (Path(spec["folder"]) / "log").open("ab") as log:
        return subprocess.Popen(
            [*command, json.dumps(spec)], stdout=subprocess.PIPE, stderr=log, text=True, start_new_session=True
        )


def ended(process: subprocess.Popen[str], spec: Figures) -> Any:
    """The figures of a process that is let run to its end."""
    try:
        said = process.communicate(timeout=1800)[0]
    finally:
        kill(process)
    if process.returncode:
        raise RuntimeError((Path(spec["folder"]) / "log").read_text()[-3000:])
    return json.loads(said.splitlines()[-1])


def kill(process: subprocess.Popen[Any]) -> None:
    """SIGKILL to a process and what it started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


# ------------------------------------------------------------------------------------------------------------------ server and proxy


@contextlib.contextmanager
def served(folder: Path) -> Iterator[int]:
    """The port of vLLM's own server, ready, with the options that the engine has on a CPU."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = f"--served-model-name {MODEL} --host 127.0.0.1 --port {port} --dtype {CHECKPOINT.dtype} --max-model-len {CHECKPOINT.max_context}"
    options += " --enforce-eager --no-enable-chunked-prefill --max-num-batched-tokens 4096 --generation-config vllm --no-enable-prefix-caching"
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(resolve(CHECKPOINT, folder))]
    with (folder / "server.log").open("wb") as log:
        process = subprocess.Popen([*command, *options.split()], stdout=log, stderr=log, start_new_session=True)
    try:
        for _ in range(600):
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5).close()
                break
            if process.poll() is not None:
                break
            time.sleep(0.5)
        else:
            kill(process)
        if process.poll() is not None:
            raise RuntimeError((folder / "server.log").read_text()[-3000:])
        yield port
    finally:
        kill(process)


class Proxy(ThreadingHTTPServer):
    """Passes requests on to a port, and counts: how often each came, and which answers were delivered before `cut`."""

    daemon_threads, request_queue_size = True, 256

    def __init__(self, behind: int) -> None:
        super().__init__(("127.0.0.1", 0), Passing)
        self.behind, self.lock, self.life, self.in_flight = behind, threading.Lock(), 1, 0
        self.seen, self.delivered = Counter[str](), set[str]()
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def cut(self, process: subprocess.Popen[str]) -> None:
        """Kill a client between two deliveries, and wait until the server is done with what it had asked."""
        with self.lock:
            kill(process)
            self.life += 1
        while self.in_flight:
            time.sleep(0.05)


class Passing(BaseHTTPRequestHandler):
    """One connection to the proxy."""

    server: Proxy
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        """Pass on, uncounted."""
        self._pass("GET", b"")

    def do_POST(self) -> None:
        """Pass on and count; what was asked by a client that was killed since is not delivered."""
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self._pass("POST", body, json.dumps(json.loads(body), sort_keys=True))

    def _pass(self, method: str, body: bytes, key: str = "") -> None:
        proxy = self.server
        with proxy.lock:
            life = proxy.life
            proxy.in_flight += 1
            proxy.seen.update([key] if key else [])
        try:
            behind = http.client.HTTPConnection("127.0.0.1", proxy.behind, timeout=600)
            behind.request(method, self.path, body, {"Content-Type": "application/json"})
            reply = behind.getresponse()
            content = reply.read()
            behind.close()
        finally:
            with proxy.lock:
                proxy.in_flight -= 1
        with proxy.lock:
            if life != proxy.life:
                self.close_connection = True
                return
            self.send_response(reply.status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)
            if key and reply.status == 200 and life == 1:
                proxy.delivered.add(key)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


# ---------------------------------------------------------------------------------------------------------------------- measurements


def killed(side: str, spec: Figures, peer: str, behind: int, share: float) -> tuple[Figures, set[str]]:
    """One side, killed and started again; what came twice, and all requests that were seen."""
    with Proxy(behind) as proxy:
        spec = {**spec, "url": f"http://127.0.0.1:{proxy.server_port}"}
        process = started(side, spec, peer)
        try:
            while len(proxy.delivered) < share * spec["prompts"] and process.poll() is None:
                time.sleep(0.01)
            time.sleep(0.5)
            if process.poll() is not None:
                raise RuntimeError(f"{side} ended before it could be killed; raise --prompts")
        finally:
            proxy.cut(process)
        before, asked = set(proxy.delivered), sum(proxy.seen.values())
        again = ended(started(side, spec, peer), spec)
        lost = sum(proxy.seen[key] > 1 for key in before)
        proxy.shutdown()
    figures = {"asked_before": asked, "delivered_before": len(before), "requests": sum(proxy.seen.values())}
    figures |= {"repeated": sum(proxy.seen.values()) - len(proxy.seen), "finished": lost}
    return {**figures, "rows": again["rows"], "answers": again["answers"]}, set(proxy.seen)


def asked_for(prompts: int) -> list[str]:
    """First turns of ShareGPT's conversations, as in `generation.py`: lines of JSON with a seed each."""
    stream, _ = conversations({"s": ShareGPTSource(kind="sharegpt", licence="not stated", limit=2500)})
    judged = candidate_prompts(stream, PromptFilters(max_characters=1500, max_user_turns=1), 1, {}, Decontamination())
    kept = pa.concat_tables(good for good, _ in judged)
    texts = [turns[0] for turns in kept["turns"].to_pylist()[:prompts]]
    return [json.dumps({"seed": n, "text": text}) + "\n" for n, text in enumerate(texts)]


def compare(options: argparse.Namespace, folder: Path) -> Figures:
    """Everything, with the figures of each run."""
    peer, sampling = options.peer_python, {"temperature": 0.7, "top_p": 0.9, "max_tokens": options.max_tokens}
    lines, files = asked_for(options.prompts), {"requests": folder / "requests.jsonl", "warm": folder / "warm.jsonl"}
    files["requests"].write_text("".join(lines))
    files["warm"].write_text("".join(lines[: options.concurrency]))
    spec: Figures = {"requests": str(files["requests"]), "sampling": sampling, "prompts": len(lines)}
    spec |= {"concurrency": options.concurrency, "rounds": options.rounds, "cache": str(folder)}
    runs: dict[str, list[Figures]] = {side: [] for side in COMPARED}
    kills: dict[str, list[Figures]] = {side: [] for side in SIDES}
    asked: list[set[str]] = []
    with served(folder) as port:
        spec["url"] = f"http://127.0.0.1:{port}"
        warm = {**spec, "requests": str(files["warm"])}
        for turn in range(-1, options.rounds):
            for side in COMPARED if turn % 2 else COMPARED[::-1]:
                this = {**(warm if turn < 0 else spec), "folder": str(folder / f"{side}-{turn}")}
                begun = time.perf_counter()
                figures = ended(started(side, this, peer), this)
                if turn >= 0:
                    runs[side].append(figures | {"process_seconds": time.perf_counter() - begun})
        for turn, share in enumerate(np.linspace(0.4, 0.6, options.kills + 2)[1:-1]):
            for side in SIDES:
                this = {**spec, "folder": str(folder / f"{side}-killed-{turn}")}
                figures, seen = killed(side, this, peer, port, share)
                kills[side].append(figures)
                asked.append(seen)
    assert all(seen == asked[0] for seen in asked), "the sides ask for different things"
    this = {**spec, "folder": str(folder / "in_process")}
    return {"runs": runs, "kills": kills, "in_process": ended(started("in_process", this, peer), this)}


def rates(runs: list[Figures]) -> list[float]:
    """Output tokens a second."""
    return [run["output_tokens"] / run["seconds"] for run in runs]


def main() -> None:
    """Run, and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--peer-python", help="path of the Python interpreter of an environment with datatrove")
    parser.add_argument("--prompts", type=int, default=100, help="number of prompts in each run (default: %(default)s)")
    parser.add_argument(
        "--max-tokens", type=int, default=64, help="largest number of tokens of a response (default: %(default)s)"
    )
    parser.add_argument(
        "--concurrency", type=int, default=16, help="number of requests in flight at a time (default: %(default)s)"
    )
    parser.add_argument(
        "--rounds", type=int, default=2, help="number of times that each side runs (default: %(default)s)"
    )
    parser.add_argument(
        "--kills",
        type=int,
        default=3,
        help="number of times that each side is killed and started again (default: %(default)s)",
    )
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    if options.child:
        return child(json.loads(options.child))
    if not options.peer_python:
        parser.error("--peer-python is missing; name the Python interpreter of an environment with datatrove")
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        done = compare(options, Path(folder))
    speeds = {side: rates(runs) for side, runs in done["runs"].items()}
    ratios = [ours / theirs for ours, theirs in zip(*speeds.values(), strict=True)]
    cpu = Path("/proc/cpuinfo").read_text().split("model name")[1].split("\n")[0].strip("\t :")
    peers = {run.pop("version") for run in done["runs"]["datatrove"]}
    versions = {"python": platform.python_version(), "datatrove": peers.pop()}
    for package in ("vllm-cpu", "vllm", "torch", "httpx"):
        with contextlib.suppress(ImportError):
            versions[package] = version(package)
    result: Figures = {"machine": {"cpu": cpu, "cores": os.cpu_count(), "load_before": load}, "versions": versions}
    result |= {name: getattr(options, name) for name in ("prompts", "max_tokens", "concurrency")}
    result |= {"tokens_per_second": {side: float(np.mean(speed)) for side, speed in speeds.items()}}
    result |= {"ratio": float(np.mean(ratios)), "ratios": ratios, "in_process": rates(done["in_process"])}
    result["runs"] = done["runs"]
    result["after_kill"] = {
        side: {
            "setting": SIDES[side]["setting"],
            **{name: sum(run[name] for run in runs) for name in ("delivered_before", "repeated", "finished")},
            "runs": runs,
        }
        for side, runs in done["kills"].items()
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
