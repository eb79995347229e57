"""Benchmarks: prompts with good responses and others, read in each one's published form.

A form is a module of constants and functions, see `Form`. What a benchmark holds is read whole: the largest published one has 17,000 prompts.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol, cast, get_args, runtime_checkable

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.benchmarks import fields, pairs
from pipeline.benchmarks.clusters import clusters_of
from pipeline.benchmarks.schema import ITEMS, REJECTED
from pipeline.forms.ratings import FieldError
from pipeline.records import ENDINGS, JSON_ENDINGS, FileError, Unreadable, any_records
from pipeline.settings import (
    PROJECT,
    Benchmark,
    BenchmarkForm,
    BuiltinBenchmark,
    CollectedBenchmark,
    FileBenchmark,
    HubBenchmark,
)
from pipeline.texts.words import prompt_texts
from pipeline.vocabulary import MESSAGES

CLUSTER = "cluster"
"""Field of a record in any form: items that say the same in it are not independent of each other, whatever their prompts are."""
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

    FIELDS: Sequence[str]
    """Fields that a record must have."""

    def item(self, record: Mapping[str, Any], line: int | None) -> dict[str, Any]:
        """A record in its published form as a row of ITEMS without `benchmark` and `cluster`, but with `problem`.

        That is a name which items have that are about the same; None where nothing says it. Raises ValueError with what is wrong.
        """

    def lacks(self, counts: Mapping[str, int]) -> str:
        """What units of these numbers in subsets lack to be the published benchmark, as words; "" where it is whole, or was never published."""

    def outcomes(self, items: pa.Table, goodness: npt.ArrayLike) -> pa.Table:
        """What scores reach, in the schema OUTCOMES. goodness: a flat array, the responses of all items in order."""

    def section_of(self, subset: str) -> str:
        """Section that a subset counts in."""

    def sections(self, accuracies: Mapping[str, Any], counts: Mapping[str, int]) -> dict[str, Any]:
        """Accuracies of sections from those of subsets."""

    def overall(self, sections: Mapping[str, Any], counts: Mapping[str, int]) -> Any:
        """The one figure from sections."""


@runtime_checkable
class NamedByFile(Protocol):
    """What a form knows besides, if the names of its files say something that their records don't."""

    def named_by(self, file: str) -> Mapping[str, str]:
        """Fields that the name of a file says, for records that don't have them. file: without its folder."""


def _said_by(form: Form, file: str) -> Mapping[str, str]:
    return form.named_by(file) if isinstance(form, NamedByFile) else {}


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
            found: Iterable[tuple[int | None, Any]] = _file(_builtin(benchmark), {})
        case FileBenchmark(path=path):
            found = _files(path, form(benchmark))
        case HubBenchmark():
            found = _hub(benchmark)
        case CollectedBenchmark():
            return _collected(name, collected)
    items, rejected, seen, first = list[dict[str, Any]](), list[dict[str, Any]](), set[tuple[str, str]](), None
    for line, record in found:
        first = record if first is None and isinstance(record, Mapping) else first
        try:
            item = form(benchmark).item(_mapping(record), line)
            if (item["subset"], item["item_id"]) in seen:
                raise ValueError("an earlier item of this subset has the same id")
            seen.add((item["subset"], item["item_id"]))
            named = record.get(CLUSTER)
            items.append(
                {"benchmark": name, **item, "problem": item["problem"] if named is None else f"cluster {named}"}
            )
        except ValueError as error:
            reason = f"field {error}" if isinstance(error, FieldError) else str(error)
            rejected.append({"benchmark": name, "line": line, "reason": reason})
    if not items:
        raise BenchmarkError(
            f"benchmark {name}: has no usable item in {_place(benchmark)}{_why(benchmark, rejected, first)}"
        )
    table = pa.Table.from_pylist([{k: v for k, v in item.items() if k != "problem"} for item in items], schema=ITEMS)
    clusters = clusters_of(table["messages"], [item["problem"] for item in items])
    table = table.set_column(ITEMS.get_field_index("cluster"), ITEMS.field("cluster"), clusters)
    return Loaded(table, pa.Table.from_pylist(rejected, schema=REJECTED))


def _place(benchmark: Benchmark) -> str:
    """Where a benchmark's records are, as a reader knows it."""
    match benchmark:
        case FileBenchmark(path=path):
            return path
        case HubBenchmark(id=id_):
            return id_
    return benchmark.kind


def _why(benchmark: Benchmark, rejected: Sequence[Mapping[str, Any]], record: Any) -> str:
    """Why a benchmark has no item: what its records lack for its form, and what form they fit. record: the first that is one."""
    if not rejected:
        return ""
    said = f"; the first record was set aside: {rejected[0]['reason']}"
    if not isinstance(record, Mapping):
        return said
    file = Path(benchmark.path).name if isinstance(benchmark, FileBenchmark) else ""
    named = _said_by(form(benchmark), file)
    own = {str(name): value for name, value in record.items() if value != named.get(name)}
    shown = ", ".join(name[:40] for name in list(own)[:20]) + (", ..." if len(own) > 20 else "")
    lacking = [field for field in form(benchmark).FIELDS if field not in record]
    fits = [n for n, other in FORMS.items() if other is not form(benchmark) and _fits(other, own, file)]
    said += f". Its fields are {shown}"
    said += f"; the form {benchmark.form} also needs {', '.join(lacking)}" if lacking else ""
    said += (
        f". They fit the form {' or '.join(fits)}: give it as {fits[0]}:FILE, or as `form` in a profile" if fits else ""
    )
    return said


def _fits(form: Form, record: Mapping[str, Any], file: str) -> bool:
    """Whether a record, in a file of this name, is an item of a form."""
    record = {**_said_by(form, file), **record}
    with suppress(ValueError):
        return bool(set(form.FIELDS) <= set(record) and form.item(record, 1))
    return False


def _files(pattern: str, form: Form) -> Iterator[tuple[int | None, Any]]:
    """Records of a file, of all files of a folder, or of all that a pattern with * or ? names, by their names. Each name may say some fields."""
    path = PROJECT / Path(pattern).expanduser()
    if path.is_file():
        paths = [path]
    elif path.is_dir():
        paths = sorted(file for file in path.iterdir() if file.name.lower().endswith((*ENDINGS, *JSON_ENDINGS)))
    else:
        paths = sorted(path.parent.glob(path.name)) if set("*?") & set(path.name) else []
    if not paths:
        raise BenchmarkError(f"there is no benchmark file {path}")
    for file in paths:
        yield from _file(file, _said_by(form, file.name))


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
    file = Path(path).expanduser().absolute()
    if not file.exists() and not any(file.parent.glob(file.name)):
        raise BenchmarkError(
            f"there is no benchmark {text!r}; name one of {', '.join(NAMED)}, or a file, a folder of files or a pattern in quotes, as "
            f"FORM:FILE where its form is {', '.join(name for name in FORMS if name != 'pairs')}"
        )
    return FileBenchmark.model_validate({"kind": "file", "path": str(file), "form": kind})


def prompts(path: Path) -> pa.Array:
    """The prompts of a file of conversations, a text each: of a field prompt, or the user's turns of a field messages (or chosen).

    Raises FileError with the first record that says none.
    """
    found = list[list[dict[str, str]]]()
    for line, record in any_records(path):
        try:
            found.append(fields.conversation(_mapping(record)))
        except ValueError as error:
            raise FileError(f"{path}:{line}: {error}") from None
    return prompt_texts(pa.array(found, MESSAGES))


def _builtin(benchmark: BuiltinBenchmark) -> Path:
    return Path(__file__).parent / f"{benchmark.name}.jsonl"


def _mapping(record: Any) -> Mapping[str, Any]:
    if isinstance(record, Unreadable):
        raise ValueError(record.reason)
    if not isinstance(record, Mapping):
        raise ValueError("the record is not a JSON object")
    return record


def _file(path: Path, named: Mapping[str, str]) -> Iterator[tuple[int | None, Any]]:
    """Records of a file with the fields that its name says, where they have none of that name."""
    try:
        for line, record in any_records(path):
            lacking = (
                {name: value for name, value in named.items() if record.get(name) is None}
                if isinstance(record, Mapping)
                else {}
            )
            yield line, {**record, **lacking} if lacking else record
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
            "cluster": clusters_of(first["messages"], [None] * len(first)),
        },
        schema=ITEMS,
    ).filter(pa.array(decided))
    if not len(items):
        raise BenchmarkError(
            f"benchmark {name}: the validation split has no pair with different helpfulness; collect more prompts"
        )
    return Loaded(items, REJECTED.empty_table(), int((~decided).sum()))
