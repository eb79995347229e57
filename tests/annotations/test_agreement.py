import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sklearn.metrics import cohen_kappa_score

from pipeline.annotations.agreement import (
    agreement,
    pair_counts,
    permuted,
    rating_rows,
    weighted_kappa,
    weighted_kappa_from_counts,
)
from pipeline.annotations.consensus import agreed_tasks, most_agreeing
from pipeline.annotations.schema import ANNOTATIONS
from pipeline.settings import ATTRIBUTES

# The data's README: helpfulness, correctness, coherence, complexity, verbosity
KNOWN = {
    "raw": (0.415, 0.431, 0.167, 0.269, 0.420),
    "per_attribute": (0.723, 0.736, 0.411, 0.421, 0.541),
    "per_attribute agreed": (0.806, 0.812, 0.421, 0.410, 0.549),
    "annotator": (0.708, 0.719, 0.365, 0.317, 0.446),
    "annotator agreed": (0.790, 0.795, 0.373, 0.299, 0.450),
}
KNOWN_WHOLE = {"all": (0.4006, 0.4048, 0.1772, 0.2913, 0.4238), "kept": (0.7030, 0.6900, 0.2793, 0.3047, 0.4247)}


def expanded(rows: list[list[int]]) -> tuple[list[int], list[int]]:
    pairs = [(x, y) for row in rows for i, x in enumerate(row) for j, y in enumerate(row) if i != j]
    return [x for x, _ in pairs], [y for _, y in pairs]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.lists(st.integers(0, 4), min_size=1, max_size=6), min_size=1, max_size=20))
def test_kappa_is_scikit_learns_on_the_expanded_pairs(rows: list[list[int]]) -> None:
    first, second = expanded(rows)
    assume(len(set(first)) > 1)
    wanted = cohen_kappa_score(first, second, weights="quadratic", labels=range(5))
    assert weighted_kappa(rows) == pytest.approx(wanted, abs=1e-12)
    padded = np.full((len(rows), 6), np.nan)
    for n, row in enumerate(rows):
        padded[n, : len(row)] = row
    assert weighted_kappa(padded) == pytest.approx(wanted, abs=1e-12)
    assert weighted_kappa_from_counts(pair_counts(rows)) == weighted_kappa(rows)


def test_one_level_alone_has_no_kappa() -> None:
    assert np.isnan(weighted_kappa([[2, 2, 2]]))


@pytest.mark.parametrize("bad", [[[0, 5]], [[-1, 2]], [[0.5, 1]]])
def test_what_is_no_rating_is_refused(bad: list[list[float]]) -> None:
    with pytest.raises(ValueError, match="whole numbers from 0 to 4"):
        weighted_kappa(bad)


def annotations_of(units: list[dict[str, list[int]]]) -> pa.Table:
    rows = [
        {"prompt_id": f"{u}", "response_id": f"{u}", "annotator_id": f"{u}-{i}", "simulated": False}
        | {a: unit[a][i] for a in ATTRIBUTES}
        for u, unit in enumerate(units)
        for i in range(len(unit["helpfulness"]))
    ]
    return pa.Table.from_pylist(rows, schema=ANNOTATIONS)


@pytest.fixture(scope="module")
def units(shared_data: Path) -> pa.Table:
    lines = (shared_data / "helpsteer2" / "ratings_370.jsonl").read_text().splitlines()
    return annotations_of([json.loads(line) for line in lines])


def kappas(table: pa.Table) -> tuple[float, ...]:
    return tuple(weighted_kappa(rating_rows(table, a)) for a in ATTRIBUTES)


def with_three(table: pa.Table) -> pa.Table:
    frame = table.to_pandas()
    sizes = frame.groupby("response_id")["annotator_id"].transform("size")
    return pa.Table.from_pandas(frame.loc[sizes >= 3], schema=ANNOTATIONS, preserve_index=False)


def within(table: pa.Table, spread: int) -> pa.Table:
    """Units are single responses here: the task filter without its second response."""
    spreads = table.to_pandas().groupby("response_id")["helpfulness"].agg(lambda h: h.max() - h.min())
    good = set(spreads[spreads <= spread].index)
    return table.filter(pa.array([r in good for r in table["response_id"].to_pylist()]))


def test_the_known_values_of_370_real_units(units: pa.Table) -> None:
    assert kappas(units) == pytest.approx(KNOWN["raw"], abs=1e-3)
    for rule in ("per_attribute", "annotator"):
        kept = most_agreeing(with_three(units), 3, rule)
        assert kappas(kept) == pytest.approx(KNOWN[rule], abs=1e-3)
        assert kappas(within(kept, 2)) == pytest.approx(KNOWN[f"{rule} agreed"], abs=1e-3)


def test_the_known_values_of_the_whole_file(shared_data: Path) -> None:
    matrices = json.loads((shared_data / "helpsteer2" / "full_pair_matrices.json").read_text())["pair_matrices"]
    for part, wanted in KNOWN_WHOLE.items():
        assert [weighted_kappa_from_counts(matrices[a][part]["pairs"]) for a in ATTRIBUTES] == pytest.approx(
            wanted, abs=1e-3
        )


def test_selection_raises_kappa_by_itself_and_the_null_says_how_much() -> None:
    noise = np.random.default_rng(1).integers(0, 5, size=(600, 5, 5))
    rows = [
        {"prompt_id": f"p{r // 2}", "response_id": f"r{r}", "annotator_id": f"n{i}", "simulated": True}
        | {a: int(noise[r, i, n]) for n, a in enumerate(ATTRIBUTES)}
        for r in range(600)
        for i in range(5)
    ]
    table = agreement(
        pa.Table.from_pylist(rows, schema=ANNOTATIONS), 3, "per_attribute", 2, seed=1, permutations=3
    ).to_pandas()
    by = table.set_index(["stage", "attribute"])
    assert abs(by.loc[("all", "coherence"), "kappa"]) < 0.05
    kept = by.loc[("outliers removed", "coherence")]
    assert kept["kappa"] > 0.5, "pure noise looks like agreement after selection"
    assert kept["kappa"] == pytest.approx(kept["kappa_null"], abs=0.06)


def test_the_null_breaks_who_rated_what_and_keeps_the_histogram(units: pa.Table) -> None:
    shuffled = permuted(units, 3)
    for attribute in ATTRIBUTES:
        assert sorted(shuffled[attribute].to_pylist()) == sorted(units[attribute].to_pylist())
        assert abs(weighted_kappa(rating_rows(shuffled, attribute))) < 0.1


def test_agreed_tasks_need_both_responses(units: pa.Table) -> None:
    assert len(agreed_tasks(units)) == 0, "here a prompt has one response"
