from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.engines.schema import ANSWERS
from pipeline.responses.expectations import PLAN, plan_views
from pipeline.responses.plan import OF_A_PAIR, assign_generators, pair_responses, requests_of, responses_of
from pipeline.responses.schema import CONTEXTS
from pipeline.settings import Generator, Sampling

SHARES = {"a": 0.3, "b": 0.25, "c": 0.2, "d": 0.15, "e": 0.07, "f": 0.03}
shares_strategy = st.dictionaries(st.sampled_from("abcdefgh"), st.floats(0.05, 1), min_size=2).filter(
    lambda s: max(s.values()) <= sum(s.values()) / 2
)


def ids(n: int) -> pa.Array:
    return pa.array([f"prompt-{i}" for i in range(n)])


@settings(max_examples=60, deadline=None)
@given(shares_strategy, st.integers(0, 2**31), st.integers(1, 60))
def test_every_prompt_has_two_different_generators(shares: Mapping[str, float], seed: int, n: int) -> None:
    plan = assign_generators(ids(n), shares, seed).to_pandas()
    by_prompt = plan.groupby("prompt_id")
    assert (by_prompt["generator"].nunique() == 2).all()
    assert (by_prompt["position"].apply(sorted).apply(tuple) == (1, 2)).all()
    assert len(plan) == 2 * n


def test_shares_are_kept_to_sampling_error() -> None:
    plan = assign_generators(ids(40_000), SHARES, 3)
    off = plan_views(plan, pa.table({"prompt_id": ids(40_000)}), SHARES)["shares"]["standard_errors_off"].to_numpy()
    assert np.abs(off).max() < 4


def test_a_share_of_half_is_in_every_prompt() -> None:
    plan = assign_generators(ids(500), {"a": 0.5, "b": 0.3, "c": 0.2}, 1).to_pandas()
    assert (plan["generator"] == "a").sum() == 500


def test_each_is_shown_first_about_as_often_as_second() -> None:
    plan = assign_generators(ids(20_000), SHARES, 5).to_pandas()
    first = (plan["position"] == 1).groupby(plan["generator"]).mean()
    assert ((first - 0.5).abs() < 0.06).all()


def test_other_prompts_and_their_order_move_no_draw() -> None:
    few, many = (
        assign_generators(ids(50), SHARES, 9),
        assign_generators(ids(200).take(pa.array(range(199, -1, -1))), SHARES, 9),
    )
    kept = many.to_pandas().merge(few.to_pandas(), on=["prompt_id", "position", "generator", "seed"])
    assert len(kept) == 100


def test_another_seed_is_another_plan() -> None:
    assert not assign_generators(ids(50), SHARES, 1).equals(assign_generators(ids(50), SHARES, 2))
    assert assign_generators(ids(50), SHARES, 1).equals(assign_generators(ids(50), SHARES, 1))


def test_a_generator_with_more_than_half_is_refused() -> None:
    with pytest.raises(ValueError, match="a has more than half"):
        assign_generators(ids(3), {"a": 0.8, "b": 0.2}, 1)


def test_every_gating_rule_of_the_plan_can_fail() -> None:
    assert {rule.name for rule in PLAN if rule.gating} == {
        "two_rows_a_prompt",
        "different_generators",
        "both_positions",
        "every_context_planned",
    }


GENERATORS = {
    "a": Generator(checkpoint="x", share=1, system_prompt="Be brief.", sampling=Sampling(max_tokens=9)),
    "b": Generator(checkpoint="x", share=1),
}
CONTEXT_ROWS = [
    {"prompt_id": f"p{n}", "messages": [{"role": "user", "content": f"question {n}"}], "n_turns": 1} for n in range(3)
]
CONTEXT_TABLE = pa.Table.from_pylist(CONTEXT_ROWS, schema=CONTEXTS)


def test_a_request_is_the_system_prompt_then_the_context() -> None:
    plan = assign_generators(CONTEXT_TABLE["prompt_id"], {"a": 1, "b": 1}, 0)
    asked = requests_of(plan, CONTEXT_TABLE, {"a": GENERATORS["a"]}).to_pylist()
    assert [r["generator"] for r in asked] == ["a", "a", "a"]
    assert asked[0]["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "question 0"},
    ]
    assert Sampling.model_validate_json(asked[0]["sampling"]).max_tokens == 9


def test_a_plan_for_prompts_without_context_is_an_error() -> None:
    plan = assign_generators(ids(2), {"a": 1, "b": 1}, 0)
    with pytest.raises(ValueError, match="4 planned prompts have no context"):
        requests_of(plan, CONTEXT_TABLE, GENERATORS)


def answers(texts: list[str], reasons: list[str]) -> pa.Table:
    rows = [
        {"request_key": f"k{n}", "text": t, "finish_reason": r, "detail": "too long" if r == "refused" else None,
         "prompt_tokens": 1, "output_tokens": 2}
        for n, (t, r) in enumerate(zip(texts, reasons, strict=True))
    ]  # fmt: skip
    return pa.Table.from_pylist(rows, schema=ANSWERS)


def test_a_prompt_with_a_blank_or_refused_response_is_left_out_with_the_reason() -> None:
    plan = assign_generators(CONTEXT_TABLE["prompt_id"], {"a": 1, "b": 1}, 0)
    asked = requests_of(plan, CONTEXT_TABLE, GENERATORS)
    figures = {"model": "m", "model_revision": "r"}
    # rows come by prompt: p0 is whole, p1 has a refused response, p2 a blank one
    given_back = answers(["x", "y", "x", "", "  ", "z"], ["stop", "length", "stop", "refused", "stop", "stop"])
    pairs, left_out = pair_responses(plan, CONTEXT_TABLE, responses_of(asked, given_back, figures, "MIT"))
    assert pairs["prompt_id"].to_pylist() == ["p0", "p0"]
    assert pairs["messages"].to_pylist()[0] == CONTEXT_ROWS[0]["messages"]
    assert [(r["prompt_id"], r["reason"]) for r in left_out.to_pylist()] == [
        ("p1", "too long"),
        ("p2", "blank response"),
    ]


def test_a_thought_stays_with_its_response_and_goes_into_no_pair() -> None:
    plan = assign_generators(CONTEXT_TABLE["prompt_id"], {"a": 1, "b": 1}, 0)
    asked = requests_of(plan, CONTEXT_TABLE, GENERATORS)
    given_back = answers(list("uvwxyz"), ["stop"] * 6).set_column(6, "reasoning", pa.array(["hm", *[None] * 5]))
    whole = responses_of(asked, given_back, {"model": "m", "model_revision": "r"}, "MIT")
    assert whole["reasoning"].to_pylist() == ["hm", *[None] * 5]
    pairs, _ = pair_responses(plan, CONTEXT_TABLE, whole)
    assert len(pairs) == 6
    assert "hm" not in str(pairs.to_pylist())
    older = whole.drop_columns("reasoning").select(OF_A_PAIR)
    assert pair_responses(plan, CONTEXT_TABLE, older)[0].equals(pairs), "also beside partitions of before"


def test_a_response_that_is_missing_leaves_its_prompt_out() -> None:
    plan = assign_generators(CONTEXT_TABLE["prompt_id"], {"a": 1, "b": 1}, 0)
    asked = requests_of(plan, CONTEXT_TABLE, GENERATORS)
    whole = responses_of(asked, answers(list("uvwxyz"), ["stop"] * 6), {"model": "m", "model_revision": "r"}, "MIT")
    pairs, left_out = pair_responses(plan, CONTEXT_TABLE, whole.slice(1))
    assert set(pairs["prompt_id"].to_pylist()) == {"p1", "p2"}
    assert left_out["reason"].to_pylist() == ["no response from its generator"]
