import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.evaluation.schema import PAIRS
from pipeline.evaluation.summary import leaderboard, score_table, summarise


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
