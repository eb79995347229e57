"""What people are shown of an asset, told without Dagster: plain values, tables, texts, addresses. `pipeline.gate` makes metadata of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc


class Markdown(str):
    """A text in Markdown: a plot with its picture inside, a card."""

    __slots__ = ()


class Link(str):
    """An address that a person may open."""

    __slots__ = ()


@dataclass(frozen=True)
class Rows:
    """The first rows of a table, at most `most` of them. A table by itself is shown with eight."""

    table: pa.Table
    most: int = 8


Shown = str | int | float | bool | None | Markdown | Link | Rows | pa.Table | Mapping[str, object] | Sequence[object]
"""A figure, a text, a table, or anything else that JSON can hold."""


ENGINE = {
    "reused": "requests answered in earlier runs",
    "answered": "requests answered in this run",
    "prompt_tokens": "prompt tokens of this run",
    "output_tokens": "output tokens of this run",
    "seconds": "seconds of this run",
    "start_seconds": "seconds until the engine was ready",
    "model_revision": "revision of the model",
    "unrated": "requests without a usable rating",
    "peak_memory_gib": "peak memory, GiB",
}
"""Labels of an engine's figures."""


def labelled(figures: Mapping[str, Any], labels: Mapping[str, str]) -> dict[str, Any]:
    """A worker's figures under labels for people: those given, else a figure's own name with spaces."""
    return {labels.get(name, name.replace("_", " ")): value for name, value in figures.items()}


def whole(table: pa.Table) -> Rows:
    """A table with all of its rows."""
    return Rows(table, len(table))


def counts(values: pa.ChunkedArray | Mapping[str, int], name: str, most: int = 30) -> Rows:
    """How often each value of a column, or of what is counted already, occurs, the most frequent first. name: what the values are."""
    if isinstance(values, pa.ChunkedArray):
        values = {str(c["values"]): c["counts"] for c in pc.value_counts(values).to_pylist()}
    rows = sorted(values.items(), key=lambda c: (-c[1], c[0]))[:most]
    return Rows(pa.table({name: [value for value, _ in rows], "rows": [count for _, count in rows]}), most)


def first_of_each(table: pa.Table, column: str, rows: int = 2) -> pa.Table:
    """The first rows of each value of a column, sorted by it."""
    first = table.select([column]).to_pandas().groupby(column, sort=False).head(rows).index
    among = np.zeros(len(table), dtype=bool)
    among[first] = True  # a filter works where `take` doesn't: on more than 2 GiB of text
    return table.filter(pa.array(among)).sort_by(column)


def level_counts(column: pa.ChunkedArray, levels: Sequence[int] = range(5)) -> list[int]:
    """How often each level occurs in a column of whole numbers, in the order of the levels."""
    found = {c["values"]: c["counts"] for c in pc.value_counts(column).to_pylist()}
    return [found.get(level, 0) for level in levels]
