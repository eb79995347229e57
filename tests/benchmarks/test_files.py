"""Benchmarks in files as people have them: who is in a cluster with whom, forms of pairs, JSON of any shape, folders, wrong forms, parts."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.benchmarks import judgebench, pairs, rewardbench2, rm_bench
from pipeline.benchmarks.clusters import clusters_of
from pipeline.benchmarks.loading import BenchmarkError, Loaded, load, named, prompts
from pipeline.benchmarks.schema import ITEMS
from pipeline.dataset.schema import DATASET
from pipeline.records import FileError
from tests.benchmarks.made import JUDGED
from tests.helpers import items_of

ASKED = [{"role": "user", "content": "one?"}]
SIDES = {"chosen": "two", "rejected": "three"}
STYLES = {"prompt": "q", "chosen": ["a", "b", "c"], "rejected": ["d", "e", "f"]}


def said(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


def read(place: Path | str) -> Loaded:
    return load("mine", named(str(place)), DATASET.empty_table())


def lines(path: Path, *records: Any) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


# ----------------------------------------------------------------------------------------------------------------------------- clusters


@given(st.lists(st.tuples(st.sampled_from("abcd "), st.sampled_from([None, *"uvw"])), max_size=12))
def test_clusters_are_what_prompts_and_problems_join(rows: list[tuple[str, str | None]]) -> None:
    items = items_of(*((("s", str(n), "xy", 1)) for n in range(len(rows)))).to_pylist()
    messages = [[{"role": "user", "content": prompt}] for prompt, _ in rows]
    found = clusters_of(
        ITEMS.empty_table()["messages"] if not items else _column(messages), [problem for _, problem in rows]
    ).to_pylist()
    # the oracle: groups that share a key are merged until nothing changes
    groups = [{n} for n in range(len(rows))]
    keys = [{("prompt", p)} - {("prompt", " ")} | {("problem", q)} - {("problem", None)} for p, q in rows]
    merged = True
    while merged:
        merged = False
        for n, one in enumerate(groups):
            other = next((g for g in groups[n + 1 :] if any(keys[a] & keys[b] for a in one for b in g)), None)
            if other is not None:
                groups = [g for g in groups if g not in (one, other)] + [one | other]
                merged = True
                break
    assert found == [str(min(next(g for g in groups if n in g))) for n in range(len(rows))]


def _column(messages: list[Any]) -> Any:
    import pyarrow as pa

    return pa.chunked_array([pa.array(messages, ITEMS.field("messages").type)])


def test_six_languages_of_a_problem_are_one_cluster(tmp_path: Path) -> None:
    asked = {
        "hep-python": "`has_close_elements(numbers: List[float], threshold: float) -> bool`",
        "hep-js": "`const hasCloseElements = (numbers, threshold)`",
        "hep-cpp": "`bool has_close_elements(vector<float> numbers, float threshold)`",
        "hep-java": "`boolean hasCloseElements(List<Double> numbers, double threshold)`",
        "hep-go": "`func HasCloseElements(numbers []float64, threshold float64) bool`",
        "hep-rust": "`has_close_elements(numbers:Vec<f32>, threshold: f32) -> bool`",
    }
    by_name = [{"id": n, "subset": s, "prompt": f"Write {t}", **SIDES} for n, (s, t) in enumerate(asked.items())]
    other = {"id": 9, "subset": "hep-go", "prompt": "Write `func Other(x int)`", **SIDES}
    loaded = read(lines(tmp_path / "a.jsonl", *by_name, other))
    assert loaded.items["cluster"].to_pylist() == ["0"] * 6 + ["6"]
    by_number = [{"id": f"{s}/7", "subset": s, "prompt": f"Write {s}", **SIDES} for s in asked]
    assert len(set(read(lines(tmp_path / "b.jsonl", *by_number)).items["cluster"].to_pylist())) == 1


def test_a_record_may_name_its_cluster_and_both_prompts_of_a_question_are_one(tmp_path: Path) -> None:
    rows = [{"prompt": f"{n}?", "cluster": n // 2, **SIDES} for n in range(4)]
    assert read(lines(tmp_path / "a.jsonl", *rows)).items["cluster"].to_pylist() == ["0", "0", "2", "2"]
    ties = [
        {"id": i, "subset": "Ties", "prompt": i, "chosen": ["a"], "rejected": ["b"]}
        for i in ("ref:3", "tied:3", "ref:4")
    ]
    loaded = read(f"rewardbench2:{lines(tmp_path / 'b.jsonl', *ties)}")
    assert loaded.items["cluster"].to_pylist() == ["0", "0", "2"]
    assert rewardbench2.outcomes(loaded.items, [1.0, 0.0] * 3)["cluster"].to_pylist() == ["0", "2"]


# -------------------------------------------------------------------------------------------------------------------------------- pairs


@pytest.mark.parametrize(
    "record",
    [
        {"prompt": "one?", **SIDES},
        {"prompt": ASKED, "chosen": [said("two")], "rejected": [said("three")]},
        {"prompt": "one?", "chosen": [*ASKED, said("two")], "rejected": [*ASKED, said("three")]},
        {"chosen": [*ASKED, said("two")], "rejected": [*ASKED, said("three")]},
    ],
)
@pytest.mark.parametrize("ending", ["jsonl", "json", "csv"])
def test_pairs_in_many_dresses_are_one(tmp_path: Path, record: dict[str, Any], ending: str) -> None:
    path = tmp_path / f"my_pairs.{ending}"
    if ending == "csv":
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(record))
            writer.writeheader()
            writer.writerow({k: json.dumps(v) if isinstance(v, list) else v for k, v in record.items()})
    else:
        path.write_text(json.dumps([record] if ending == "json" else record))
    (item,) = read(path).items.to_pylist()
    assert (item["subset"], item["messages"], item["responses"]) == ("my_pairs", ASKED, ["two", "three"])


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (
            {"prompt": "other", "chosen": [*ASKED, said("two")], "rejected": "three"},
            "chosen is a conversation with another prompt",
        ),
        ({"chosen": [*ASKED, said("two")], "rejected": [said("three")]}, "rejected differs from chosen before"),
        ({"prompt": "one?", "chosen": ASKED, "rejected": "three"}, "chosen is a list of messages that does not end"),
        ({"chosen": "two", "rejected": "three"}, "prompt is missing"),
        ({"prompt": "one?", "chosen": "two", "rejected": [said(" ")]}, "rejected is blank"),
    ],
)
def test_pairs_that_say_two_things_are_set_aside(tmp_path: Path, record: dict[str, Any], reason: str) -> None:
    loaded = read(lines(tmp_path / "a.jsonl", {"prompt": "one?", **SIDES}, record))
    assert loaded.rejected["reason"].to_pylist()[0].startswith(f"field {reason}")


# -------------------------------------------------------------------------------------------------------------------------------- files

TWO = [{"prompt": "one?", **SIDES}, {"prompt": "two?", **SIDES}]


@pytest.mark.parametrize("name", ["a.json", "a.jsonl"])
@pytest.mark.parametrize(
    "text",
    [
        json.dumps(TWO),
        json.dumps(TWO, indent=1),
        "\n".join(map(json.dumps, TWO)),
        json.dumps({"version": "1", "data": TWO}),
        json.dumps({"test": TWO}, indent=2),
        "\ufeff" + json.dumps(TWO),
    ],
)
def test_json_is_read_whatever_its_shape(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    assert read(tmp_path / name).items["messages"].to_pylist() == [
        [{"role": "user", "content": f"{n}?"}] for n in ("one", "two")
    ]


def test_one_object_that_holds_no_records_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps({"prompt": "a", "more": {"x": 1}}, indent=1))
    with pytest.raises(BenchmarkError, match="is one JSON object, not a list of records"):
        read(tmp_path / "a.json")


def test_rm_benchs_files_of_a_domain_say_it_by_their_names(tmp_path: Path) -> None:
    for name in (
        "chat_filtered",
        "code_filtered",
        "math_filtered",
        "safety-refuse_filtered",
        "safety-response_filtered",
    ):
        (tmp_path / f"{name}.json").write_text(json.dumps([{"id": "1", **STYLES}, {"id": "2", **STYLES}]))
    (alone,) = set(read(f"rm_bench:{tmp_path / 'safety-refuse_filtered.json'}").items["subset"].to_pylist())
    assert alone == "safety-refuse"
    for place in (tmp_path, tmp_path / "*_filtered.json"):
        loaded = read(f"rm_bench:{place}")
        assert len(loaded.items) == 10
        assert not rm_bench.lacks(dict.fromkeys(loaded.items["subset"].to_pylist(), 2))
    with pytest.raises(BenchmarkError, match="there is no benchmark"):
        named(f"rm_bench:{tmp_path / '*_nothing.json'}")


@pytest.mark.parametrize(("file", "domain"), [("chat.json", "chat"), ("CODE_filtered.json", "code"), ("safety_refuse.jsonl", "safety-refuse"),
                                               ("chatty.json", None), ("total_dataset.json", None)])  # fmt: skip
def test_the_domain_in_a_files_name(file: str, domain: str | None) -> None:
    assert rm_bench.named_by(file).get("domain") == domain


def test_a_wrong_form_says_what_is_missing_and_which_would_fit(tmp_path: Path) -> None:
    with pytest.raises(BenchmarkError) as error:
        read(lines(tmp_path / "a.jsonl", JUDGED))
    assert "Its fields are pair_id, source, question, response_A, response_B, label" in str(error.value)
    assert (
        "the form pairs also needs prompt, chosen, rejected. They fit the form judgebench: give it as judgebench:FILE"
        in str(error.value)
    )
    (tmp_path / "chat_filtered.json").write_text(json.dumps([STYLES]))
    with pytest.raises(BenchmarkError, match=r"Its fields are prompt, chosen, rejected. They fit the form rm_bench"):
        read(tmp_path / "chat_filtered.json")
    with pytest.raises(BenchmarkError, match="They fit the form pairs"):
        read(f"judgebench:{lines(tmp_path / 'b.jsonl', {'prompt': 'a', **SIDES})}")


# -------------------------------------------------------------------------------------------------------------------------------- parts


def test_what_a_part_of_a_benchmark_lacks() -> None:
    assert rm_bench.lacks({"chat": 5}) == "RM-Bench without Code, Math and Safety"
    assert rm_bench.lacks({"chat": 5, "code": 1, "math": 1, "safety-refuse": 1}) == "RM-Bench without safety-response"
    assert judgebench.lacks({"mmlu-pro-law": 3, "livebench-math": 2}) == "JudgeBench without Reasoning and Coding"
    whole = {**rewardbench2.ITEMS_OF, "Ties": 51}
    assert rewardbench2.lacks(whole) == ""
    assert rewardbench2.lacks(whole | {"Math": 100}) == "RewardBench 2 without 83 of 183 items of Math"
    assert rewardbench2.lacks({"Math": 183}).startswith("RewardBench 2 without Factuality, Precise IF")
    assert pairs.lacks(pairs.pairs_of()) == "" == pairs.lacks({"mine": 3})
    assert pairs.lacks(pairs.pairs_of() | {"hep-go": 160}) == "RewardBench without 4 of 164 pairs of hep-go"
    assert pairs.lacks(dict.fromkeys(pairs.REWARDBENCH["Chat"], 1000)).startswith(
        "RewardBench without Chat Hard, Safety and Reasoning"
    )


# ---------------------------------------------------------------------------------------------------------------- what was trained on


def test_prompts_of_a_file_of_any_kind(tmp_path: Path) -> None:
    rows = [{"prompt": "one?"}, {"messages": [*ASKED, said("x")]}, {"prompt": ASKED}, {"chosen": [*ASKED, said("x")]}]
    assert prompts(lines(tmp_path / "a.jsonl", *rows)).to_pylist() == ["one?"] * 4
    with pytest.raises(FileError, match=r"a.jsonl:1: prompt is missing"):
        prompts(lines(tmp_path / "a.jsonl", {"text": "x"}))
