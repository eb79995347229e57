"""Who is one person, and which of a person's ratings counts."""

from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from pipeline.annotations.people import RATED_AGAIN, People, one_vote, stands
from pipeline.forms.ratings import Quarantine
from pipeline.forms.rows import ANNOTATIONS
from pipeline.forms.streams import in_whole_prompts

moments = st.one_of(st.none(), st.integers(0, 3).map(lambda day: datetime(2026, 1, 1 + day, tzinfo=UTC)))
rows = st.lists(
    st.fixed_dictionaries(
        {
            "prompt_id": st.sampled_from("pq"),
            "response_id": st.sampled_from("AB"),
            "annotator_id": st.sampled_from(["ann", "Ann", "ANN ", "bob", "1", "1.0"]),
            "helpfulness": st.integers(0, 4),
            "annotated_at": moments,
        }
    ),
    max_size=14,
)


def table(given: list[dict[str, Any]]) -> pa.Table:
    return pa.Table.from_pylist(given, schema=ANNOTATIONS)


@given(rows)
def test_of_a_persons_ratings_of_a_response_the_last_stands(given_: list[dict[str, Any]]) -> None:
    last: dict[tuple[str, ...], int] = {}
    for n, row in enumerate(given_):
        key = (row["prompt_id"], row["response_id"], row["annotator_id"])
        before = given_[last[key]]["annotated_at"] if key in last else None
        if before is None or (row["annotated_at"] is not None and row["annotated_at"] >= before):
            last[key] = n
    assert [n for n, use in enumerate(stands(table(given_))) if use] == sorted(last.values())


@given(rows)
def test_everybody_has_one_vote_and_nothing_goes_without_a_word(given_: list[dict[str, Any]]) -> None:
    people, aside = People(), Quarantine()
    whole = in_whole_prompts([table(given_).sort_by("prompt_id")])
    found = [row for t in one_vote(whole, people, "f", aside) for row in t.to_pylist()]
    votes = [(r["prompt_id"], r["response_id"], r["annotator_id"].strip().lower().removesuffix(".0")) for r in found]
    assert len(set(votes)) == len(votes)
    said = {(r["prompt_id"], r["response_id"], r["annotator_id"].strip().lower().removesuffix(".0")) for r in given_}
    assert set(votes) == said
    assert len(found) + aside.left_out[RATED_AGAIN] == len(given_)
    assert len(aside.rows) == aside.left_out.total()
    assert people.count == len({person for *_, person in said})
    assert aside.counts.total() == 0, "nothing is at fault"


def test_people_are_called_as_they_were_known_before_or_first_spelled() -> None:
    people = People(["Anna"])
    column = pa.chunked_array([["anna", " ANNA"], ["2.0", "2", "x"]], pa.string())
    assert people.called(column).to_pylist() == ["Anna", "Anna", "2.0", "2.0", "x"]
    assert people.spelled == {"Anna": ["anna", " ANNA"], "2.0": ["2.0", "2"]}
