"""Conversations that are too long lose the middle of their texts, never their marks, beginnings or ends."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.models.encoding import CUT, _shares, encode, prepare_tokenizer
from tests.models.families import LAYOUTS, tokenizer_of

TOKENIZERS = {name: prepare_tokenizer(tokenizer_of(layout)) for name, layout in LAYOUTS.items()}
WORDS = st.lists(st.sampled_from(["one", "two", "é", "人", "\n", "  ", "🙂", "a.b"]), min_size=1, max_size=120).map(
    " ".join
)


@given(st.sampled_from(sorted(LAYOUTS)), WORDS, WORDS, st.integers(160, 400))
def test_what_is_too_long_fits_and_what_fits_is_left_alone(family: str, asked: str, answered: str, most: int) -> None:
    tokenizer, messages = TOKENIZERS[family], [{"role": "user", "content": asked}]
    whole = encode(tokenizer, messages, answered, 100_000)
    found = encode(tokenizer, messages, answered, most)
    assert len(found.ids) <= most
    assert found.cut == len(whole.ids) - len(found.ids)
    assert tokenizer.convert_ids_to_tokens(found.ids[-1]) == LAYOUTS[family].end
    if len(whole.ids) <= most:
        assert found == whole
    else:
        # every mark of the template is there still, once for each time
        marks = [n for n in whole.ids if n in tokenizer.added_tokens_decoder]
        assert [n for n in found.ids if n in tokenizer.added_tokens_decoder] == marks


@pytest.mark.parametrize("family", LAYOUTS)
def test_question_and_answer_both_keep_their_beginning_and_their_end(family: str) -> None:
    tokenizer = TOKENIZERS[family]
    asked, answered = (f"{w} begins " + "middle " * 300 + f"{w} ends" for w in ("question", "answer"))
    text = tokenizer.decode(encode(tokenizer, [{"role": "user", "content": asked}], answered, 200).ids)
    places = [text.index(f"{w} {what}") for w in ("question", "answer") for what in ("begins", "ends")]
    assert places == sorted(places)
    assert text.count(CUT.strip()) == 2


def test_a_short_question_stays_whole_beside_a_long_answer() -> None:
    tokenizer = TOKENIZERS["qwen_2_5"]
    ids = encode(tokenizer, [{"role": "user", "content": "one two three?"}], "word " * 500, 150).ids
    assert "one two three?" in tokenizer.decode(ids)
    assert len(ids) > 140, "the room is used"


def test_room_that_the_template_alone_takes_is_refused() -> None:
    with pytest.raises(
        ValueError, match=r"max_tokens: 5 tokens are too few for this model: its chat template alone takes \d+"
    ):
        encode(TOKENIZERS["qwen_2_5"], [{"role": "user", "content": "one " * 50}], "two " * 50, 5)


@given(st.lists(st.integers(0, 40), min_size=1, max_size=4), st.integers(0, 100))
def test_shares_are_what_filling_token_by_token_gives(sizes: list[int], room: int) -> None:
    expected = [0] * len(sizes)
    while True:
        growing = [n for n, size in enumerate(sizes) if expected[n] < size]
        if not growing or sum(expected) + len(growing) > room:
            break
        for n in growing:
            expected[n] += 1
    assert _shares(np.array(sizes), room) == expected
