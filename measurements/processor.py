"""What a processor makes of a small model: matrix products and generation by floating-point type, and generation beside other busy processes.

`python -m measurements.processor [--requests N] [--busy N ...]`. Prints tables and, as its last line, one JSON object: `gflops` and
`tokens_per_second` by type, and `beside` (tokens a second by busy processes, where OpenMP's threads spin while they wait, where they sleep, and
where they sleep after a while).
A processor with AVX2 alone is imitated by `ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2`; vLLM's own kernels stay those of the real one.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.table import Table

TYPES = ("bfloat16", "float32")
WAITS = {
    "spin": {"OMP_WAIT_POLICY": "active"},
    "spin for 1000 rounds": {"GOMP_SPINCOUNT": "1000"},
    "sleep": {"OMP_WAIT_POLICY": "passive"},
}
"""How OpenMP's threads wait for each other; the second is what workers do."""
BUSY = "while True: sum(range(100_000))"


def gflops(kind: str, seconds: float = 2.0) -> float:
    """Billions of operations a second in the product of a pass of 512 tokens with the first matrix of SmolLM2-135M's MLP, 576 x 1536."""
    import torch

    left, right = (torch.randn(*shape).to(getattr(torch, kind)) for shape in ((512, 576), (576, 1536)))
    left @ right
    count, begun = 0, time.perf_counter()
    while time.perf_counter() - begun < seconds:
        left @ right
        count += 1
    return 2e-9 * 512 * 576 * 1536 * count / (time.perf_counter() - begun)


def generated(kind: str, requests: int, cache: Path) -> float:
    """Output tokens a second of SmolLM2-135M in vLLM, 64 tokens to each of so many short requests, after a round that warms it up."""
    from pipeline.engines.requests import Request
    from pipeline.engines.vllm import VLLMEngine
    from pipeline.models.checkpoints import resolve
    from pipeline.settings import Sampling, load_profile

    checkpoint = load_profile("tiny").checkpoints["smollm2_135m_instruct"].model_copy(update={"dtype": kind})
    engine = VLLMEngine(resolve(checkpoint, cache), checkpoint, "cpu", 1)
    sampling, rate = Sampling(temperature=0.7, max_tokens=64), 0.0
    for turn in ("first", "second"):
        texts = [f"What is known of the number {n}? ({turn})" for n in range(requests)]
        asked = [Request(text, [{"role": "user", "content": text}], sampling, n) for n, text in enumerate(texts)]
        begun = time.perf_counter()
        rate = sum(answer.output_tokens for answer in engine.answer(asked)) / (time.perf_counter() - begun)
    return rate


@contextmanager
def beside(processes: int) -> Iterator[None]:
    """So many processes that keep a core busy each."""
    running = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(processes)]
    try:
        yield
    finally:
        for process in running:
            process.kill()
            process.wait()


def alone(kind: str, requests: int, cache: Path, wait: str) -> float:
    """`generated` in a process of its own, whose threads wait for each other in that way."""
    given = [sys.executable, "-m", "measurements.processor", "--one", kind, str(cache), "--requests", str(requests)]
    environment = {**os.environ, "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_LOGGING_LEVEL": "ERROR", **WAITS[wait]}
    run = subprocess.run(given, env=environment, capture_output=True, text=True, check=True)
    return float(run.stdout.split()[-1])


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--requests", type=int, default=32, help="requests of a round (default: 32)")
    parser.add_argument(
        "--busy", type=int, nargs="*", default=[0, 1, 3], help="busy processes beside it (default: 0 1 3)"
    )
    parser.add_argument("--one", nargs=2, metavar=("TYPE", "CACHE"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(generated(options.one[0], options.requests, Path(options.one[1])))
        return
    console, results = Console(), dict[str, dict[str, float]]()
    results["gflops"] = {kind: gflops(kind) for kind in TYPES}
    with tempfile.TemporaryDirectory() as folder:
        cache = Path(folder)
        results["tokens_per_second"] = {
            kind: alone(kind, options.requests, cache, "spin for 1000 rounds") for kind in TYPES
        }
        fast = max(TYPES, key=results["tokens_per_second"].__getitem__)
        for busy in options.busy:
            with beside(busy):
                for wait in WAITS:
                    results.setdefault("beside", {})[f"{busy}, {wait}"] = alone(fast, options.requests, cache, wait)
    for name, figures in results.items():
        table = Table("", name)
        for row, value in figures.items():
            table.add_row(row, f"{value:.1f}")
        console.print(table)
    print(json.dumps(results))


if __name__ == "__main__":
    main()
