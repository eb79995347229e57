"""What the generation stage costs beside the engine: its throughput against vLLM called alone, and 100,000 requests without an engine.

`python -m measurements.generation [--prompts N] [--rounds N] [--requests N] [--device cuda] [--model FOLDER]`. Prints tables and, as its last
line, one JSON object: `ratio` (tokens a second of the worker's path over those of one bare `LLM.chat` call with the same requests, on
the same engine, taken in turns; engine start in neither), `start_seconds`, `dispatch_seconds` and `dispatch_peak_mib` (100,000 requests
with an engine that answers at once: plan, keys, look-up, answers, store).
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
from rich.console import Console
from rich.table import Table
from upath import UPath

from pipeline.engines.asking import Asking
from pipeline.engines.finished import FinishedRequests, finish
from pipeline.engines.requests import Answer, Request, request_key
from pipeline.engines.starting import LazyEngine
from pipeline.prompts.filters import candidate_prompts
from pipeline.prompts.sources import conversations
from pipeline.responses.plan import assign_generators, requests_of, responses_of
from pipeline.responses.schema import CONTEXTS
from pipeline.responses.worker import questions_in
from pipeline.settings import Checkpoint, Decontamination, PromptFilters, Sampling, ShareGPTSource, load_profile


def quiet(message: str) -> None:
    """Say nothing."""
    del message


def keyed(messages: list[dict[str, str]], sampling: Sampling, seed: int) -> Request:
    """A request with its key."""
    return Request(request_key(messages, "model", "revision", "template", sampling, seed), messages, sampling, seed)


def real_requests(prompts: int) -> list[Request]:
    """So many real single-turn prompts, up to 128 tokens to be written to each."""
    stream, _ = conversations({"s": ShareGPTSource(kind="sharegpt", licence="not stated", limit=2500)})
    judged = candidate_prompts(stream, PromptFilters(max_characters=1500, max_user_turns=1), 1, {}, Decontamination())
    kept = pa.concat_tables(good for good, _ in judged)
    sampling = Sampling(temperature=0.7, top_p=0.9, max_tokens=128)
    texts = [turns[0] for turns in kept["turns"].to_pylist()[:prompts]]
    return [keyed([{"role": "user", "content": text}], sampling, n) for n, text in enumerate(texts)]


def throughput(prompts: int, rounds: int, device: str, model: str | None) -> dict[str, float]:
    """Tokens a second of both ways, in turns; of the model in a folder, or of SmolLM2-135M."""
    from pipeline.engines.vllm import VLLMEngine
    from pipeline.models.checkpoints import resolve

    requests = real_requests(prompts)
    checkpoint = load_profile("tiny").checkpoints["smollm2_135m_instruct"]
    if model:
        checkpoint = Checkpoint(folder=model, licence="not needed")
    with tempfile.TemporaryDirectory() as folder:
        weights, begun = resolve(checkpoint, Path(folder)), time.perf_counter()
        engine = VLLMEngine(weights, checkpoint, device, 1)
        start = time.perf_counter() - begun
        rates: dict[str, list[float]] = {"worker": [], "bare": []}
        for turn in range(2 * rounds):
            engine._llm.reset_prefix_cache()
            if turn % 2:
                rates["worker"].append(_worker(engine, requests, Path(folder) / f"work-{turn}"))
            else:
                rates["bare"].append(_bare(engine, requests))
    ratios = [w / b for w, b in zip(rates["worker"], rates["bare"], strict=True)]
    best = {name: float(np.mean(values)) for name, values in rates.items()}
    return {"start_seconds": start, **best, "ratio": float(np.mean(ratios)), "lowest_ratio": min(ratios)}


def _worker(engine: object, requests: Sequence[Request], folder: Path) -> float:
    """Through `finish`: keys looked up, answers flushed to Parquet as they come."""
    begun = time.perf_counter()
    tally = finish(requests, [engine], FinishedRequests(UPath(folder)), quiet)  # type: ignore[list-item]
    return float(tally.output_tokens) / (time.perf_counter() - begun)


def _bare(engine: object, requests: Sequence[Request]) -> float:
    """One `LLM.chat` call with the same requests."""
    from vllm import SamplingParams

    asked = [{**r.sampling.model_dump(exclude={"stop", "top_k"}), "seed": r.seed} for r in requests]
    begun = time.perf_counter()
    outputs = engine._llm.chat(
        [list(r.messages) for r in requests], [SamplingParams(**a) for a in asked], use_tqdm=False
    )  # type: ignore[attr-defined]
    return sum(len(o.outputs[0].token_ids) for o in outputs) / (time.perf_counter() - begun)


class AtOnce:
    """Test double of an engine: answers at once."""

    def answer(self, requests: Sequence[Request]) -> Iterator[Answer]:
        """A text of about 1,500 characters each, HelpSteer2's mean."""
        for request in requests:
            yield Answer(request.key, f"{request.key} " + "answer " * 205, "stop", None, 100, 200)


def dispatch(requests: int) -> dict[str, float]:
    """So many requests from the plan to the published table, and the look-up of a second run that has nothing to do."""
    profile = load_profile("tiny")
    prompts = requests // 2
    ids = [f"{n:064x}" for n in range(prompts)]
    text = "What is known of it, and how? " * 24  # about 713 characters, HelpSteer2's mean
    messages = [[{"role": "user", "content": f"{n} {text}"}] for n in range(prompts)]
    contexts = pa.table({"prompt_id": ids, "messages": messages, "n_turns": [1] * prompts, "model": [None] * prompts,
                         "model_revision": [None] * prompts}, schema=CONTEXTS)  # fmt: skip
    del messages
    begun = time.perf_counter()
    plan = assign_generators(contexts["prompt_id"], {n: g.share for n, g in profile.generators.items()}, 1)
    asked = requests_of(plan, contexts, profile.generators)
    rows = list(questions_in(asked))
    planned = time.perf_counter() - begun
    with tempfile.TemporaryDirectory() as folder:
        asking = Asking(LazyEngine("m", "r", "t", AtOnce), FinishedRequests(UPath(folder)), quiet)
        answers = asking.ask(rows).outcomes
        del rows
        table = responses_of(asked, answers, {"model": "m", "model_revision": "r"}, "x")
        seconds = time.perf_counter() - begun
        begun = time.perf_counter()
        again = asking.ask(questions_in(asked)).tally
        lookup = time.perf_counter() - begun
    assert len(table) == requests
    assert again.answered == 0
    peak = int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 1024
    return {
        "dispatch_seconds": seconds,
        "of_it_plan_and_keys": planned,
        "lookup_seconds": lookup,
        "dispatch_peak_mib": peak,
    }


def main() -> None:
    """Run both, print, JSON last."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument(
        "--prompts", type=int, default=200, help="number of prompts that the engine answers (default: %(default)s)"
    )
    parser.add_argument(
        "--rounds", type=int, default=2, help="number of times that each side runs (default: %(default)s)"
    )
    parser.add_argument(
        "--requests",
        type=int,
        default=100_000,
        help="number of requests that are measured without an engine (default: %(default)s)",
    )
    parser.add_argument(
        "--device", choices=("cpu", "cuda"), default="cpu", help="device that the engine runs on (default: %(default)s)"
    )
    parser.add_argument("--model", help="folder of the model, in Hugging Face format (default: SmolLM2-135M)")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(dispatch(options.requests)))
        return
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    child = [sys.executable, __file__, "--child", "--requests", str(options.requests)]
    figures = json.loads(subprocess.run(child, check=True, capture_output=True, text=True).stdout.splitlines()[-1])
    console = Console()
    shown = Table("", "", title=f"{options.requests:,} requests, an engine that answers at once")
    for name, unit in (
        ("dispatch_seconds", "s"),
        ("of_it_plan_and_keys", "s"),
        ("lookup_seconds", "s"),
        ("dispatch_peak_mib", "MiB"),
    ):
        shown.add_row(name.replace("_", " "), f"{figures[name]:.1f} {unit}")
    console.print(shown)
    if options.prompts:
        figures |= throughput(options.prompts, options.rounds, options.device, options.model)
        shown = Table(
            "",
            "tokens/s",
            title=f"{options.prompts} prompts, {options.rounds} rounds each in turns; start {figures['start_seconds']:.0f} s",
        )
        shown.add_row("one bare LLM.chat call", f"{figures['bare']:.1f}")
        shown.add_row("the worker's path", f"{figures['worker']:.1f}")
        shown.add_row("ratio (lowest)", f"{figures['ratio']:.3f} ({figures['lowest_ratio']:.3f})")
        console.print(shown)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
