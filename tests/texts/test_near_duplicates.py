import random

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.texts import near_duplicates
from pipeline.texts.near_duplicates import NearDuplicates, jaccard, near_to, shingles

WORDS = "city river book garden doctor music winter bread planet history bridge lamp violin market island".split()


def text(draw: random.Random, words: int = 60) -> str:
    return " ".join(f"{draw.choice(WORDS)}{draw.randrange(40)}" for _ in range(words))


def edited(draw: random.Random, source: str, share: float) -> str:
    return " ".join(draw.choice(WORDS) if draw.random() < share else word for word in source.split())


def plain(source: str) -> set[tuple[str, ...]]:
    """The definition, in sets of tuples."""
    words = source.split()
    return {tuple(words[n : n + 3]) for n in range(len(words) - 2)} or ({tuple(words)} if words else set())


@settings(deadline=None)
@given(st.lists(st.text("abc ", max_size=25), min_size=2, max_size=6))
def test_similarity_is_that_of_the_sets_of_word_3_grams(texts: list[str]) -> None:
    sets = shingles(pa.array(texts))
    for mine, one in zip(sets, map(plain, texts), strict=True):
        assert len(mine) == len(one)
        for theirs, other in zip(sets, map(plain, texts), strict=True):
            assert jaccard(mine, theirs) == len(one & other) / max(len(one | other), 1)


def test_case_punctuation_and_unicode_form_make_no_difference() -> None:
    texts = ["Où est le café, s'il vous plaît?", "OÙ EST le café… s il vous plai\u0302t"]
    assert near_to(pa.array(texts[1:]), pa.array(texts[:1]), 1.0).tolist() == [True]


def test_of_texts_that_are_alike_the_first_stays_and_what_was_dropped_drops_nothing() -> None:
    base = text(random.Random(1), 12).split()
    chain = [" ".join(base[n : n + 9]) for n in (0, 1, 2, 3)]  # neighbours share 6 of 8 3-grams, next ones 5 of 9
    assert NearDuplicates(0.6).repeats(pa.array(chain)).tolist() == [False, True, False, True]


def test_texts_in_one_call_or_several_are_judged_alike() -> None:
    draw = random.Random(5)
    first = [text(draw) for _ in range(40)]
    texts = pa.array([*first, *(edited(draw, t, 0.03) for t in first), *(text(draw) for _ in range(20))])
    whole, parts = NearDuplicates(0.6), NearDuplicates(0.6)
    once = whole.repeats(texts)
    assert once.tolist() == np.concatenate([parts.repeats(texts.slice(n, 9)) for n in range(0, 100, 9)]).tolist()
    assert not once[:40].any()
    assert not once[80:].any()


def test_planted_copies_are_found_and_others_are_not() -> None:
    draw = random.Random(2)
    first = [text(draw) for _ in range(200)]
    found = [
        near_to(pa.array([edited(draw, t, share) for t in first]), pa.array(first), 0.6).mean()
        for share in (0, 0.01, 0.05)
    ]
    assert found[0] == 1
    assert found[1] == 1
    assert found[2] > 0.85
    assert not near_to(pa.array([text(draw) for _ in range(200)]), pa.array(first), 0.6).any()


def test_what_is_asked_about_is_not_added() -> None:
    index = NearDuplicates(0.6)
    index.repeats(pa.array(["one two three four"]))
    assert not index.near(pa.array(["five six seven eight"])).any()
    assert not index.near(pa.array(["five six seven eight"])).any()


def test_hashes_are_the_same_on_every_machine() -> None:
    (grams,) = shingles(pa.array(["the moon is a harsh mistress"]))
    # Made by this code on x86-64 Linux, CPython 3.11.
    assert grams.tolist() == [477298155, 1260191366, 2535622550, 3487085976]
    assert shingles(pa.array([], pa.string())) == []


def test_words_without_letters_are_no_words() -> None:
    assert near_to(pa.array(["!!! ---"]), pa.array(["..."]), 0.5).tolist() == [False]
    assert near_duplicates.WORDS == 3
