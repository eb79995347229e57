"""How many conversations after one another are refused alike."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.engines.alike import Alike, reason_of
from pipeline.engines.requests import Answer, Request
from pipeline.settings import Sampling

CONVERSATIONS, CANDIDATES = 6, 2
REQUESTS = [
    Request(f"{place} {n}", [{"role": "user", "content": str(place)}], Sampling(), n)
    for place in range(CONVERSATIONS)
    for n in range(CANDIDATES)
]
events = st.lists(
    st.tuples(
        st.integers(0, CONVERSATIONS - 1),
        st.integers(0, CANDIDATES - 1),
        st.sampled_from(["", "status 402: a", "status 400: b"]),
    )
)


@given(events)
def test_the_count_is_that_of_a_plain_look_at_the_list(events: list[tuple[int, int, str]]) -> None:
    alike, now = Alike(REQUESTS, {}), [""] * CONVERSATIONS
    for place, n, detail in events:
        now[place] = detail
        if not detail:
            alike.answered(Answer(f"{place} {n}", "text", "stop", None, 1, 1))
            continue
        blocks = "".join("x" if said == detail else " " for said in now)
        before, after = blocks[:place].split(" ")[-1], blocks[place:].split(" ")[0]
        assert alike.refused(Answer(f"{place} {n}", "", "refused", detail, 0, 0)) == len(before + after)


def test_who_was_refused_for_it_before_does_not_count() -> None:
    alike = Alike(REQUESTS, {"0 0": reason_of("status 400: 7 tokens")})
    assert alike.refused(Answer("0 0", "", "refused", "status 400: 9 tokens", 0, 0)) == 0
    assert alike.refused(Answer("0 0", "", "refused", "status 402: no credit", 0, 0)) == 1


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("status 400: 17 tokens in req_a7", "status 400: 4096 tokens in req_b9", True),
        ("status 400: too long", "status 413: too long", False),
        ("status 402: no credit", "status 402: no model", False),
        (None, "", True),
    ],
)
def test_a_reason_is_the_same_but_for_words_with_digits(one: str | None, other: str | None, same: bool) -> None:
    assert (reason_of(one) == reason_of(other)) is same
