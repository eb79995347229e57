"""Prompts that a server has cut, told by its own count of tokens."""

from collections.abc import Iterator, Sequence

from hypothesis import given
from hypothesis import strategies as st

from pipeline.engines.cut import ALIKE, HELD, LEAST, uncut
from pipeline.engines.requests import FAILED, REFUSED, Answer, Request
from pipeline.settings import Sampling
from tests.helpers import quiet

Counted = Sequence[tuple[str, int]]
"""Prompts, and the tokens that a server says they had."""


def passed(counted: Counted, said: list[str] | None = None) -> dict[str, str]:
    """The finish reasons of answers to prompts, by their place."""
    requests = [
        Request(f"k{n}", [{"role": "user", "content": text}], Sampling(), 0) for n, (text, _) in enumerate(counted)
    ]
    answers = (Answer(f"k{n}", "text", "stop", None, tokens, 1) for n, (_, tokens) in enumerate(counted))
    found = list(uncut(answers, requests, quiet if said is None else said.append))
    assert len(found) == len(counted)
    return {answer.request_key: answer.finish_reason for answer in found}


def prose(words: int) -> str:
    return "some words of prose " * (words // 4)


def test_prompts_that_were_all_cut_to_one_number_are_refused_with_the_first_ones() -> None:
    said = list[str]()
    counted = [(prose(400), 520), *((prose(n), 2048) for n in (1600, 1700, 1800, 1900)), (prose(800), 1050)]
    found = passed(counted, said)
    assert [found[f"k{n}"] for n in range(6)] == ["stop", *[REFUSED] * 4, "stop"]
    assert len(said) == 1
    assert "the server has cut the prompt" in said[0]
    assert "2048 tokens" in said[0]


def test_a_prompt_with_more_words_than_tokens_was_cut() -> None:
    assert passed([(prose(3000), 2048)]) == {"k0": REFUSED}
    assert passed([("日本語の文章です。" * 400, 2048)]) == {"k0": "stop"}, "no words to count"
    assert passed([("x1 " * 3000, 2048)]) == {"k0": "stop"}, "words of one letter share a token with what stands beside"


@given(st.lists(st.integers(LEAST, 4000), min_size=1, max_size=40, unique=True), st.floats(1, 3))
def test_prompts_that_were_read_whole_are_answered(words: list[int], each: float) -> None:
    counted = [(prose(n), int(n * each) + 20) for n in words]
    assert set(passed(counted).values()) == {"stop"}


@given(st.integers(1, 3 * HELD), st.integers(LEAST, 600))
def test_many_candidates_for_one_prompt_have_one_number(candidates: int, tokens: int) -> None:
    assert set(passed([(prose(200), tokens)] * candidates).values()) == {"stop"}


def test_two_of_one_number_may_be_chance_and_so_may_prompts_of_about_one_length() -> None:
    assert set(passed([(prose(n), 2048) for n in (1600, 1900)]).values()) == {"stop"}
    assert set(passed([(prose(n), 2048) for n in (1600, 1640, 1680)]).values()) == {"stop"}
    assert ALIKE == 3


def test_a_server_that_counts_nothing_of_use_is_believed() -> None:
    assert set(passed([(prose(n), 7) for n in (400, 800, 1600)]).values()) == {"stop"}


def test_answers_to_longest_prompts_come_when_a_longer_one_is_answered() -> None:
    requests = [Request(f"k{n}", [{"role": "user", "content": prose(n)}], Sampling(), 0) for n in (400, 800, 40)]
    came = list[str]()

    def answers() -> Iterator[Answer]:
        for request, tokens in zip(requests, (500, 1000, 50), strict=True):
            yield Answer(request.key, "text", "stop", None, tokens, 1)
            came.append(request.key)

    order = [(answer.request_key, len(came)) for answer in uncut(answers(), requests, quiet)]
    assert order == [("k400", 1), ("k40", 2), ("k800", 3)]


def test_what_was_refused_or_failed_passes_as_it_is() -> None:
    request = Request("k", [{"role": "user", "content": prose(3000)}], Sampling(), 0)
    lost = [Answer("k", "", reason, "status 400", 0, 0) for reason in (REFUSED, FAILED)]
    assert list(uncut(iter(lost), [request], quiet)) == lost
