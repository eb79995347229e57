import json
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.benchmarks import judgebench, pairs, rewardbench2, rm_bench
from pipeline.benchmarks.loading import FORMS, NAMED, BenchmarkError, Form, Loaded, content, form, load, named
from pipeline.benchmarks.schema import ITEMS
from pipeline.dataset.schema import DATASET
from pipeline.settings import BuiltinBenchmark, CollectedBenchmark, FileBenchmark, HubBenchmark
from tests.benchmarks.made import JUDGED

NOTHING = DATASET.empty_table()
PAIR = {"id": 1, "subset": "s", "prompt": "q", "chosen": "a", "rejected": "b"}
BEST_OF = {"id": "7", "subset": "Math", "prompt": "q", "chosen": ["a"], "rejected": ["b", "c", "d"], "num_correct": 1}
TIED = {
    "id": "tied:3",
    "subset": "Ties",
    "prompt": "q",
    "chosen": ["a", "b"],
    "rejected": ["c"],
    "total_completions": 3,
}
STYLES = {"id": "x", "prompt": "q", "chosen": ["a", "b", "c"], "rejected": ["d", "e", "f"], "domain": "safety-refuse"}
RECORDS = {"pairs": PAIR, "rewardbench2": BEST_OF, "rm_bench": STYLES, "judgebench": JUDGED}


def written(tmp_path: Path, *lines: Any) -> Path:
    path = tmp_path / "records.jsonl"
    path.write_text("".join(line if isinstance(line, str) else json.dumps(line) + "\n" for line in lines))
    return path


def read(tmp_path: Path, *lines: Any, form: str = "pairs") -> Loaded:
    benchmark = FileBenchmark.model_validate({"kind": "file", "path": str(written(tmp_path, *lines)), "form": form})
    return load("mine", benchmark, NOTHING)


def test_the_module_of_every_form_has_what_a_form_has() -> None:
    assert [name for name, module in FORMS.items() if not isinstance(module, Form)] == []


# ---------------------------------------------------------------------------------------------------------------------------- records


@pytest.mark.parametrize(
    ("name", "record", "row"),
    [
        ("pairs", PAIR, ("s", "1", ["a", "b"], [True, False])),
        ("rewardbench2", BEST_OF, ("Math", "7", ["a", "b", "c", "d"], [True, False, False, False])),
        ("rewardbench2", TIED, ("Ties", "tied:3", ["a", "b", "c"], [True, True, False])),
        ("rm_bench", STYLES, ("safety-refuse", "x", ["a", "b", "c", "d", "e", "f"], [True] * 3 + [False] * 3)),
        ("judgebench", JUDGED, ("mmlu-pro-law", "x", ["b", "a"], [True, False])),
        ("judgebench", JUDGED | {"label": "A>B"}, ("mmlu-pro-law", "x", ["a", "b"], [True, False])),
    ],
)
def test_a_record_in_its_published_form_is_an_item(
    tmp_path: Path, name: str, record: dict[str, Any], row: tuple[Any, ...]
) -> None:
    loaded = read(tmp_path, record, form=name)
    assert loaded.items.schema == ITEMS
    (item,) = loaded.items.to_pylist()
    assert (item["subset"], item["item_id"], item["responses"], item["good"]) == row
    assert item["messages"] == [{"role": "user", "content": "q"}]


@pytest.mark.parametrize(
    ("name", "field"),
    [
        (name, field)
        for name, record in RECORDS.items()
        for field in record
        if "id" not in field and (name, field) != ("pairs", "subset")
    ],  # the file's name says it
)
def test_a_record_without_a_field_is_set_aside_with_line_and_name(tmp_path: Path, name: str, field: str) -> None:
    if field == "num_correct":  # says again how many are chosen
        return
    record = RECORDS[name]
    loaded = read(tmp_path, record, {k: v for k, v in record.items() if k != field}, form=name)
    assert len(loaded.items) == 1
    assert loaded.rejected.to_pylist() == [{"benchmark": "mine", "line": 2, "reason": f"field {field} is missing"}]


@pytest.mark.parametrize(
    ("name", "bad", "reason"),
    [
        ("pairs", PAIR | {"rejected": "  "}, "field rejected is blank"),
        ("pairs", PAIR | {"rejected": ["b"]}, "field rejected has a message whose role is 'None'"),
        ("pairs", PAIR | {"prompt": [{"role": "assistant", "content": "x"}]}, "field prompt has no user's message"),
        ("pairs", PAIR | {"prompt": []}, "field prompt is a list, neither"),
        ("pairs", PAIR | {"prompt": 3}, "field prompt is a int, neither"),
        ("pairs", PAIR | {"chosen": "\ud800"}, "field chosen holds half of a character"),
        ("pairs", PAIR | {"chosen": "other texts"}, "an earlier item of this subset has the same id"),
        ("pairs", "[1]\n", "the record is not a JSON object"),
        ("pairs", '{"id": 1, "subs', "the file breaks off in the middle of this line"),
        ("rewardbench2", BEST_OF | {"chosen": ["a", "b"]}, "field chosen has 2 responses; only Ties"),
        ("rewardbench2", BEST_OF | {"id": "8", "num_correct": 3}, "field num_correct is 3, but there are 1"),
        ("rewardbench2", BEST_OF | {"rejected": []}, "field rejected is not a list of responses, or is empty"),
        (
            "rewardbench2",
            BEST_OF | {"subset": "Maths"},
            "field subset is 'Maths', which is none of Factuality, Precise IF",
        ),
        ("rewardbench2", TIED | {"id": "3"}, "field id is '3'; in Ties it must be ref:N or tied:N"),
        ("rewardbench2", TIED | {"id": "tied:03"}, "field id is 'tied:03'"),
        ("rm_bench", STYLES | {"domain": "law"}, "field domain is 'law', which is none of chat, code"),
        ("rm_bench", STYLES | {"rejected": ["d", "e"]}, "field rejected has 2 responses, not one for each of 3"),
        ("judgebench", JUDGED | {"label": "A=B"}, "field label is 'A=B', which is none of A>B, B>A"),
        ("judgebench", JUDGED | {"source": "trivia"}, "field source is 'trivia', which begins with none"),
    ],
)
def test_what_is_no_item_is_set_aside_with_its_reason(tmp_path: Path, name: str, bad: Any, reason: str) -> None:
    loaded = read(tmp_path, RECORDS[name], bad, form=name)
    assert len(loaded.items) == 1
    assert loaded.rejected["line"].to_pylist() == [2]
    assert loaded.rejected["reason"].to_pylist()[0].startswith(reason)


@pytest.mark.parametrize(
    ("name", "record"),
    [
        ("pairs", PAIR | {"subset": "donotanswer", "rejected": ""}),
        ("rewardbench2", BEST_OF | {"rejected": ["b", "", "d"]}),
        ("rm_bench", STYLES | {"rejected": ["", "e", "f"]}),
        ("judgebench", JUDGED | {"response_A": ""}),
    ],
)
def test_an_empty_response_of_a_published_benchmark_is_an_answer(
    tmp_path: Path, name: str, record: dict[str, Any]
) -> None:
    loaded = read(tmp_path, record, form=name)
    assert "" in loaded.items["responses"].to_pylist()[0]
    assert len(loaded.rejected) == 0


def test_a_benchmark_without_a_usable_item_is_an_error_with_the_first_reason(tmp_path: Path) -> None:
    with pytest.raises(
        BenchmarkError, match=r"no usable item .* the first record was set aside: field chosen is missing"
    ):
        read(tmp_path, {"prompt": "q"})
    with pytest.raises(BenchmarkError, match="no benchmark file"):
        load("mine", FileBenchmark(kind="file", path=str(tmp_path / "gone.jsonl")), NOTHING)


def test_a_prompt_may_be_a_conversation_and_an_id_may_stand_in_two_subsets(tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}, {"role": "user", "content": "c"}]
    items = read(tmp_path, PAIR | {"prompt": turns}, PAIR | {"subset": "t"}).items
    assert items["messages"].to_pylist()[0] == turns
    assert len(items) == 2


# ------------------------------------------------------------------------------------------------------------------------------- places


@pytest.mark.parametrize("ending", [".json", ".parquet"])
def test_records_come_from_a_json_list_or_parquet_too(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"total_dataset{ending}"
    if ending == ".json":
        path.write_text(json.dumps([STYLES, STYLES | {"id": "y"}], indent=1))
    else:
        pq.write_table(pa.Table.from_pylist([STYLES, STYLES | {"id": "y"}]), path)
    loaded = load("mine", named(f"rm_bench:{path}"), NOTHING)
    assert loaded.items["item_id"].to_pylist() == ["x", "y"]


def test_a_json_list_that_breaks_off_keeps_what_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "list.json"
    path.write_text(json.dumps([PAIR, PAIR | {"id": 2}])[:-20])
    loaded = load("mine", named(str(path)), NOTHING)
    assert len(loaded.items) == 1
    assert loaded.rejected["reason"].to_pylist()[0].startswith("the file breaks off after 1 whole records")
    path.write_text('{\n "id": 1\n}')
    with pytest.raises(BenchmarkError, match="is one JSON object, not a list of records"):
        load("mine", named(str(path)), NOTHING)


def test_the_hub_is_asked_for_id_revision_and_split(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def load_dataset(identity: str, **given: Any) -> Any:
        asked.append((identity, given))
        return datasets.Dataset.from_list([JUDGED])

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    benchmark = HubBenchmark.model_validate({"kind": "hub", "form": "judgebench", "revision": "abc"})
    assert len(load("judged", benchmark, NOTHING).items) == 1
    assert asked == [("ScalerLab/JudgeBench", {"revision": "abc", "split": "gpt"})]


def test_prior_sets_are_splits_that_name_their_subset(monkeypatch: pytest.MonkeyPatch) -> None:
    turns = [{"role": "user", "content": "q"}]

    def load_dataset(identity: str, split: str, **given: Any) -> Any:
        assert identity == "allenai/pref-test-sets"
        own = {"subset": "harmless"} if split == "anthropic_hhh" else {}
        return datasets.Dataset.from_list([{"prompt": turns, "chosen": "a", "rejected": split, **own}])

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    items = load("prior", NAMED["prior_sets"], NOTHING).items.to_pylist()
    assert [item["subset"] for item in items] == [item["responses"][1] for item in items] == list(pairs.PRIOR)
    assert {pairs.section_of(item["subset"]) for item in items} == {"Prior Sets"}


def test_a_hub_that_does_not_answer_is_an_error_that_names_what_was_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    def load_dataset(identity: str, **given: Any) -> Any:
        raise ConnectionError("no network")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    with pytest.raises(BenchmarkError, match=r"allenai/reward-bench-2 \(split test\) can't be read: ConnectionError"):
        load("b", NAMED["rewardbench2"], NOTHING)


def test_a_command_line_names_a_published_benchmark_or_a_file_with_its_form(tmp_path: Path) -> None:
    path = written(tmp_path, PAIR)
    assert named("rewardbench") == HubBenchmark(kind="hub", id="allenai/reward-bench", split="filtered")
    assert named("smoke") == BuiltinBenchmark(kind="builtin", name="smoke")
    assert named(str(path)) == FileBenchmark(kind="file", path=str(path))
    assert named(f"judgebench:{path}") == FileBenchmark(kind="file", path=str(path), form="judgebench")
    forms = [form(NAMED[name]) for name in ("rewardbench", "rewardbench2", "rm_bench", "judgebench")]
    assert forms == [pairs, rewardbench2, rm_bench, judgebench]
    with pytest.raises(
        BenchmarkError, match=r"there is no benchmark 'rewardbench3'; name one of smoke, rewardbench, .* FORM:FILE"
    ):
        named("rewardbench3")


def test_the_hash_of_items_is_of_those_that_ship_alone() -> None:
    assert len(content(BuiltinBenchmark(kind="builtin", name="smoke"))) == 64
    assert content(FileBenchmark(kind="file", path="somewhere.jsonl")) == ""


def test_the_rewardbench_part_is_read_whole_and_is_no_rewardbench(shared_data: Path) -> None:
    loaded = load("part", named(str(shared_data / "eval" / "rewardbench_part.jsonl")), NOTHING)
    assert (len(loaded.items), len(loaded.rejected)) == (747, 0)
    counts = loaded.items.to_pandas()["subset"].value_counts().to_dict()
    assert all(pairs.WEIGHTS[subset] == n for subset, n in counts.items())
    assert not pairs.is_rewardbench(counts)


def test_smoke_has_twelve_short_pairs_in_each_of_four_subsets_and_length_gives_nothing_away() -> None:
    loaded = load("smoke", NAMED["smoke"], NOTHING)
    assert len(loaded.rejected) == 0
    frame = loaded.items.to_pandas()
    names = ("smoke-chat", "smoke-chat-hard", "smoke-safety", "smoke-reasoning")
    assert frame["subset"].value_counts().to_dict() == dict.fromkeys(names, 12)
    assert frame["item_id"].is_unique
    assert all(list(good) == [True, False] for good in frame["good"])
    chosen, rejected = frame["responses"].str[0], frame["responses"].str[1]
    longer = chosen.str.len() > rejected.str.len()
    assert longer.groupby(frame["subset"]).sum().to_dict() == dict.fromkeys(names, 6)
    assert (chosen.str.len() != rejected.str.len()).all()
    assert max(chosen.str.split().str.len().max(), rejected.str.split().str.len().max()) < 80


# ---------------------------------------------------------------------------------------------------------------------------- collected


def collected(*prompts: tuple[str, str, tuple[float | None, ...]]) -> Loaded:
    rows = [
        {"split": split, "prompt_id": p, "response_id": f"{p}{n}", "position": n, "response": f"{p}-{n}", "helpfulness_mean": h,
         "messages": [{"role": "user", "content": "q"}]}
        for split, p, means in prompts for n, h in enumerate(means, start=1)
    ]  # fmt: skip
    return load("held_out", CollectedBenchmark(kind="collected"), pa.Table.from_pylist(rows, schema=DATASET))


def test_collected_pairs_are_of_the_validation_split_and_ties_are_left_out_and_counted() -> None:
    loaded = collected(
        ("validation", "a", (1, 3)),
        ("validation", "b", (4, 2)),
        ("validation", "tie", (2, 2)),
        ("validation", "unrated", (2, None)),
        ("train", "c", (0, 4)),
    )
    assert loaded.items["responses"].to_pylist() == [["a-2", "a-1"], ["b-1", "b-2"]]
    assert loaded.items["good"].to_pylist() == [[True, False]] * 2
    assert loaded.ties == 2


def test_collected_pairs_need_two_responses_a_prompt_and_one_that_is_better() -> None:
    with pytest.raises(BenchmarkError, match="exactly two responses"):
        collected(("validation", "a", (1, 3)), ("validation", "b", (4,)))
    with pytest.raises(BenchmarkError, match="no pair with different helpfulness"):
        collected(("validation", "a", (1, 1)))
