import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression

from pipeline.dataset.schema import DATASET
from pipeline.evaluation.benchmarks import BenchmarkError, Loaded, content, load
from pipeline.evaluation.schema import PAIRS
from pipeline.evaluation.summary import leaderboard, score_table, summarise
from pipeline.evaluation.weights import PUBLISHED_70B, fit_attribute_weights, weights_of
from pipeline.reward_model.schema import PREFERENCE_PREDICTIONS
from pipeline.settings import ATTRIBUTES, BuiltinBenchmark, CollectedBenchmark, FileBenchmark

NOTHING = DATASET.empty_table()
PAIR = {"id": 1, "subset": "s", "prompt": "q", "chosen": "a", "rejected": "b"}


def read(tmp_path: Path, *lines: Any) -> Loaded:
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(line if isinstance(line, str) else json.dumps(line) + "\n" for line in lines))
    return load("mine", FileBenchmark(kind="file", path=str(path)), NOTHING)


def test_smoke_has_twelve_short_pairs_in_each_of_four_subsets_and_length_gives_nothing_away() -> None:
    loaded = load("smoke", BuiltinBenchmark(kind="builtin", name="smoke"), NOTHING)
    assert len(loaded.rejected) == 0
    frame = loaded.pairs.to_pandas()
    names = ("smoke-chat", "smoke-chat-hard", "smoke-safety", "smoke-reasoning")
    assert frame["subset"].value_counts().to_dict() == dict.fromkeys(names, 12)
    assert frame["pair_id"].is_unique
    lengths = frame[["chosen", "rejected"]].map(len)
    assert (lengths["chosen"] > lengths["rejected"]).groupby(frame["subset"]).sum().to_dict() == dict.fromkeys(names, 6)
    assert (lengths["chosen"] != lengths["rejected"]).all()
    assert frame[["chosen", "rejected"]].map(lambda text: len(text.split())).max().max() < 80


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ({k: v for k, v in PAIR.items() if k != "chosen"}, "field chosen is missing"),
        (PAIR | {"rejected": "  "}, "field rejected is not a text, or blank"),
        (PAIR | {"prompt": [{"role": "assistant", "content": "x"}]}, "field prompt is neither"),
        (PAIR | {"prompt": 3}, "field prompt is neither"),
        (PAIR | {"chosen": "other texts"}, "a pair of this subset with this id was there before"),
        ("[1]\n", "not a JSON object"),
        ('{"id": 1, "subs', "the file breaks off in the middle of this line"),
    ],
)
def test_a_record_that_is_no_pair_is_set_aside_with_its_reason(tmp_path: Path, bad: Any, reason: str) -> None:
    loaded = read(tmp_path, PAIR, bad)
    assert len(loaded.pairs) == 1
    assert loaded.rejected["line"].to_pylist() == [2]
    assert loaded.rejected["reason"].to_pylist()[0].startswith(reason)


def test_a_benchmark_without_a_usable_pair_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(BenchmarkError, match="no usable pair"):
        read(tmp_path, {"prompt": "q"})
    with pytest.raises(BenchmarkError, match="no benchmark file"):
        load("mine", FileBenchmark(kind="file", path=str(tmp_path / "gone.jsonl")), NOTHING)


def test_a_prompt_may_be_a_conversation(tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}, {"role": "user", "content": "c"}]
    assert read(tmp_path, PAIR | {"prompt": turns}).pairs["messages"].to_pylist() == [turns]


def test_an_id_may_stand_in_two_subsets(tmp_path: Path) -> None:
    assert len(read(tmp_path, PAIR, PAIR | {"subset": "t"}).pairs) == 2


def test_the_hash_of_pairs_is_of_those_that_ship_alone() -> None:
    assert len(content(BuiltinBenchmark(kind="builtin", name="smoke"))) == 64
    assert content(FileBenchmark(kind="file", path="somewhere.jsonl")) == ""


def test_the_rewardbench_part_is_read_whole(shared_data: Path) -> None:
    file = FileBenchmark(kind="file", path=str(shared_data / "eval" / "rewardbench_part.jsonl"))
    loaded = load("part", file, NOTHING)
    assert (len(loaded.pairs), len(loaded.rejected)) == (747, 0)


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
    assert loaded.pairs.select(["chosen", "rejected"]).to_pylist() == [
        {"chosen": "a-2", "rejected": "a-1"},
        {"chosen": "b-1", "rejected": "b-2"},
    ]
    assert loaded.ties == 2


def test_collected_pairs_need_two_responses_a_prompt_and_one_that_is_better() -> None:
    with pytest.raises(BenchmarkError, match="exactly two responses"):
        collected(("validation", "a", (1, 3)), ("validation", "b", (4,)))
    with pytest.raises(BenchmarkError, match="no pair with different helpfulness"):
        collected(("validation", "a", (1, 1)))


def scored(wins: list[int], subset: str = "s") -> pa.Table:
    n = len(wins)
    rows = [
        {"benchmark": "b", "pair_id": str(k), "subset": subset, "messages": [], "chosen": "long one", "rejected": "x"}
        for k in range(n)
    ]
    chosen, rejected = np.zeros((n, 5)), np.zeros((n, 5))
    chosen[:, 0] = wins
    return score_table(pa.Table.from_pylist(rows, schema=PAIRS), chosen, rejected, [1, 0, 0, 0, 0])


def test_a_tie_loses() -> None:
    assert scored([1, 0, -1])["win"].to_pylist() == [True, False, False]


@settings(max_examples=30, deadline=None)
@given(st.lists(st.sampled_from([1, 0, -1]), min_size=1, max_size=60))
def test_accuracy_is_the_share_of_wins_within_its_interval(wins: list[int]) -> None:
    (subset, section, total) = summarise(scored(wins), seed=1).to_pylist()
    accuracy = sum(w > 0 for w in wins) / len(wins)
    for row in (subset, section, total):
        assert row["accuracy"] == pytest.approx(accuracy)
        assert row["low"] - 1e-9 <= accuracy <= row["high"] + 1e-9
        assert row["longest_accuracy"] == 1


def test_subset_weights_hold_in_every_draw_of_a_sections_interval() -> None:
    # math-prm weighs 984 in Reasoning however few of its pairs are here, hep-cpp 164
    parts = [scored([1, -1] * 50, "math-prm"), scored([1] * 10, "hep-cpp")]
    section = next(r for r in summarise(pa.concat_tables(parts), seed=1).to_pylist() if r["level"] == "section")
    share = 984 / (984 + 164)
    assert section["accuracy"] == pytest.approx(share * 0.5 + (1 - share))
    half = 1.96 * share * np.sqrt(0.25 / 100)
    assert section["high"] - section["low"] == pytest.approx(2 * half, abs=0.02)
    assert section["pairs"] == 110


def test_the_interval_is_as_wide_as_the_binomial_says() -> None:
    row = summarise(scored([1, -1] * 200), seed=1).to_pylist()[0]
    half = 1.96 * np.sqrt(0.25 / 400)
    assert row["low"] == pytest.approx(0.5 - half, abs=0.01)
    assert row["high"] == pytest.approx(0.5 + half, abs=0.01)


def test_ours_never_stand_under_rewardbench_and_published_rows_are_marked() -> None:
    table = leaderboard(
        {"recipe": summarise(scored([1, 1, -1], "smoke-chat"), seed=1)}, rated_by="simulated annotators"
    ).to_pylist()
    ours = [r for r in table if r["origin"] == "ours"]
    assert [(r["benchmark"], r["rated_by"]) for r in ours] == [("b", "simulated annotators")]
    assert {r["benchmark"] for r in table if r["origin"] == "published"} == {"RewardBench"}
    assert ours[0]["chat"] == pytest.approx(200 / 3)


# ------------------------------------------------------------------------------------------------------------------- attribute weights


def test_weights_find_the_attribute_that_people_go_by() -> None:
    differences = np.random.default_rng(0).normal(size=(400, 5))
    weights = fit_attribute_weights(differences, differences[:, 1] > 0)
    assert weights.argmax() == 1
    assert weights[1] > 0.8
    assert np.abs(weights).sum() == pytest.approx(1)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6))
def test_weights_do_not_depend_on_the_order_within_pairs(seed: int) -> None:
    generator = np.random.default_rng(seed)
    differences, chosen = generator.normal(size=(40, 5)), generator.random(40) < 0.5
    flip = generator.random(40) < 0.5
    other = fit_attribute_weights(np.where(flip[:, None], -differences, differences), chosen ^ flip)
    assert fit_attribute_weights(differences, chosen) == pytest.approx(other, abs=1e-4)


def test_weights_are_the_plain_logistic_regression_in_units_of_spread() -> None:
    generator = np.random.default_rng(3)
    differences, chosen = generator.normal(size=(60, 5)) * [1, 2, 3, 4, 5], generator.random(60) < 0.5
    scale = np.sqrt((differences**2).mean(axis=0))
    model = LogisticRegression(C=1.0, fit_intercept=False).fit(
        np.r_[differences, -differences] / scale, np.r_[chosen, ~chosen]
    )
    wanted = model.coef_[0] / scale
    assert fit_attribute_weights(differences, chosen) == pytest.approx(wanted / np.abs(wanted).sum(), abs=1e-3)


def test_too_few_pairs_are_an_error_that_says_what_to_do() -> None:
    with pytest.raises(ValueError, match=r"4 preference pairs are too few .* raise the recipe's development_share"):
        fit_attribute_weights(np.zeros((4, 5)), np.ones(4, dtype=bool))


def preferences(outputs: tuple[str, ...], pairs: int = 12) -> pa.Table:
    rows = [
        {"prompt_id": f"p{k}", "strength": 1.0}
        | {f"{side}_{name}": value for name in outputs for side, value in (("chosen", 1.0 + k % 3), ("rejected", 0.5))}
        for k in range(pairs)
    ]
    return pa.Table.from_pylist(rows, schema=PREFERENCE_PREDICTIONS)


def test_each_output_is_weighed_and_a_single_one_has_nothing_to_weigh() -> None:
    table = weights_of(preferences(ATTRIBUTES), rated_by="simulated annotators")
    assert table["pairs"].to_pylist() == [12] * 5
    assert all(w > 0 for w in table["weight"].to_pylist())
    assert table["published_70b"].to_pylist() == list(PUBLISHED_70B)
    single = weights_of(preferences(("reward",), pairs=1), rated_by="people").to_pylist()
    assert [(r["attribute"], r["weight"], r["published_70b"]) for r in single] == [("reward", 1.0, None)]
