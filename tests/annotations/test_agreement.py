import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sklearn.metrics import cohen_kappa_score

from pipeline.annotations.agreement import (
    agreement,
    annotator_agreement,
    bootstrap,
    krippendorff_alpha,
    pair_counts,
    permuted,
    weighted_kappa,
    weighted_kappa_from_counts,
)
from pipeline.annotations.consensus import MISSING, Ratings, agreed_tasks, most_agreeing, votes
from pipeline.forms.rows import ANNOTATIONS
from pipeline.vocabulary import ATTRIBUTES

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


def rows_of(table: pa.Table, attribute: str) -> np.ndarray:
    """Ratings as NaN-padded rows, a response each."""
    levels = Ratings.of(table).levels[:, :, ATTRIBUTES.index(attribute)].astype(float)
    return np.where(levels == MISSING, np.nan, levels)


def kappas(table: pa.Table) -> tuple[float, ...]:
    return tuple(weighted_kappa(rows_of(table, a)) for a in ATTRIBUTES)


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
    ratings = Ratings.of(pa.Table.from_pylist(rows, schema=ANNOTATIONS))
    table = agreement(
        ratings.levels,
        ratings.prompt,
        3,
        "per_attribute",
        2,
        1,
        "simulated annotators",
        permutations=3,
        draws=50,
    ).to_pandas()
    by = table.set_index(["stage", "attribute"])
    assert abs(by.loc[("all", "coherence"), "kappa"]) < 0.05
    kept = by.loc[("outliers removed", "coherence")]
    for figure in ("kappa", "alpha_interval", "alpha_ordinal"):
        assert kept[figure] > 0.5, "pure noise looks like agreement after selection"
        assert kept[figure] == pytest.approx(kept[f"{figure}_null"], abs=0.06)
    assert (table["rated_by"] == "simulated annotators").all()


def test_every_figure_of_the_370_real_units_lies_within_its_interval_and_above_its_null(units: pa.Table) -> None:
    ratings = Ratings.of(units)
    table = agreement(
        ratings.levels, ratings.prompt, 3, "per_attribute", 2, 1, "people", permutations=5, draws=300, responses=1
    )
    rows = {(r["stage"], r["attribute"]): r for r in table.to_pylist()}
    for row in rows.values():
        for figure in ("kappa", "alpha_interval", "alpha_ordinal"):
            assert row[f"{figure}_low"] < row[figure] < row[f"{figure}_high"]
            assert row[figure] > row[f"{figure}_null"]
    last = rows["tasks removed", "helpfulness"]
    # the README's words: selection alone takes ratings that don't agree at all to 0.6
    assert last["kappa"] == pytest.approx(0.806, abs=2e-3)
    assert last["kappa_null"] == pytest.approx(0.6, abs=0.03)
    assert (rows["all", "helpfulness"]["responses"], last["responses"]) == (370, 349)


def agreeing(units: int) -> pa.Table:
    """Units of 2 to 6 ratings, each near the unit's own level."""
    draw = np.random.default_rng(4)
    own, counts = draw.integers(0, 5, units), draw.integers(2, 7, units)
    ratings = [np.clip(o + draw.integers(-1, 2, (len(ATTRIBUTES), n)), 0, 4) for o, n in zip(own, counts, strict=True)]
    return annotations_of([dict(zip(ATTRIBUTES, rows.tolist(), strict=True)) for rows in ratings])


def test_the_null_breaks_who_rated_what_and_keeps_the_histogram() -> None:
    levels = Ratings.of(agreeing(370)).levels
    shuffled = permuted(levels, np.random.default_rng(3))
    assert ((shuffled == MISSING) == (levels == MISSING)).all()
    for n in range(len(ATTRIBUTES)):
        assert (votes(shuffled[:, :, n]).sum(axis=0) == votes(levels[:, :, n]).sum(axis=0)).all()
        rows = np.where(shuffled[:, :, n] == MISSING, np.nan, shuffled[:, :, n])
        assert abs(weighted_kappa(rows)) < 0.1


def test_agreed_tasks_need_both_responses() -> None:
    assert len(agreed_tasks(agreeing(40))) == 0, "here a prompt has one response"


# ---------------------------------------------------------------------------------------------------------------------------- alpha


rating_lists = st.lists(st.lists(st.integers(0, 4), min_size=1, max_size=6), min_size=1, max_size=20)


def ordinal_distance(rows: list[list[int]]) -> Callable[[int, int], float]:
    """Krippendorff 2011: the ratings between two levels, half of those at the ends."""
    counts = Counter(x for row in rows if len(row) > 1 for x in row)

    def distance(a: int, b: int) -> float:
        low, high = min(a, b), max(a, b)
        return (sum(counts[k] for k in range(low, high + 1)) - (counts[low] + counts[high]) / 2) ** 2

    return distance


@pytest.mark.parametrize("metric", ["interval", "ordinal"])
@settings(max_examples=60, deadline=None)
@given(rows=rating_lists)
def test_alpha_is_crowd_kits(metric: str, rows: list[list[int]]) -> None:
    from crowdkit.metrics.data import alpha_krippendorff

    several = [row for row in rows if len(row) > 1]
    assume(len({x for row in several for x in row}) > 1)
    answers = pd.DataFrame(
        [{"task": n, "worker": i, "label": x} for n, row in enumerate(several) for i, x in enumerate(row)]
    )
    distance = ordinal_distance(rows) if metric == "ordinal" else lambda a, b: float((a - b) ** 2)
    assert krippendorff_alpha(rows, metric) == pytest.approx(alpha_krippendorff(answers, distance), abs=1e-9)


def test_names_of_systems_that_come_back_with_every_dialogue_name_other_responses() -> None:
    """374 dialogues, three systems, five people: kappa as scikit-learn's, alpha as crowd-kit's, of tasks with names of their own."""
    from crowdkit.metrics.data import alpha_krippendorff

    draw = np.random.default_rng(8)
    own = draw.integers(0, 5, (374, 3))
    levels = np.clip(own[:, :, None, None] + draw.integers(-1, 2, (374, 3, 5, len(ATTRIBUTES))), 0, 4)
    rows = [
        {"prompt_id": f"d{d}", "response_id": f"system {s}", "annotator_id": f"u{u}", "simulated": False}
        | dict(zip(ATTRIBUTES, levels[d, s, u].tolist(), strict=True))
        for d, s, u in np.ndindex(374, 3, 5)
    ]
    ratings = Ratings.of(pa.Table.from_pylist(rows, schema=ANNOTATIONS))
    table = agreement(ratings.levels, ratings.prompt, 3, "per_attribute", 2, 1, "people", permutations=1, draws=20)
    found = {r["attribute"]: r for r in table.to_pylist() if r["stage"] == "all"}
    for n, attribute in enumerate(ATTRIBUTES):
        each = levels[:, :, :, n].reshape(-1, 5)
        first, second = expanded(each.tolist())
        assert found[attribute]["kappa"] == pytest.approx(
            cohen_kappa_score(first, second, weights="quadratic"), abs=1e-12
        )
    answers = pd.DataFrame(
        {
            "task": np.repeat(np.arange(374 * 3), 5),
            "worker": np.tile(np.arange(5), 374 * 3),
            "label": levels[..., 0].reshape(-1),
        }
    )
    wanted = alpha_krippendorff(answers, lambda a, b: float((a - b) ** 2))
    assert found["helpfulness"]["alpha_interval"] == pytest.approx(wanted, abs=1e-9)
    assert found["helpfulness"]["responses"] == 374 * 3


# ---------------------------------------------------------------------------------------------------------------------------- doubt


def test_the_interval_is_that_of_drawing_whole_prompts_with_replacement(units: pa.Table) -> None:
    ratings = Ratings.of(units)
    prompt = ratings.prompt // 2  # two responses a prompt
    counts = votes(ratings.levels.swapaxes(1, 2))
    ours = bootstrap(counts, prompt, seed=1, draws=3000)["kappa"][:, 0]
    generator, plain = np.random.default_rng(2), []
    rows = rows_of(units, "helpfulness")
    for _ in range(400):
        drawn = generator.integers(0, 185, 185)
        plain.append(weighted_kappa(np.concatenate([rows[2 * d : 2 * d + 2] for d in drawn])))
    assert ours.mean() == pytest.approx(np.mean(plain), abs=0.01)
    assert ours.std() == pytest.approx(np.std(plain), rel=0.15)


def test_prompts_in_many_chunks_are_each_drawn_once_a_draw() -> None:
    counts = np.zeros((10_000, 1, 5), dtype=np.int64)
    counts[:, 0, 0], counts[:, 0, 4] = 1, 1  # nobody agrees, in any sample
    prompt = np.random.default_rng(1).permutation(10_000) // 2 * 3  # in no order, and with gaps
    drawn = bootstrap(counts, prompt, seed=1, draws=20)
    assert drawn["kappa"] == pytest.approx(np.full((20, 1), -1.0))


# ----------------------------------------------------------------------------------------------------------------------- annotators


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 5), st.integers(0, 3), st.one_of(st.none(), st.integers(0, 4))),
        max_size=30,
        unique_by=lambda r: r[:2],
    )
)
def test_an_annotators_agreement_with_the_rest_is_that_of_a_plain_loop(
    given_: list[tuple[int, int, int | None]],
) -> None:
    rows = [
        {"prompt_id": f"p{r}", "response_id": f"r{r}", "annotator_id": f"a{a}", "simulated": False} | dict.fromkeys(ATTRIBUTES, x)
        for r, a, x in given_
    ]  # fmt: skip
    found = annotator_agreement(pa.Table.from_pylist(rows, schema=ANNOTATIONS), "people", fewest=1).to_pylist()
    by = {r["annotator_id"]: r for r in found if r["attribute"] == "complexity"}
    for annotator in range(4):
        differences, first, second = list[float](), list[int](), list[int]()
        for response, who, own in given_:
            others = [x for r, a, x in given_ if r == response and a != who and x is not None]
            if who == annotator and own is not None and others:
                differences.append(own - float(np.mean(others)))
                first += [own] * len(others)
                second += others
        assert (f"a{annotator}" in by) == bool(differences)
        if differences:
            row = by[f"a{annotator}"]
            assert row["responses"] == len(differences)
            assert row["bias"] == pytest.approx(np.mean(differences))
            assert row["rmse"] == pytest.approx(np.sqrt(np.mean(np.square(differences))))
            if len({*first, *second}) > 1:
                wanted = cohen_kappa_score(first, second, weights="quadratic", labels=range(5))
                assert row["kappa"] == pytest.approx(wanted, abs=1e-9)


def test_ratings_without_annotators_that_come_again_have_no_agreement_with_the_rest(units: pa.Table) -> None:
    assert len(annotator_agreement(units, "people")) == 0
