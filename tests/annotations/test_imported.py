"""What the readers of ratings decided, as a table."""

from collections import Counter

import pyarrow as pa

from pipeline.annotations.imported import Used, decisions
from pipeline.forms.ratings import Habits
from pipeline.forms.rows import ANNOTATIONS


def test_rows_people_and_ratings_of_a_response_are_counted_by_prompt_and_response() -> None:
    used = Used()
    for prompt in ("p", "q"):
        rows = [
            {"prompt_id": prompt, "response_id": "A", "annotator_id": str(n)} for n in range(3 if prompt == "p" else 20)
        ]
        used.note(pa.Table.from_pylist(rows, schema=ANNOTATIONS))
    habits = Habits({"response_id": "Item"}, {"all": {"1": 0, "2": 4}})
    table = decisions(26, Counter({"a draft is no rating": 2, "round is too late": 1}), used, habits)
    assert dict(zip(table["what"].to_pylist(), table["rows"].to_pylist(), strict=True)) == {
        "rows read": 26,
        "ratings used": 23,
        "set aside: a draft is no rating": 2,
        "set aside: round is too late": 1,
        "people": 20,
        "responses": 2,
        "responses with 3 ratings": 1,
        "responses with more than 12 ratings": 1,
        "field response_id is read from Item": 26,
        "scale of all attributes: 1 is 0, 2 is 4": 26,
    }


def test_of_rows_that_are_no_single_ratings_nothing_is_said_of_people() -> None:
    table = decisions(5, Counter({"x": 2}), Used(), Habits())
    assert table["what"].to_pylist() == ["rows read", "rows used", "set aside: x"]
    assert table["rows"].to_pylist() == [5, 3, 2]
