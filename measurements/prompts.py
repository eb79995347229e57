"""How fast conversations become candidate prompts, and in how much memory: the package's 17,671 records, and ten times as many.

Each step runs in a process of its own, from file to file, as the assets do: `read` from the source to conversations, `filter` from these to
candidates and rejected ones. Peak memory is the process's own, imports included (`nothing` has these alone). The further nine copies have
the words of each line of a user's turn in another order, so that they are neither equal nor near to each other. The floor is `json.loads`
over the package's whole records, which keeps everything in memory and filters nothing.

Run: python -m measurements.prompts [COPIES ...], by default 1 10
"""

import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from upath import UPath

from pipeline.benchmarks.loading import load
from pipeline.dataset.schema import DATASET
from pipeline.prompts.pool import write_candidates
from pipeline.prompts.sources import _sharegpt_file, conversations
from pipeline.settings import BuiltinBenchmark, Decontamination, FilesSource, PromptFilters, Prompts, Sample
from pipeline.store import read_batches, write_table
from pipeline.texts.words import prompt_texts


def whole_records(path: Path) -> list[dict[str, Any]]:
    """The file's records up to its last whole one."""
    text = path.read_text(encoding="utf-8")
    return json.loads(text[: text.rindex("\n  },")] + "\n  }]")  # type: ignore[no-any-return]


def copies(records: list[dict[str, Any]], number: int) -> Iterator[dict[str, Any]]:
    """The records, then copies of them with words moved."""
    for copy in range(number):
        draw = random.Random(copy)
        for record in records:
            turns = [
                {**t, "value": moved(t["value"], draw)} if copy and t["from"] == "human" else t
                for t in record["conversations"]
            ]
            yield {"id": record["id"], "conversations": turns}


def moved(text: str, draw: random.Random) -> str:
    """A text with the words of each line in another order."""
    lines = [line.split(" ") for line in text.split("\n")]
    return "\n".join(" ".join(draw.sample(line, len(line))) for line in lines)


def wanted(path: str) -> Prompts:
    """A profile's part about one file, with the default filters."""
    source = FilesSource(kind="files", path=path, licence="not stated")
    return Prompts(sources={"sharegpt": source}, filters=PromptFilters(), sample=Sample(prompts=2))


def step(name: str, folder: Path) -> dict[str, Any]:
    """Run one step in this process: its figures."""
    begun, figures, used = time.perf_counter(), {}, time.process_time()
    if name == "read":
        stream, (report,) = conversations(wanted(str(folder / "in")).sources)
        figures["conversations"] = write_table(stream, UPath(folder / "conversations.parquet"))
        figures["records"] = report.records
    if name == "filter":
        items = load("smoke", BuiltinBenchmark(kind="builtin", name="smoke"), DATASET.empty_table()).items
        against = {"smoke": prompt_texts(items["messages"])}
        stream = read_batches(UPath(folder / "conversations.parquet"))
        made = write_candidates(stream, wanted("x"), 1, against, Decontamination(), UPath(folder))
        figures |= {"conversations": made.conversations, "candidates": made.kept, "rejected": dict(made.rejected)}
    seconds = time.perf_counter() - begun
    cpu = time.process_time() - used
    return {**figures, "seconds": round(seconds, 2), "cpu_s": round(cpu, 2), "peak_mib": peak_mib()}


def peak_mib() -> int:
    """Peak of the process's own resident memory (getrusage would tell its parent's where that was higher)."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return round(int(line.split()[1]) / 1024)


def measured(name: str, folder: Path) -> dict[str, Any]:
    """The same in a process of its own."""
    command = [sys.executable, "-m", "measurements.prompts", "--step", name, str(folder)]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()[-1])  # type: ignore[no-any-return]


def main() -> None:
    """Measure, print the table, and the figures as JSON."""
    if sys.argv[1:2] == ["--step"]:
        print(json.dumps(step(sys.argv[2], Path(sys.argv[3]))))
        return
    begun = time.perf_counter()
    records = whole_records(_sharegpt_file())
    floor = time.perf_counter() - begun
    figures: dict[str, Any] = {"floor": {"records": len(records), "seconds": round(floor, 2)}}
    print(f"{'copies':>6} {'step':<9}{'records':>9}{'seconds':>9}{'CPU s':>8}{'records/s':>11}{'peak MiB':>10}")
    for number in [int(a) for a in sys.argv[1:]] or [1, 10]:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            (folder / "in").mkdir()
            with (folder / "in" / "a.jsonl").open("w", encoding="utf-8") as file:
                file.writelines(json.dumps(record) + "\n" for record in copies(records, number))
            for what in ("nothing", "read", "filter"):
                row = measured(what, folder)
                figures[f"{number} x {what}"] = row
                count, seconds = number * len(records), row["seconds"]
                print(f"{number:>6} {what:<9}{count:>9,}{seconds:>9}{row['cpu_s']:>8}", end="")
                print(f"{count / max(seconds, 1e-3):>11,.0f}{row['peak_mib']:>10}", flush=True)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
