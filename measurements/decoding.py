"""What a way of decoding costs on this machine: output tokens a second of SmolLM2-135M in vLLM, by sampling settings.

`python -m measurements.decoding [--requests N]`. As many tokens are written in each row (a limit ends them), all requests at once. Prints a
table and, as its last line, one JSON object: tokens a second by settings.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from pipeline.engines.requests import Request
from pipeline.models.checkpoints import resolve
from pipeline.settings import Sampling, load_profile

TOKENS = 64
DECODINGS = {
    "greedy": {"temperature": 0.0},
    "temperature 0.7": {"temperature": 0.7},
    "temperature 0.7, top_k 50": {"temperature": 0.7, "top_k": 50},
    "temperature 0.7, top_p 0.9": {"temperature": 0.7, "top_p": 0.9},
    "temperature 0.7, top_k 50, repetition_penalty 1.1": {"temperature": 0.7, "top_k": 50, "repetition_penalty": 1.1},
}


def main() -> None:
    """See the module's description."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=128)
    options = parser.parse_args()
    from pipeline.engines.vllm import VLLMEngine

    checkpoint = load_profile("tiny").checkpoints["smollm2_135m_instruct"]
    rates: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as cache:
        engine = VLLMEngine(resolve(checkpoint, Path(cache)), checkpoint, "cpu", 1)
        for turn in ("warm-up", *DECODINGS):
            sampling = Sampling(max_tokens=TOKENS, **DECODINGS.get(turn, {}))
            texts = [f"Tell a long story about the number {n}. ({turn})" for n in range(options.requests)]
            asked = [Request(text, [{"role": "user", "content": text}], sampling, n) for n, text in enumerate(texts)]
            begun = time.perf_counter()
            rates[turn] = sum(answer.output_tokens for answer in engine.answer(asked)) / (time.perf_counter() - begun)
    del rates["warm-up"]
    table = Table("decoding", "tokens/s", "of greedy", title=f"{options.requests} requests of at most {TOKENS} tokens")
    for name, rate in rates.items():
        table.add_row(name, f"{rate:.0f}", f"{rate / rates['greedy']:.2f}")
    Console().print(table)
    print(json.dumps(rates))


if __name__ == "__main__":
    main()
