"""The annotator model against a plain loop, on what it must not depend on, and on annotators whose ways are known."""

import itertools
import math

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from pipeline.annotations.annotator_model import (
    ANNOTATORS,
    BIASES,
    LAPSES,
    POSTERIOR,
    QUALITY,
    SCATTERS,
    _candidates,
    _likelihood,
    _prior,
    annotator_model,
    model_labels,
)
from pipeline.forms.rows import ANNOTATIONS
from pipeline.vocabulary import ATTRIBUTES

Rows = list[tuple[str, str, int | None]]


def table(rows: Rows) -> pa.Table:
    """Annotations of (response, annotator, helpfulness); two responses a prompt."""
    records = [
        {"prompt_id": f"p{int(r[1:]) // 2}", "response_id": r, "annotator_id": a, "simulated": False}
        | dict.fromkeys(ATTRIBUTES, x)
        for r, a, x in rows
    ]
    return pa.Table.from_pylist(records, schema=ANNOTATIONS)


rows_strategy = st.lists(
    st.tuples(
        st.sampled_from(["r0", "r1", "r2"]), st.sampled_from(["a", "b"]), st.one_of(st.none(), st.integers(0, 4))
    ),
    min_size=1,
    max_size=6,
    unique_by=lambda row: row[:2],
)


def normal_cdf(x: float) -> float:
    return 0.5 * (1 + math.erf(x / math.sqrt(2)))


def probability(level: int, quality: float, bias: float, scatter: float, lapse: float) -> float:
    low = 0.0 if level == 0 else normal_cdf((level - 0.5 - quality - bias) / scatter)
    high = 1.0 if level == 4 else normal_cdf((level + 0.5 - quality - bias) / scatter)
    return (1 - lapse) * (high - low) + lapse / 5


def test_the_likelihood_is_that_of_rounding_a_noisy_shifted_quality_with_lapses() -> None:
    draw = np.random.default_rng(1)
    likelihood, candidates = _likelihood(), _candidates()
    assert likelihood.sum(axis=0) == pytest.approx(1)
    for _ in range(200):
        level, g, c = draw.integers(5), draw.integers(len(QUALITY)), draw.integers(len(candidates))
        assert likelihood[level, g, c] == pytest.approx(probability(int(level), QUALITY[g], *candidates[c]), abs=1e-12)
    # and of drawing: what 200,000 raters of one kind say
    quality, (bias, scatter, lapse) = QUALITY[35], (BIASES[12], SCATTERS[4], LAPSES[1])
    felt = np.clip(np.floor(quality + bias + scatter * draw.normal(size=200_000) + 0.5), 0, 4)
    said = np.where(draw.random(200_000) < lapse, draw.integers(0, 5, 200_000), felt).astype(int)
    (kind,) = np.flatnonzero((candidates == [bias, scatter, lapse]).all(axis=1))
    assert np.bincount(said, minlength=5) / 200_000 == pytest.approx(likelihood[:, 35, kind], abs=0.005)


def plain_round(rows: Rows, responses: list[str], annotators: list[str]) -> np.ndarray:
    """The first round's posterior means of quality, by loops: every annotator is still as supposed."""
    log_likelihood, supposed = np.log(_likelihood()), _prior()
    expected = {
        x: [sum(p * v for p, v in zip(supposed, log_likelihood[x, g], strict=True)) for g in range(len(QUALITY))]
        for x in range(5)
    }
    means = []
    for response in responses:
        logs = [sum(expected[x][g] for r, _, x in rows if r == response and x is not None) for g in range(len(QUALITY))]
        weights = [math.exp(v - max(logs)) for v in logs]
        means.append(sum(w * q for w, q in zip(weights, QUALITY, strict=True)) / sum(weights))
    return np.array(means)


@settings(max_examples=15, deadline=None)
@given(rows_strategy)
def test_a_round_is_that_of_a_plain_loop(rows: Rows) -> None:
    responses = list(dict.fromkeys(r for r, _, _ in rows))
    found = annotator_model(table(rows), "helpfulness", fewest=1, rounds=1).posterior.to_pylist()
    wanted = plain_round(rows, responses, ["a", "b"])
    assert [r["response_id"] for r in found] == responses
    for row, mean in zip(found, wanted, strict=True):
        n = sum(r == row["response_id"] and x is not None for r, _, x in rows)
        assert row["n"] == n
        assert (row["mean"] is None) == (row["sd"] is None) == (n == 0)
        if n:
            assert row["mean"] == pytest.approx(mean, abs=1e-9)


@settings(max_examples=40, deadline=None)
@given(rows_strategy, st.integers(1, 4))
def test_the_bound_never_falls(rows: Rows, fewest: int) -> None:
    bound = annotator_model(table(rows), "helpfulness", fewest=fewest, rounds=15, tolerance=0).bound
    assert all(after >= before - 1e-7 for before, after in itertools.pairwise(bound))


@settings(max_examples=25, deadline=None)
@given(rows_strategy, st.randoms())
def test_neither_the_order_of_rows_nor_the_names_of_annotators_matter(rows: Rows, shuffle: object) -> None:
    assume(any(x is not None for _, _, x in rows))
    other = [(r, {"a": "zoe", "b": "al"}[a], x) for r, a, x in rows]
    shuffle.shuffle(other)  # type: ignore[attr-defined]
    one, two = (
        {
            r["response_id"]: r["mean"]
            for r in annotator_model(table(t), "helpfulness", fewest=1, rounds=5, tolerance=0).posterior.to_pylist()
        }
        for t in (rows, other)
    )
    for response, mean in one.items():
        assert two[response] == (None if mean is None else pytest.approx(mean, abs=1e-9))


def panel(seed: int, named: bool = True) -> tuple[pa.Table, np.ndarray]:
    """Four hundred responses by twenty annotators, four each: a0 leans up by 1, a1 says anything, the others have a scatter of 0.5."""
    draw = np.random.default_rng(seed)
    truth = draw.uniform(0, 4, 400)
    rows: Rows = []
    for r, quality in enumerate(truth):
        for a in draw.permutation(20)[:4]:
            felt = draw.integers(0, 5) if a == 1 else quality + (a == 0) + 0.5 * draw.normal()
            name = f"a{a}" if named else f"{r}/{a}"
            rows.append((f"r{r}", name, int(np.clip(np.floor(felt + 0.5), 0, 4))))
    return table(rows), truth


def test_annotators_are_found_out_and_the_truth_is_nearer_than_by_the_mean() -> None:
    ratings, truth = panel(3)
    fitted = annotator_model(ratings, "helpfulness")
    assert fitted.posterior.schema.equals(POSTERIOR)
    assert fitted.annotators.schema.equals(ANNOTATORS)
    people = {r["annotator_id"]: r for r in fitted.annotators.to_pylist()}
    assert people["a0"]["bias"] == pytest.approx(1, abs=0.25)
    assert people["a1"]["lapse"] + people["a1"]["scatter"] > 1.2
    others = [people[f"a{a}"] for a in range(2, 20)]
    assert np.mean([p["bias"] for p in others]) == pytest.approx(0, abs=0.15)
    assert np.mean([p["scatter"] for p in others]) == pytest.approx(0.5, abs=0.15)
    assert max(p["lapse"] for p in others) < 0.2
    posterior = fitted.posterior.to_pandas().set_index("response_id").loc[[f"r{r}" for r in range(400)]]
    means = ratings.to_pandas().groupby("response_id")["helpfulness"].mean().loc[posterior.index]
    assert np.sqrt(np.mean((posterior["mean"] - truth) ** 2)) < 0.85 * np.sqrt(np.mean((means - truth) ** 2))
    # the spread that it states is the spread that there is
    assert np.mean(((posterior["mean"] - truth) / posterior["sd"]) ** 2) == pytest.approx(1, abs=0.4)


def test_annotators_with_few_ratings_share_what_is_known() -> None:
    ratings, truth = panel(4, named=False)
    fitted = annotator_model(ratings, "helpfulness")
    people = fitted.annotators.to_pandas()
    assert people["pooled"].all()
    assert people["scatter"].nunique() == 1
    posterior = fitted.posterior.to_pandas().set_index("response_id").loc[[f"r{r}" for r in range(400)]]
    assert np.corrcoef(posterior["mean"], truth)[0, 1] > 0.85


def test_no_annotations_give_nothing() -> None:
    fitted = annotator_model(ANNOTATIONS.empty_table(), "helpfulness")
    assert (len(fitted.posterior), len(fitted.annotators)) == (0, 0)


def test_labels_are_the_rounded_means_of_all_five_attributes() -> None:
    labels = model_labels(
        table([("r0", "a", 4), ("r0", "b", 4), ("r1", "a", None), ("r2", "a", 1), ("r2", "b", 0)])
    ).to_pylist()
    for row in labels:
        for attribute in ATTRIBUTES:
            mean = row[f"{attribute}_mean"]
            assert row[attribute] == (None if mean is None else min(4, max(0, math.floor(mean + 0.5))))
    assert labels[0]["helpfulness"] > labels[2]["helpfulness"]
    assert labels[1]["helpfulness"] is None
