"""Files as people bring them, read for training and scoring."""

import csv
import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.records import FileError
from pipeline.reward_model.rows import read
from pipeline.reward_model.sources.files import level_of
from pipeline.vocabulary import ATTRIBUTES

ASKED = [{"role": "user", "content": "one?"}]
SAID = {"role": "assistant", "content": "two"}


def written(path: Path, records: list[dict[str, Any]]) -> Path:
    match path.name.split(".", 1)[1]:
        case "jsonl":
            path.write_text("".join(json.dumps(r) + "\n" for r in records))
        case "jsonl.gz":
            path.write_bytes(gzip.compress("".join(json.dumps(r) + "\n" for r in records).encode()))
        case "json":
            path.write_text(json.dumps(records))
        case "parquet":
            pq.write_table(pa.Table.from_pylist(records), path)
        case "csv":
            with path.open("w", newline="") as file:
                writer = csv.DictWriter(file, list(records[0]))
                writer.writeheader()
                writer.writerows(
                    {k: json.dumps(v) if isinstance(v, list) else v for k, v in r.items()} for r in records
                )
    return path


@pytest.mark.parametrize("ending", ["jsonl", "jsonl.gz", "json", "parquet", "csv"])
@pytest.mark.parametrize(
    "record",
    [
        {"prompt": "one?", "response": "two"},
        {"prompt": ASKED, "response": "two"},
        {"prompt": ASKED, "response": [SAID]},
        {"messages": [*ASKED, SAID]},
        {"messages": ASKED, "response": "two"},
    ],
)
def test_one_conversation_in_many_forms_and_files_is_one(tmp_path: Path, ending: str, record: dict[str, Any]) -> None:
    found = read(written(tmp_path / f"a.{ending}", [record | {"helpfulness": None}, record | {"helpfulness": 3}]))
    first, second = found.rated.to_pylist()
    assert (first["messages"], first["response"]) == (ASKED, "two") == (second["messages"], second["response"])
    assert first["prompt_id"] == second["prompt_id"]
    assert (first["response_id"], second["response_id"]) == (
        f"{first['prompt_id'][:24]}-1",
        f"{first['prompt_id'][:24]}-2",
    )
    assert [first[a] for a in ATTRIBUTES] == [None] * 5
    assert [second[a] for a in ATTRIBUTES] == [3.0, None, None, None, None]
    assert found.rated_by is None


@pytest.mark.parametrize("ending", ["jsonl", "parquet", "csv"])
@pytest.mark.parametrize(
    "record",
    [
        {"prompt": "one?", "chosen": "two", "rejected": "three"},
        {"prompt": ASKED, "chosen": [SAID], "rejected": [{"role": "assistant", "content": "three"}]},
        {"chosen": [*ASKED, SAID], "rejected": [*ASKED, {"role": "assistant", "content": "three"}]},
    ],
)
def test_preferences_in_many_forms_are_one(tmp_path: Path, ending: str, record: dict[str, Any]) -> None:
    (pair,) = read(written(tmp_path / f"a.{ending}", [record])).preferred.to_pylist()
    assert (pair["messages"], pair["chosen"], pair["rejected"], pair["strength"]) == (ASKED, "two", "three", 1.0)


@pytest.mark.parametrize(
    ("record", "said"),
    [
        ({"response": "two"}, "prompt is missing, and so is messages"),
        ({"messages": ASKED}, "response is missing, and messages does not end with the assistant's message"),
        ({"messages": [SAID]}, "messages has no user's message before the response"),
        ({"messages": [{"role": "tool", "content": "x"}, SAID]}, "messages has a message whose role is 'tool'"),
        ({"prompt": "a", "response": 7}, "response is a int"),
        ({"prompt": "a", "response": "b", "helpfulness": 7}, "helpfulness is 7, not a number from 0 to 4"),
        ({"prompt": "a", "response": "b", "helpfulness": "good"}, "helpfulness is 'good', not a number"),
        ({"prompt": "a", "response": "b", "helpfulness": True}, "helpfulness is 'True', not a number"),
        (
            {"prompt": "a", "response": "b", "helpfulness": [3, 4]},
            "helpfulness is a list of ratings; make labels of them",
        ),
        ({"prompt": "a", "chosen": "b"}, "rejected is missing"),
        ({"chosen": [*ASKED, SAID], "rejected": [SAID]}, "rejected differs from chosen before the last message"),
        ({"prompt": "a", "chosen": "b", "rejected": "c", "strength": 0}, "strength is 0, not above 0"),
    ],
)
def test_a_row_that_can_not_be_used_is_named_with_its_line(tmp_path: Path, record: dict[str, Any], said: str) -> None:
    path = written(tmp_path / "a.jsonl", [{"prompt": "a", "response": "b"}, record, record])
    with pytest.raises(FileError) as error:
        read(path)
    assert str(error.value).startswith(f"{path}:2: {said}")
    assert str(error.value).endswith("Rows that can't be used: 2")


@pytest.mark.parametrize(
    ("records", "expected"),
    [
        ([{}, {"desk": "label_studio"}], None),
        ([{"rated_by": "people"}], "people"),
        ([{"rated_by": "people"}, {"simulated": True}], "simulated annotators"),
        ([{"desk": "models"}, {"rated_by": "people"}], "language models"),
        ([{"rated_by": "a cat"}], None),
    ],
)
def test_who_rated_is_what_the_file_says(tmp_path: Path, records: list[dict[str, Any]], expected: str | None) -> None:
    rows = [{"prompt": "a", "response": "b"} | record for record in records]
    assert read(written(tmp_path / "a.jsonl", rows)).rated_by == expected


@given(st.one_of(st.integers(-2, 6), st.floats(-1, 5), st.sampled_from(["", "3", "2.5", " 4 ", "nan"])))
def test_a_rating_is_a_number_from_0_to_4_however_it_is_written(value: Any) -> None:
    number = None if value in ("", "nan") else float(value)
    if number is None or 0 <= number <= 4:
        assert level_of(value, "helpfulness") == number
    else:
        with pytest.raises(ValueError, match="not a number from 0 to 4"):
            level_of(value, "helpfulness")


def test_a_prompt_that_is_json_itself_stays_a_text(tmp_path: Path) -> None:
    (row,) = read(written(tmp_path / "a.jsonl", [{"prompt": '[{"a": 1}]', "response": "b"}])).rated.to_pylist()
    assert row["messages"] == [{"role": "user", "content": '[{"a": 1}]'}]
