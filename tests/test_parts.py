"""Append-only sets of rows."""

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from upath import UPath

from pipeline.parts import PartError, Parts
from pipeline.store import read_table

SCHEMA = pa.schema([("key", pa.string()), ("number", pa.int64())])
keys = st.lists(st.lists(st.sampled_from("abcdef"), max_size=5), max_size=8)


def added(parts: Parts, rows: list[list[str]]) -> dict[str, int]:
    """Add parts of rows with numbers of their own; of each part's number and key."""
    number = 0
    for part in rows:
        parts.append(pa.table({"key": part, "number": range(number, number + len(part))}, schema=SCHEMA))
        number += len(part)
    return {row["key"]: row["number"] for row in reversed(parts.rows().to_pylist())}


@settings(max_examples=60, deadline=None)
@given(keys)
def test_one_row_of_each_key_is_read_also_when_all_parts_have_become_one(
    tmp_path_factory: pytest.TempPathFactory, rows: list[list[str]]
) -> None:
    parts = Parts(UPath(tmp_path_factory.mktemp("parts")), SCHEMA, "key")
    first = added(parts, rows)
    assert {row["key"]: row["number"] for row in parts.read().to_pylist()} == first
    assert sorted(parts.keys().to_pylist()) == sorted(first)
    parts.compact(most=0)
    assert len(list(parts.folder.glob("*"))) <= 1
    assert parts.read().to_pylist() == parts.rows().to_pylist()
    assert {row["key"]: row["number"] for row in parts.read().to_pylist()} == first


def test_kinds_of_one_folder_are_apart(tmp_path: Path) -> None:
    parts, others = Parts(UPath(tmp_path), SCHEMA, "key"), Parts(UPath(tmp_path), SCHEMA, "key", "others")
    added(parts, [["a"]])
    assert len(others.rows()) == 0
    assert len(parts.rows()) == 1


def test_an_old_part_is_read_as_one_of_now(tmp_path: Path) -> None:
    old = Parts(UPath(tmp_path), pa.schema([SCHEMA.field("key")]), "key")
    old.append(pa.table({"key": ["a", "gone", "b"]}))

    def renewed(part: pa.Table) -> pa.Table:
        if "number" not in part.column_names:
            part = part.append_column("number", pa.nulls(len(part), pa.int64()))
        return part.filter(pc.field("key") != "gone")

    parts = Parts(UPath(tmp_path), SCHEMA, "key", renewed=renewed)
    parts.append(pa.table({"key": ["c"], "number": [3]}))
    rows = {"a": None, "b": None, "c": 3}
    assert {row["key"]: row["number"] for row in parts.read().to_pylist()} == rows
    assert sorted(parts.keys().to_pylist()) == sorted(rows)
    parts.compact(most=0)
    (path,) = tmp_path.glob("part-*.parquet")
    assert {row["key"]: row["number"] for row in read_table(UPath(path)).to_pylist()} == rows


def test_a_part_that_cannot_be_read_is_named_with_what_to_do(tmp_path: Path) -> None:
    parts = Parts(UPath(tmp_path), SCHEMA, "key")
    added(parts, [["a"]])
    (path,) = tmp_path.glob("part-*.parquet")
    path.write_bytes(path.read_bytes()[:20])
    with pytest.raises(PartError, match=rf"{path}: can't be read .*Remove the file: only what it held is done again"):
        parts.read()
