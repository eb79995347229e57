"""Numbers out of whatever a model writes around them."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.engines.objects import whole_numbers_in
from pipeline.vocabulary import ATTRIBUTES

numbers = st.fixed_dictionaries({name: st.integers(0, 999) for name in ATTRIBUTES})
around = st.text(alphabet='abc \n`{}[]":,.5', max_size=20)


@st.composite
def spelt(draw: st.DrawFn, values: dict[str, int]) -> str:
    """An object as some model may write it: its keys in any order and case, its values as any of three."""
    rows: dict[str, Any] = {}
    for name in draw(st.permutations(sorted(values))):
        key = draw(st.sampled_from([name, name.upper(), name.title(), f" {name} "]))
        rows[key] = draw(st.sampled_from([values[name], float(values[name]), str(values[name]), f"{values[name]}.0"]))
    return json.dumps(rows, indent=draw(st.sampled_from([None, 2])))


@given(
    st.data(), numbers, st.sampled_from(["{}", "```json\n{}\n```", "<think>{{maybe 3}}</think>Sure:\n{}", "{} {{x}}."])
)
def test_an_object_is_read_wherever_it_stands_and_however_it_is_spelt(
    data: st.DataObject, values: dict[str, int], frame: str
) -> None:
    assert whole_numbers_in(frame.format(data.draw(spelt(values))), ATTRIBUTES) == values


@given(st.data(), numbers, numbers)
def test_two_objects_count_only_where_they_say_the_same(
    data: st.DataObject, one: dict[str, int], other: dict[str, int]
) -> None:
    text = data.draw(spelt(one)) + " or " + data.draw(spelt(other))
    assert whole_numbers_in(text, ATTRIBUTES) == (one if one == other else None)


@given(st.data(), numbers, st.sampled_from(ATTRIBUTES))
def test_what_is_missing_strange_or_no_whole_number_is_never_made_up(
    data: st.DataObject, values: dict[str, int], name: str
) -> None:
    bad = data.draw(st.sampled_from([4.5, -1, True, None, "four", "4/4", "", [4], {"n": 4}, float("nan"), "9" * 5000]))
    assert whole_numbers_in(json.dumps(values | {name: bad}), ATTRIBUTES) is None
    less = {key: value for key, value in values.items() if key != name}
    assert whole_numbers_in(json.dumps(less), ATTRIBUTES) is None
    assert whole_numbers_in(json.dumps(values | {"safe": 1}), ATTRIBUTES) is None
    assert whole_numbers_in(json.dumps(values)[:-1] + f', "{name}": 1}}', ATTRIBUTES) is None, "a key that stands twice"


@given(st.lists(st.one_of(around, st.sampled_from(['{"score": 3}', '{"score"', "<think>", "</think>"])), max_size=6))
def test_no_text_is_an_error(texts: list[str]) -> None:
    found = whole_numbers_in("".join(texts), ("score",))
    assert found in (None, {"score": 3}) or set(found or ()) == {"score"}


@pytest.mark.parametrize("text", ["", "3", "[3]", "{" * 5000, '{"a":' * 5000, '<think>{"score": 3}', "score: 3"])
def test_a_text_without_an_object_of_the_names_has_none(text: str) -> None:
    assert whole_numbers_in(text, ("score",)) is None


def test_an_object_within_another_is_one() -> None:
    assert whole_numbers_in('{"rating": {"score": 3}}', ("score",)) == {"score": 3}
