"""What of a model's text is thought and what response, and what is no answer."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.engines.content import ENDINGS, MARKS, PHRASES, THOUGHT, begun, parted, settled
from pipeline.engines.requests import FAILED, REFUSED, Answer

words = st.text(alphabet="abc \n.{}", max_size=30)
pieces = st.lists(
    st.one_of(words, st.sampled_from([mark for pair in MARKS + PHRASES for mark in pair])),
    max_size=8,
)
HARMONY = "<|channel|>{}<|message|>{}"


@given(st.sampled_from(MARKS + PHRASES), words, words)
def test_a_thought_between_marks_is_no_part_of_the_response(
    marks: tuple[str, str], thought: str, response: str
) -> None:
    opening, closing = marks
    assert parted(f"\n{opening}{thought}{closing}\n\n{response}") == (thought.strip(), response.strip())
    assert parted(f"{opening}{thought}") == (thought.strip(), None), "cut off"


@given(st.sampled_from(MARKS), words, words)
def test_a_thought_that_the_prompt_has_begun_has_its_end_alone(
    marks: tuple[str, str], thought: str, response: str
) -> None:
    assert parted(f"{thought}{marks[1]}{response}") == (thought.strip(), response.strip())
    assert begun(f"<|im_start|>assistant\n{marks[0]}\n") == marks[0]
    assert begun(f"<|im_start|>assistant\n{marks[0]}\n\n{marks[1]}\n\n") == "", "a template that turns thinking off"


@given(words)
def test_a_text_without_marks_is_a_response(text: str) -> None:
    assert parted(text) == ("", text.strip())


@given(pieces)
def test_no_response_begins_with_a_thought(texts: list[str]) -> None:
    thought, response = parted("".join(texts))
    assert response is None or not re.match(THOUGHT, response)
    assert parted(response or "") == ("", response or "") or any(closing in (response or "") for _, closing in MARKS)
    assert len(thought) + len(response or "") <= len("".join(texts)) + 2 * len(texts), "nothing is made up"


@pytest.mark.parametrize(
    ("text", "thought", "response"),
    [
        ("<think>\nThe user is probably wrong.\n</think>\n\n4", "The user is probably wrong.", "4"),
        ("<think>\n\n</think>\n\n4", "", "4"),
        ("<think>a</think><think>b</think>4", "a\n\nb", "4"),
        ("A model writes <think> before it thinks.", "", "A model writes <think> before it thinks."),
        ("Between `<think>` and `</think>` it thinks.", "", "Between `<think>` and `</think>` it thinks."),
        ("<think>a</think><response>4</response>", "a", "4"),  # Granite 3.3
        ("<think>a</think>\n<answer>\n4 and no end", "a", "4 and no end"),  # Hunyuan, cut off
        ("<answer>4</answer>", "", "<answer>4</answer>"),
        ("analysisThe user asks.assistantfinal4", "The user asks.", "4"),  # gpt-oss without its special tokens
        ("analysis of the text: good", "", "analysis of the text: good"),
        (
            HARMONY.format("analysis", "a") + "<|end|><|start|>assistant" + HARMONY.format("final", "4<|return|>"),
            "a",
            "4",
        ),
        (
            "<|start|>assistant" + HARMONY.format("commentary to=f <|constrain|>json", "{}<|call|>"),
            "{}",
            None,
        ),
        (HARMONY.format("analysis", "and then"), "and then", None),
        ("<|channel|>ana", "", None),
        ("", "", ""),
    ],
)
def test_texts_of_the_families(text: str, thought: str, response: str | None) -> None:
    assert parted(text) == (thought, response)


def answer(text: str, reason: str = "stop", reasoning: str | None = None) -> Answer:
    return Answer("k", text, reason, None, 5, 9, reasoning)


def test_the_thought_is_kept_beside_the_response() -> None:
    kept = settled(answer("<think>b</think>4", "eos_token", "a"))
    assert (kept.text, kept.reasoning, kept.finish_reason, kept.detail) == ("4", "a\n\nb", "stop", None)
    assert settled(answer("4")).reasoning is None


@pytest.mark.parametrize(
    ("given", "why"),
    [
        (answer("<think>\nThe user is prob", "length"), "a thought alone, which ended with finish reason 'length' after 9 tokens"),
        (answer("", "length", "hm"), "a thought alone"),
        (answer("<think>hm</think>\n"), "a thought alone"),
        (answer("<|channel|>ana", "length"), "a thought alone"),
        (answer(" \n"), "it has no text, and ended with finish reason 'stop'"),
        (answer("half an answ", "content_filter"), "finish reason 'content_filter'"),
        (answer("", "tool_calls"), "finish reason 'tool_calls'"),
        (answer("text", "abort"), "finish reason 'abort'"),
    ],
)  # fmt: skip
def test_what_has_no_response_is_no_answer_and_says_why(given: Answer, why: str) -> None:
    refused = settled(given)
    assert (refused.finish_reason, refused.text) == (REFUSED, "")
    assert why in str(refused.detail)


def test_a_request_that_was_refused_or_failed_stays_so() -> None:
    for reason in (REFUSED, FAILED):
        lost = Answer("k", "", reason, "status 400", 0, 0)
        assert settled(lost) is lost


@pytest.mark.parametrize("reason", [*ENDINGS, "STOP", "MAX_TOKENS", "COMPLETE"])
def test_every_servers_way_to_say_how_an_answer_ended_is_one_of_two(reason: str) -> None:
    cut = reason.lower() in ("length", "max_tokens", "model_length")
    assert settled(answer("4", reason)).finish_reason == ("length" if cut else "stop")
