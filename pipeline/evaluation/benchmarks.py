"""Benchmarks as tables of pairs: a conversation, the response that people prefer, and the other."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.evaluation.schema import PAIRS, REJECTED_PAIRS
from pipeline.records import FileError, Unreadable, records
from pipeline.settings import PROJECT, Benchmark, BuiltinBenchmark, CollectedBenchmark, FileBenchmark, HubBenchmark

TEXTS = ("subset", "chosen", "rejected")
COLLECTED = ["split", "prompt_id", "position", "messages", "response", "helpfulness_mean"]
"""Columns of our data set that make its benchmark."""


@dataclass(frozen=True)
class Loaded:
    """A benchmark: `pairs` (schema PAIRS), `rejected` (schema REJECTED_PAIRS), and how many pairs of equal helpfulness were left out."""

    pairs: pa.Table
    rejected: pa.Table
    ties: int = 0


class BenchmarkError(RuntimeError):
    """A benchmark that can't be read; the message says what to do."""


def load(name: str, benchmark: Benchmark, collected: pa.Table) -> Loaded:
    """Pairs of a benchmark, and its records that are no pairs, or a pair that was there before.

    collected: our data set (schema DATASET), whose validation split is the benchmark of kind `collected`.
    Raises `BenchmarkError` where nothing can be read, or nothing is left.
    """
    match benchmark:
        case BuiltinBenchmark():
            found: Iterable[tuple[int | None, Any]] = _file(_builtin(benchmark))
        case FileBenchmark(path=path):
            found = _file(PROJECT / Path(path).expanduser())
        case HubBenchmark():
            found = _hub(benchmark)
        case CollectedBenchmark():
            return _collected(name, collected)
    pairs, rejected, seen = [], [], set()
    for line, record in found:
        try:
            pair = _pair(line, record)
            if (pair["subset"], pair["pair_id"]) in seen:
                raise ValueError("a pair of this subset with this id was there before")
            seen.add((pair["subset"], pair["pair_id"]))
            pairs.append({"benchmark": name, **pair})
        except ValueError as error:
            rejected.append({"benchmark": name, "line": line, "reason": str(error)})
    if not pairs:
        first = f"; the first record: {rejected[0]['reason']}" if rejected else ""
        raise BenchmarkError(f"benchmark {name}: no usable pair in {benchmark}{first}")
    return Loaded(pa.Table.from_pylist(pairs, schema=PAIRS), pa.Table.from_pylist(rejected, schema=REJECTED_PAIRS))


def content(benchmark: Benchmark) -> str:
    """Hash of the pairs that ship with the project; nothing for a benchmark from elsewhere, which a profile names."""
    if not isinstance(benchmark, BuiltinBenchmark):
        return ""
    return hashlib.sha256(_builtin(benchmark).read_bytes()).hexdigest()


def _builtin(benchmark: BuiltinBenchmark) -> Path:
    return Path(__file__).parent / f"{benchmark.name}.jsonl"


def _pair(line: int | None, record: Any) -> dict[str, Any]:
    """A record in RewardBench's schema as a row of PAIRS. Raises ValueError with what is wrong."""
    if isinstance(record, Unreadable):
        raise ValueError(record.reason)
    if not isinstance(record, Mapping):
        raise ValueError("not a JSON object")
    for name in (*TEXTS, "prompt"):
        if name not in record:
            raise ValueError(f"field {name} is missing")
    for name in TEXTS:
        if not isinstance(record[name], str) or not record[name].strip():
            raise ValueError(f"field {name} is not a text, or blank")
    prompt = record["prompt"]
    messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
    good = isinstance(messages, list) and all(
        isinstance(m, Mapping)
        and m.get("role") in ("system", "user", "assistant")
        and isinstance(m.get("content"), str)
        for m in messages
    )
    if not good or not messages or messages[-1]["role"] != "user":
        raise ValueError("field prompt is neither a text nor a list of messages that ends with the user's")
    turns = [{"role": m["role"], "content": m["content"]} for m in messages]
    return {"pair_id": str(record.get("id", line)), "subset": record["subset"], "messages": turns} | {
        n: record[n] for n in TEXTS[1:]
    }


def _file(path: Path) -> Iterator[tuple[int | None, Any]]:
    if not path.is_file():
        raise BenchmarkError(f"no benchmark file {path}")
    try:
        yield from records(path)
    except FileError as error:
        raise BenchmarkError(str(error)) from None


def _hub(benchmark: HubBenchmark) -> Iterator[tuple[int, Any]]:
    import datasets

    try:
        rows = datasets.load_dataset(benchmark.id, revision=benchmark.revision, split=benchmark.split)
    except Exception as error:  # of many kinds: a missing repository, no network, a bad split
        raise BenchmarkError(
            f"{benchmark.id} (split {benchmark.split}) can't be read: {type(error).__name__}: {error}"
        ) from error
    yield from enumerate(rows, start=1)


def _collected(name: str, data: pa.Table) -> Loaded:
    """Validation pairs: of a prompt's two responses the one with the higher mean of kept helpfulness ratings is chosen.

    Ties, and prompts without such ratings, are left out.
    """
    rows = data.filter(pc.equal(data["split"], "validation")).sort_by(
        [("prompt_id", "ascending"), ("position", "ascending")]
    )
    first, second = (rows.filter(pc.equal(rows["position"], position)) for position in (1, 2))
    if not first["prompt_id"].equals(second["prompt_id"]):
        raise BenchmarkError(f"benchmark {name}: every validation prompt of the data set needs exactly two responses")
    gap = np.asarray(first["helpfulness_mean"]) - np.asarray(second["helpfulness_mean"])
    decided, swap = np.isfinite(gap) & (gap != 0), pa.array(gap < 0)
    pairs = pa.table(
        {
            "benchmark": pa.array([name] * len(first), pa.string()),
            "pair_id": first["prompt_id"],
            "subset": pa.array([name] * len(first), pa.string()),
            "messages": first["messages"],
            "chosen": pc.if_else(swap, second["response"], first["response"]),
            "rejected": pc.if_else(swap, first["response"], second["response"]),
        },
        schema=PAIRS,
    ).filter(pa.array(decided))
    if not len(pairs):
        raise BenchmarkError(
            f"benchmark {name}: the validation split has no pair with different helpfulness; collect more prompts"
        )
    return Loaded(pairs, REJECTED_PAIRS.empty_table(), int((~decided).sum()))
