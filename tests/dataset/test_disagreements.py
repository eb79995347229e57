from itertools import groupby

import pyarrow as pa
import pytest

from pipeline.dataset.disagreements import disagreement_rows
from pipeline.dataset.expectations import disagreement_views
from pipeline.forms.helpsteer import DISAGREEMENTS
from pipeline.forms.rows import ANNOTATIONS
from pipeline.vocabulary import ATTRIBUTES
from tests.dataset.collected import annotations, response_pairs

PAIRS = response_pairs("d", 30)
RATINGS = annotations(PAIRS, by_people=True)


def rating(response: str, annotator: str, round_: int = 1, **ratings: int | None) -> dict[str, object]:
    values = dict.fromkeys(ATTRIBUTES, 2) | ratings
    return {"prompt_id": response[:-2], "response_id": response, "annotator_id": annotator, "round": round_, **values}


def test_every_rating_of_every_response_is_there_in_the_annotators_order() -> None:
    rows = disagreement_rows(RATINGS, PAIRS)
    assert rows.select(DISAGREEMENTS.names).schema.equals(DISAGREEMENTS)
    assert rows["response_id"].to_pylist() == PAIRS["response_id"].to_pylist()
    assert rows["response"].to_pylist() == PAIRS["response"].to_pylist()
    ordered = sorted(RATINGS.to_pylist(), key=lambda r: (r["response_id"], r["round"], r["annotator_id"]))
    by_response = {k: list(rs) for k, rs in groupby(ordered, lambda r: r["response_id"])}
    for row in rows.to_pylist():
        for a in ATTRIBUTES:
            assert row[a] == [r[a] for r in by_response[row["response_id"]]]
    assert {len(row["helpfulness"]) for row in rows.to_pylist()} == {3, 5}


def test_annotators_stand_by_round_then_name_and_a_missing_rating_is_left_out() -> None:
    pairs = PAIRS.slice(2, 2)
    given = [
        rating("d-001-1", "a", 2, helpfulness=4),
        rating("d-001-1", "c", helpfulness=0, verbosity=None),
        rating("d-001-1", "b", helpfulness=1, verbosity=3),
        rating("d-001-2", "b"),
    ]
    table = pa.Table.from_pylist(given, schema=ANNOTATIONS)
    first, second = disagreement_rows(table, pairs).to_pylist()
    assert first["helpfulness"] == [1, 0, 4]
    assert first["verbosity"] == [3, 2]
    assert second["helpfulness"] == [2]
    views = disagreement_views(disagreement_rows(table, pairs), table)
    assert views["disagreements"]["complete"].to_pylist() == [True, True]


def test_prompts_that_nobody_rated_have_no_rows() -> None:
    assert len(disagreement_rows(RATINGS.slice(0, 0), PAIRS)) == 0


def test_ratings_of_an_unknown_response_are_an_error() -> None:
    table = pa.Table.from_pylist([rating("d-001-9", n) for n in "abc"], schema=ANNOTATIONS)
    with pytest.raises(ValueError, match="3 annotated responses are not among"):
        disagreement_rows(table, PAIRS)


def test_the_rules_see_an_order_a_count_a_rating_and_a_list_that_are_wrong() -> None:
    rows = disagreement_rows(RATINGS, PAIRS)
    views = disagreement_views(rows, RATINGS)
    assert set(views["disagreement_pairs"]["same_prompt"].to_pylist()) == {True}
    assert set(views["disagreement_prompts"]["rows"].to_pylist()) == {2}
    assert set(views["disagreements"]["complete"].to_pylist()) == {True}
    assert False in disagreement_views(rows.slice(1), RATINGS)["disagreement_pairs"]["same_prompt"].to_pylist()
    assert 1 in disagreement_views(rows.slice(1), RATINGS)["disagreement_prompts"]["rows"].to_pylist()
    place = rows.column_names.index("coherence")
    shorter = [values[:-1] for values in rows["coherence"].to_pylist()]
    wrong = rows.set_column(place, "coherence", pa.array(shorter, pa.list_(pa.int64())))
    assert set(disagreement_views(wrong, RATINGS)["disagreements"]["complete"].to_pylist()) == {False}
    unknown = rows.set_column(place, "coherence", pa.array([[None]] * len(rows), pa.list_(pa.int64())))
    assert -1 in disagreement_views(unknown, RATINGS)["disagreement_ratings"]["rating"].to_pylist()
