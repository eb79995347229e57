"""datatrove's side of `measurements/peers.py`, which runs it with an interpreter that has datatrove: one InferenceRunner, timed.

`python measurements/peers_datatrove.py SPEC`, SPEC as `peers.py` writes it. Prints one JSON object.
"""

import gzip
import json
import sys
import time
from importlib.metadata import version
from pathlib import Path

import aiofiles  # noqa: F401  datatrove imports these three at their first use: not on the clock
import aiosqlite  # noqa: F401
import httpx  # noqa: F401
from datatrove.data import Document
from datatrove.pipeline.inference.run_inference import InferenceConfig, InferenceRunner
from datatrove.pipeline.inference.types import GenerateFunction, InferenceResult
from datatrove.pipeline.writers import JsonlWriter


def main() -> None:
    """Run to the end, or on from what an earlier run has left in the folder."""
    spec = json.loads(sys.argv[1])
    folder, chunk = Path(spec["folder"]), spec["records_per_chunk"]
    asked = [json.loads(line) for line in Path(spec["requests"]).read_text().splitlines()]

    async def rollout(document: Document, generate: GenerateFunction) -> InferenceResult:
        messages = [{"role": "user", "content": document.text}]
        return await generate({"messages": messages, **spec["sampling"], "seed": int(document.id), "stream": False})

    runner = InferenceRunner(
        rollout,
        InferenceConfig(
            server_type="endpoint",
            endpoint_url=spec["url"],
            model_name_or_path=spec["model"],
            max_concurrent_generations=spec["concurrency"],
        ),
        JsonlWriter(str(folder / "output"), output_filename="${rank}_chunk_${chunk_index}.jsonl"),
        **({"checkpoints_local_dir": str(folder / "checkpoints"), "records_per_chunk": chunk} if chunk else {}),
    )
    documents = [Document(text=a["text"], id=str(a["seed"])) for a in asked]
    begun, cpu = time.perf_counter(), time.process_time()
    runner.run(documents, 0, 1)
    seconds, cpu = time.perf_counter() - begun, time.process_time() - cpu
    rows = []
    for path in (folder / "output").glob("*.jsonl.gz"):
        with gzip.open(path, "rt") as file:
            rows += [json.loads(line) for line in file]
    tokens = sum(row["metadata"]["rollout_results"][0]["usage"]["completion_tokens"] for row in rows)
    figures = {"rows": len(rows), "answers": len({row["id"] for row in rows}), "output_tokens": tokens}
    print(json.dumps(figures | {"seconds": seconds, "cpu_seconds": cpu, "version": version("datatrove")}))


if __name__ == "__main__":
    main()
