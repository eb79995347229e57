import pyarrow as pa
import pyarrow.compute as pc
import pytest

from pipeline.annotations.consensus import consensus_labels, most_agreeing
from pipeline.annotations.schema import AGREED
from pipeline.dataset.build import helpsteer_rows, in_order, rows_of
from pipeline.dataset.expectations import preference_views
from pipeline.dataset.preference import TOO_FEW, TOO_WIDE, preference_rows
from pipeline.forms.helpsteer import PREFERENCE
from pipeline.forms.rows import ANNOTATIONS
from pipeline.vocabulary import ATTRIBUTES
from tests.dataset.collected import annotations, response_pairs

PAIRS = response_pairs("d", 40)


def data(ratings: pa.Table) -> pa.Table:
    """The data set's table for all of the pairs."""
    labels = consensus_labels(most_agreeing(ratings))
    agreed = labels.append_column("rated_by", pa.array(["people"] * len(labels))).cast(AGREED)
    return in_order(rows_of(agreed, PAIRS, "d", 0.3)[0])


def rated(first: list[int | None], second: list[int | None]) -> pa.Table:
    """Helpfulness of one prompt's two responses by annotators a, b, c, ...; None where one didn't rate it."""
    rows = [
        {"prompt_id": "d-001", "response_id": f"d-001-{position}", "annotator_id": chr(97 + n), "round": 1 + n // 3}
        | dict.fromkeys(ATTRIBUTES, 2)
        | {"helpfulness": value}
        for position, values in ((1, first), (2, second))
        for n, value in enumerate(values)
        if value is not None
    ]
    return pa.Table.from_pylist(rows, schema=ANNOTATIONS)


def preference(first: list[int | None], second: list[int | None]) -> dict[str, object]:
    ratings = rated(first, second)
    (row,) = preference_rows(data(ratings), ratings)[0].to_pylist()
    return row


def kept(row: dict[str, object], name: str = "three_most_similar_preferences") -> list[int]:
    return [p["strength"] for p in row[name]]  # type: ignore[attr-defined]


def test_a_negative_strength_says_that_response_1_is_better() -> None:
    row = preference([4, 4, 3], [2, 3, 2])
    assert kept(row) == [-2, -1, -1]
    assert row["preference_strength"] == -1
    assert (row["response_1"], row["response_2"]) == tuple(PAIRS["response"].to_pylist()[2:4])


def test_a_strength_is_at_most_three() -> None:
    assert preference([0, 0, 0], [4, 4, 4])["preference_strength"] == 3
    assert kept(preference([4, 4, 4], [0, 0, 0]), "all_preferences_unprocessed") == [-3, -3, -3]


def test_the_three_that_agree_most_are_kept_and_all_are_listed() -> None:
    row = preference([0, 1, 4, 1, 0], [4, 2, 0, 2, 1])
    assert kept(row, "all_preferences_unprocessed") == [3, 1, -3, 1, 1]
    assert kept(row) == [1, 1, 1]


@pytest.mark.parametrize(("second", "strength"), [([3, 2], 1), ([2, 1], -1)])
def test_the_mean_is_rounded_half_away_from_zero(second: list[int | None], strength: int) -> None:
    assert preference([2, 2], second)["preference_strength"] == strength


def test_a_zero_stays_in_the_file() -> None:
    assert preference([2, 2, 2], [2, 2, 2])["preference_strength"] == 0


def test_only_annotators_who_rated_both_responses_count() -> None:
    assert kept(preference([1, 1, 4, None], [2, 2, None, 4]), "all_preferences_unprocessed") == [1, 1]


def test_a_pair_with_one_annotator_is_dropped_with_the_reason() -> None:
    ratings = rated([1, None, 2], [2, 2, None])
    rows, dropped = preference_rows(data(ratings), ratings)
    assert len(rows) == 0
    assert dropped.to_pylist() == [{"prompt_id": "d-001", "reason": TOO_FEW}]


def test_a_pair_whose_kept_strengths_differ_by_more_than_two_is_dropped_with_the_reason() -> None:
    ratings = rated([2, 2, 2], [0, 2, 4])
    rows, dropped = preference_rows(data(ratings), ratings)
    assert len(rows) == 0
    assert dropped.to_pylist() == [{"prompt_id": "d-001", "reason": TOO_WIDE}]
    assert len(preference_rows(data(rated([2, 2], [1, 3])), rated([2, 2], [1, 3]))[0]) == 1


def test_rows_have_the_published_schema_and_their_prompts_split() -> None:
    ratings = annotations(PAIRS, by_people=True)
    table = data(ratings)
    rows, dropped = preference_rows(table, ratings)
    files = {split: helpsteer_rows(table, split) for split in ("train", "validation")} | {"preference": rows}
    assert rows.schema.equals(PREFERENCE)
    assert len(rows) + len(dropped) == len(table) // 2
    assert set(rows["split"].to_pylist()) == {"train", "val"}
    views = preference_views(rows, files)
    assert set(views["preferences"]["right_split"].to_pylist()) == {True}
    assert views["totals"]["preference_share"].to_pylist() == [len(rows) / (len(table) // 2)]
    assert set(pc.unique(rows["preference_statement"]).to_pylist()) == {""}
    train = pa.array(["train"] * len(rows))
    moved = preference_views(rows.set_column(0, "split", train), files)["preferences"]["right_split"].to_pylist()
    assert moved == [s == "train" for s in rows["split"].to_pylist()]
