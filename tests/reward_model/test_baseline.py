"""The baseline of words and surface: what it reads, and what it makes of it."""

import json
import re
import string
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import sparse

from pipeline.forms.helpsteer import messages_of
from pipeline.models.encoding import encode
from pipeline.reward_model.baseline import (
    STRENGTHS,
    SURFACE,
    SURFACE_SCALE,
    Text,
    features,
    predictions,
    surface,
    text_outputs,
    texts_of,
)
from pipeline.reward_model.sides import Side, side_of
from pipeline.settings import Recipe
from pipeline.vocabulary import ATTRIBUTES
from tests.reward_model.small import small_tokenizer
from tests.reward_model.test_training import tables


def asked(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def of(response: str, question: str = "what") -> dict[str, float]:
    return dict(zip(SURFACE, surface(Text(asked(question), response)), strict=True))


def test_the_figures_of_a_response_are_what_they_are_called() -> None:
    found = of(
        "# Tea\n\n1. Boil **fresh** water. Boil it!\n- Wait 3 minutes?\n```\nx = 1.5\n```",
        "How do I boil water for green tea?",
    )
    words = ["tea", "1", "boil", "fresh", "water", "boil", "it", "wait", "3", "minutes", "x", "1", "5"]
    assert found["sentences"] == pytest.approx(np.log1p(4))  # after `1`, `water`, `it` and `minutes`
    assert found["list_items"] == pytest.approx(np.log1p(2))
    assert found["markup"] == pytest.approx(np.log1p(2))
    assert found["code"] == 1
    assert found["word_length"] == pytest.approx(np.mean([len(word) for word in words]))
    assert found["distinct_words"] == pytest.approx(len(set(words)) / len(words))
    assert found["covered"] == pytest.approx(2 / 3)  # boil and water, not green
    assert found["prompt_characters"] == pytest.approx(np.log1p(34))
    assert of("a b c d a b c e")["repeated"] == pytest.approx(1 / 6)
    assert of("Sorry, no.")["refuses"] == of("I can’t.")["refuses"] == 1
    assert of("I can.")["refuses"] == of("scanned")["refuses"] == 0


@settings(max_examples=60, deadline=None)
@given(st.text(alphabet=string.ascii_letters + string.digits + " .!?\n-*#`é中", max_size=60), st.text(max_size=20))
def test_the_figures_of_any_text_are_finite_and_shares_are_shares(response: str, question: str) -> None:
    found = of(response, question)
    assert all(np.isfinite(value) for value in found.values())
    for share in ("distinct_words", "repeated", "digits", "covered"):
        assert 0 <= found[share] <= 1
    assert found["characters"] == pytest.approx(np.log(1 + len(response)))
    assert found["digits"] * len(response) == pytest.approx(len(re.findall(r"[0-9]", response)))


def test_terms_and_scales_are_those_of_the_known_conversations() -> None:
    known = [Text(asked("one"), "two three"), Text(asked("one"), "three three three four five"), Text(asked("six"), "")]
    x, new = (m.toarray() for m in features(known, [Text(asked("one"), "unseen")]))
    words, figures = x[:, : -len(SURFACE)], x[:, -len(SURFACE) :]
    assert (words**2).sum(axis=1) == pytest.approx(1)
    given = np.array([surface(text) for text in known])
    spread = np.where(given.std(axis=0) > 0, given.std(axis=0), 1)
    np.testing.assert_allclose(figures, SURFACE_SCALE * (given - given.mean(axis=0)) / spread, atol=1e-12)
    assert (new[0, : -len(SURFACE)] != 0).sum() == 1  # `one`: nothing else is known
    alone = SURFACE_SCALE * (np.array(surface(Text(asked("one"), "unseen"))) - given.mean(axis=0)) / spread
    np.testing.assert_allclose(new[0, -len(SURFACE) :], alone, atol=1e-12)


def solved(x: Any, y: Any, strength: float, intercept: bool) -> tuple[Any, float]:
    """Ridge regression by its normal equations."""
    centre, mean = (x.mean(axis=0), y.mean()) if intercept else (np.zeros(x.shape[1]), 0.0)
    moved = x - centre
    weights = np.linalg.solve(moved.T @ moved + strength * np.eye(x.shape[1]), moved.T @ (y - mean))
    return weights, float(mean - centre @ weights)


@settings(max_examples=12, deadline=None)
@example(32000, False, 2)
@given(st.integers(0, 10**6), st.booleans(), st.integers(2, 5))
def test_every_output_has_the_ridge_regression_whose_strength_cross_validation_chose(
    seed: int, intercept: bool, folds_of: int
) -> None:
    generator = np.random.default_rng(seed)
    x, new = generator.normal(size=(30, 4)), generator.normal(size=(7, 4))
    targets = np.outer(x[:, 0], [1.0, 0.0, 2.0]) + generator.normal(size=(30, 3))
    targets[generator.random((30, 3)) < 0.2] = np.nan
    targets[:, 1] = np.nan
    folds = generator.integers(0, folds_of, 30)
    found = predictions(sparse.csr_matrix(x), targets, folds, sparse.csr_matrix(new), intercept)
    assert (found[:, 1] == 0).all(), "an output without labels"
    for n in (0, 2):
        rows = np.isfinite(targets[:, n])
        known, y, its = x[rows], targets[rows, n], folds[rows]
        errors = {}
        for strength in STRENGTHS:
            errors[strength] = 0.0
            for fold in np.unique(its):
                weights, bias = solved(known[its != fold], y[its != fold], strength, intercept)
                errors[strength] += float(((known[its == fold] @ weights + bias - y[its == fold]) ** 2).sum())
        # strengths whose errors differ by less than the solver's tolerance are as good as each other
        best = [strength for strength, error in errors.items() if error <= 1.001 * min(errors.values())]
        models = [solved(known, y, strength, intercept) for strength in best]
        assert any(np.allclose(found[:, n], new @ weights + bias, atol=1e-3) for weights, bias in models)


def test_one_prompt_has_the_largest_strength_as_nothing_can_choose() -> None:
    x, y = np.array([[1.0], [2.0]]), np.array([[1.0], [4.0]])
    found = predictions(sparse.csr_matrix(x), y, np.zeros(2, dtype=np.int64), sparse.csr_matrix(x))
    weights, bias = solved(x, y[:, 0], 10.0, True)
    np.testing.assert_allclose(found[:, 0], x @ weights + bias, atol=1e-6)


def sides() -> tuple[Side, Side]:
    train, development = (side_of(small_tokenizer(), *tables(), split, 64) for split in ("train", "development"))
    return train, development


@pytest.mark.parametrize(
    "recipe", [Recipe(base="b"), Recipe(base="b", objective="scaled_bt")], ids=["ratings", "preferences"]
)
def test_it_learns_what_a_word_says_from_ratings_and_from_preferences(recipe: Recipe) -> None:
    train, development = sides()
    outputs = text_outputs(recipe, train, development)
    assert outputs.shape == (len(development.encoded), len(recipe.outputs))
    better, worse = outputs[development.preferred_at].T[0]
    assert (better > worse).mean() > 0.75  # the more often a response says `good`, the better it is


def test_the_texts_are_those_of_the_tokens() -> None:
    for side in sides():
        texts = texts_of(side)
        assert [encode(small_tokenizer(), text.messages, text.response, 64).ids for text in texts] == side.encoded


def test_on_real_ratings_it_says_more_than_length_does(shared_data: Path) -> None:
    rows = [json.loads(line) for line in (shared_data / "helpsteer2" / "labelled_1000.jsonl").read_text().splitlines()]
    texts = [Text(messages_of(row["prompt"]), row["response"]) for row in rows]
    labels = np.array([[row[a] for a in ATTRIBUTES] for row in rows], dtype=float)
    known, new = features(texts[:600], texts[600:])
    found = predictions(known, labels[:600], np.arange(600) // 2 % 5, new)
    lengths = np.log1p([len(text.response) for text in texts[600:]])
    for n, attribute in enumerate(ATTRIBUTES):
        ours, theirs = (np.corrcoef(guess, labels[600:, n])[0, 1] for guess in (found[:, n], lengths))
        assert ours > theirs + (0.05 if attribute in ("helpfulness", "correctness", "complexity") else -0.05)
