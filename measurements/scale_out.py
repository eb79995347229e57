"""What spreading one model over a Ray cluster brings, and what a dead replica costs: on this machine, two replicas of one core each.

`python -m measurements.scale_out [--prompts N] [--rounds N]`. The same real prompts (SmolLM2-135M, up to 128 tokens each) through
- `alone`: the engine in the worker, on two cores;
- `one`: one replica with two cores; `two`: two replicas with a core each, fed from one queue (`pipeline.engines.ray`);
- `ray_data`: `ray.data` over two actors with a core each, blocks of an eighth of the plan, the other way in question.
Engines stand before the clock starts; sides take turns. Then one replica of `two` and of `ray_data` is killed when a quarter of the answers
has come. Prints a table and, last, one JSON object: tokens a second of each, ratios to `alone`, and of each kill: seconds, requests asked
for again.
"""

import argparse
import json
import os
import re
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import ray
from rich.console import Console
from rich.table import Table
from upath import UPath

from measurements.generation import real_requests
from pipeline.engines.finished import FinishedRequests, Tally, finish
from pipeline.engines.ray import RayEngine
from pipeline.engines.requests import Answer, Request
from pipeline.engines.vllm import VLLMEngine
from pipeline.models.checkpoints import resolve
from pipeline.settings import Checkpoint, RayCluster, Sampling, load_profile
from tests.engines.ray_cluster import cluster

NO_BINDING = {"env_vars": {"VLLM_CPU_OMP_THREADS_BIND": "nobind", "OMP_NUM_THREADS": "1"}}


class Blocks:
    """The engine as `ray.data` wants it: a block of requests in, a block of answers out."""

    def __init__(self, folder: str, checkpoint: dict[str, Any], asked: str) -> None:
        self._engine = VLLMEngine(Path(folder), Checkpoint.model_validate(checkpoint), "cpu", 1)
        self._asked = Path(asked)

    def __call__(self, block: dict[str, Any]) -> dict[str, Any]:
        """Answer a block; each request that it begins is noted in a file, with the time."""
        requests = [Request(**r | {"sampling": Sampling(**r["sampling"])}) for r in map(json.loads, block["request"])]
        with self._asked.open("a") as file:
            file.write("".join(f"{r.key} {time.time()}\n" for r in requests))
        return {"answer": np.array([json.dumps(vars(a)) for a in self._engine.answer(requests)])}


class RayData:
    """`ray.data` behind the interface of our engines. Its actors live as long as one pass."""

    def __init__(self, folder: Path, checkpoint: Checkpoint, notes: Path) -> None:
        self._arguments = (str(folder), checkpoint.model_dump(mode="json"), str(notes))
        self.notes = notes

    def answer(self, requests: Sequence[Request]) -> Iterator[Answer]:
        """Answers, block by block."""
        ray.data.DataContext.get_current().enable_progress_bars = False
        rows = ray.data.from_items(
            [{"request": json.dumps(vars(r) | {"sampling": r.sampling.model_dump()})} for r in requests],
            override_num_blocks=8,
        )
        answers = rows.map_batches(
            Blocks,
            fn_constructor_args=self._arguments,
            batch_size=None,
            num_cpus=1,
            concurrency=2,
            runtime_env=NO_BINDING,
        )
        for row in answers.iter_rows():
            yield Answer(**json.loads(row["answer"]))


def rate(requests: Sequence[Request], engine: Any, folder: Path) -> tuple[float, Tally]:
    """Seconds of one pass through `finish` into a fresh store, and what it did."""
    begun = time.perf_counter()
    tally = finish(requests, [engine], FinishedRequests(UPath(folder)), lambda _: None)
    assert tally.answered == len(requests)
    return time.perf_counter() - begun, tally


def begun(notes: Path) -> dict[str, float]:
    """When each request was begun."""
    return {key: float(at) for key, at in map(str.split, notes.read_text().splitlines())}


def killer(name: str, finished: FinishedRequests, enough: int) -> threading.Thread:
    """Kills one process of that name when enough answers have come."""

    def come() -> int:
        journals = finished.folder.glob("journal-*.jsonl")
        return len(finished.keys()) + sum(path.read_bytes().count(b"\n") for path in journals)

    def wait() -> None:
        while True:
            found = [p for p in psutil.process_iter(["cmdline"]) if name in " ".join(p.info["cmdline"] or [])]
            if len(found) == 2 and come() >= enough:
                found[0].kill()
                return
            time.sleep(0.2)

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    return thread


def main() -> None:
    """Run all, print, JSON last."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument(
        "--prompts", type=int, default=200, help="number of prompts that each side answers (default: %(default)s)"
    )
    parser.add_argument(
        "--rounds",
        type=int,
        default=2,
        help="number of times that each side runs; 0: only the kills are measured (default: %(default)s)",
    )
    options = parser.parse_args()
    os.environ.update({"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_LOGGING_LEVEL": "ERROR"})
    requests, checkpoint = real_requests(options.prompts), load_profile("tiny").checkpoints["smollm2_135m_instruct"]
    rates, figures = {name: list[float]() for name in ("alone", "one", "two", "ray_data")}, dict[str, Any]()
    said = list[str]()
    with tempfile.TemporaryDirectory() as name, cluster(cpus=2) as found:
        folder = Path(name)
        model = resolve(checkpoint, folder / "cache")
        there = Checkpoint(folder=str(model), licence=checkpoint.licence)
        os.environ["RAY_ADDRESS"] = found.drivers

        def replicas(count: int) -> RayEngine:
            wanted = there.model_copy(update={"replicas": count})
            engine = RayEngine(wanted, folder, "cpu", 1, RayCluster(cpus=2 // count), said.append)
            while sum(m.ready for m in engine._members) < count:
                engine._listen()
            return engine

        alone = VLLMEngine(model, there, "cpu", 1)
        for turn in range(options.rounds):
            alone._llm.reset_prefix_cache()
            seconds, done = rate(requests, alone, folder / f"alone-{turn}")
            rates["alone"].append(done.output_tokens / seconds)
            for side, count in (("one", 1), ("two", 2)):
                engine = replicas(count)
                seconds, done = rate(requests, engine, folder / f"{side}-{turn}")
                rates[side].append(done.output_tokens / seconds)
                for member in engine._members:
                    ray.kill(member.actor)
                time.sleep(2)
            notes = folder / f"notes-{turn}"
            _, done = rate(requests, RayData(model, there, notes), folder / f"ray_data-{turn}")
            # its actors start within the pass: the clock starts with the first block
            rates["ray_data"].append(done.output_tokens / (time.time() - min(begun(notes).values())))
        engine, store = replicas(2), FinishedRequests(UPath(folder / "two-killed"))
        thread = killer("ray::Replica", store, len(requests) // 4)
        seconds, _ = rate(requests, engine, folder / "two-killed")
        thread.join(1)
        again = [int(m.group(1)) for line in said if (m := re.search(r"its (\d+) requests are asked again", line))]
        figures["two_killed"] = {"seconds": seconds, "asked_again": sum(again), "killed": not thread.is_alive()}
        for member in engine._members:
            ray.kill(member.actor)
        time.sleep(2)
        other = RayData(model, there, folder / "notes-killed")
        thread = killer("Blocks", FinishedRequests(UPath(folder / "ray_data-killed")), len(requests) // 4)
        seconds, _ = rate(requests, other, folder / "ray_data-killed")
        thread.join(1)
        asked = [line.split()[0] for line in other.notes.read_text().splitlines()]
        figures["ray_data_killed"] = {
            "seconds_with_start": seconds,
            "asked_again": len(asked) - len(set(asked)),
            "killed": not thread.is_alive(),
        }
    figures["tokens_per_second"] = {name: float(np.mean(values)) for name, values in rates.items() if values}
    figures["ratios"] = {
        name: float(np.mean(np.array(values) / np.array(rates["alone"]))) for name, values in rates.items() if values
    }
    shown = Table("", "tokens/s", "ratio", title=f"{len(requests)} prompts, SmolLM2-135M, {options.rounds} rounds")
    for name, value in figures["tokens_per_second"].items():
        shown.add_row(name, f"{value:.1f}", f"{figures['ratios'][name]:.2f}")
    Console().print(shown)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
