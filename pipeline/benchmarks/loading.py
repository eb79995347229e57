"""Benchmarks: prompts with good responses and others, read in each one's published form.

A form is a module of constants and functions, see `Form`. What a benchmark holds is read whole: the largest published one has 17,000 prompts.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol, cast, get_args, runtime_checkable

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.benchmarks import pairs
from pipeline.benchmarks.schema import ITEMS, REJECTED
from pipeline.records import FileError, Unreadable, json_list, records
from pipeline.settings import (
    PROJECT,
    Benchmark,
    BenchmarkForm,
    BuiltinBenchmark,
    CollectedBenchmark,
    FileBenchmark,
    HubBenchmark,
)

COLLECTED = ["split", "prompt_id", "position", "messages", "response", "helpfulness_mean"]
"""Columns of our data set that make its benchmark."""


@dataclass(frozen=True)
class Loaded:
    """A benchmark: `items` (schema ITEMS), `rejected` (schema REJECTED), and how many pairs of equal helpfulness were left out."""

    items: pa.Table
    rejected: pa.Table
    ties: int = 0


class BenchmarkError(RuntimeError):
    """A benchmark that can't be read; the message says what to do."""


@runtime_checkable
class Form(Protocol):
    """What a form of benchmark knows. Accuracies are numbers, or arrays of bootstrap draws; counts are units of each subset."""

    def item(self, record: Mapping[str, Any], line: int | None) -> dict[str, Any]:
        """A record in its published form as a row of ITEMS without `benchmark`. Raises ValueError with what is wrong."""

    def outcomes(self, items: pa.Table, goodness: npt.ArrayLike) -> pa.Table:
        """What scores reach, in the schema OUTCOMES. goodness: a flat array, the responses of all items in order."""

    def section_of(self, subset: str) -> str:
        """Section that a subset counts in."""

    def sections(self, accuracies: Mapping[str, Any], counts: Mapping[str, int]) -> dict[str, Any]:
        """Accuracies of sections from those of subsets."""

    def overall(self, sections: Mapping[str, Any], counts: Mapping[str, int]) -> Any:
        """The one figure from sections."""


FORMS = {name: cast(Form, import_module(f"pipeline.benchmarks.{name}")) for name in get_args(BenchmarkForm)}
"""The forms by name: each is the module of that name beside this one."""
NAMED: dict[str, Benchmark] = {
    "smoke": BuiltinBenchmark(kind="builtin", name="smoke"),
    **{
        name: HubBenchmark.model_validate({"kind": "hub", **where})
        for name, where in (
            ("rewardbench", {}),
            ("prior_sets", {"id": "allenai/pref-test-sets", "split": "+".join(pairs.PRIOR)}),
            ("rewardbench2", {"form": "rewardbench2"}),
            ("rm_bench", {"form": "rm_bench"}),
            ("judgebench", {"form": "judgebench"}),
        )
    },
}
"""Benchmarks that a command line can name."""


def form(benchmark: Benchmark) -> Form:
    """The module of a benchmark's form."""
    return FORMS[benchmark.form]


def load(name: str, benchmark: Benchmark, collected: pa.Table) -> Loaded:
    """Items of a benchmark, and its records that are none, or one that was there before.

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
    items, rejected, seen = [], [], set()
    for line, record in found:
        try:
            item = form(benchmark).item(_mapping(record), line)
            if (item["subset"], item["item_id"]) in seen:
                raise ValueError("an earlier item of this subset has the same id")
            seen.add((item["subset"], item["item_id"]))
            items.append({"benchmark": name, **item})
        except ValueError as error:
            rejected.append({"benchmark": name, "line": line, "reason": str(error)})
    if not items:
        first = f"; the first record was set aside: {rejected[0]['reason']}" if rejected else ""
        raise BenchmarkError(f"benchmark {name}: has no usable item in {benchmark}{first}")
    return Loaded(pa.Table.from_pylist(items, schema=ITEMS), pa.Table.from_pylist(rejected, schema=REJECTED))


def content(benchmark: Benchmark) -> str:
    """Hash of the items that ship with the project; nothing for a benchmark from elsewhere, which a profile names."""
    if not isinstance(benchmark, BuiltinBenchmark):
        return ""
    return hashlib.sha256(_builtin(benchmark).read_bytes()).hexdigest()


def named(text: str) -> Benchmark:
    """The benchmark that a command line names: one of NAMED, or a file, with its form in front where that isn't `pairs`: `rm_bench:FILE`.

    Raises `BenchmarkError` for anything else.
    """
    if text in NAMED:
        return NAMED[text]
    before, _, after = text.partition(":")
    kind, path = (before, after) if before in FORMS and after else ("pairs", text)
    file = Path(path).expanduser().resolve()
    if not file.is_file():
        raise BenchmarkError(
            f"there is no benchmark {text!r}; name one of {', '.join(NAMED)}, or a file, as FORM:FILE where its form is "
            f"{', '.join(name for name in FORMS if name != 'pairs')}"
        )
    return FileBenchmark.model_validate({"kind": "file", "path": str(file), "form": kind})


def _builtin(benchmark: BuiltinBenchmark) -> Path:
    return Path(__file__).parent / f"{benchmark.name}.jsonl"


def _mapping(record: Any) -> Mapping[str, Any]:
    if isinstance(record, Unreadable):
        raise ValueError(record.reason)
    if not isinstance(record, Mapping):
        raise ValueError("the record is not a JSON object")
    return record


def _file(path: Path) -> Iterator[tuple[int | None, Any]]:
    if not path.is_file():
        raise BenchmarkError(f"there is no benchmark file {path}")
    try:
        yield from json_list(path) if path.name.lower().endswith(".json") else records(path)
    except FileError as error:
        raise BenchmarkError(str(error)) from None


def _hub(benchmark: HubBenchmark) -> Iterator[tuple[int, Any]]:
    """Rows of each split in turn; where a split is one of Prior Sets, its name is the subset, as in RewardBench's own code."""
    import datasets

    number = 0
    for split in benchmark.split.split("+"):
        try:
            rows = datasets.load_dataset(benchmark.id, revision=benchmark.revision, split=split)
        except Exception as error:  # of many kinds: a missing repository, no network, a bad split
            raise BenchmarkError(
                f"{benchmark.id} (split {split}) can't be read: {type(error).__name__}: {error}"
            ) from error
        subset = {"subset": split} if split in pairs.PRIOR else {}
        for row in rows:
            number += 1
            yield number, {**row, **subset}


def _collected(name: str, data: pa.Table) -> Loaded:
    """Validation pairs: of a prompt's two responses the one with the higher mean of kept helpfulness ratings is the good one.

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
    chosen = pc.if_else(swap, second["response"], first["response"])
    other = pc.if_else(swap, first["response"], second["response"])
    texts = np.stack([np.asarray(chosen, dtype=object), np.asarray(other, dtype=object)], axis=1)
    items = pa.table(
        {
            "benchmark": pa.array([name] * len(first), pa.string()),
            "subset": pa.array([name] * len(first), pa.string()),
            "item_id": first["prompt_id"],
            "messages": first["messages"],
            "responses": pa.array(texts.tolist(), pa.list_(pa.string())),
            "good": pa.array([[True, False]] * len(first), pa.list_(pa.bool_())),
        },
        schema=ITEMS,
    ).filter(pa.array(decided))
    if not len(items):
        raise BenchmarkError(
            f"benchmark {name}: the validation split has no pair with different helpfulness; collect more prompts"
        )
    return Loaded(items, REJECTED.empty_table(), int((~decided).sum()))
