"""The overlap of prompts, against plain Python."""

import unicodedata

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pipeline.settings import Decontamination
from pipeline.texts import decontamination
from pipeline.texts.decontamination import fingerprints, overlaps
from pipeline.texts.words import keys_of, prompt_texts, words_of

LONG = "Write a short letter to the owner of a bakery, and ask for the recipe of her plum cake."


def plain_words(text: str) -> list[str]:
    spaced = "".join(
        " " if unicodedata.category(c)[0] in "PS" else c for c in unicodedata.normalize("NFKC", text).lower()
    )
    return spaced.split()


def plain_share(training: str, benchmark: str, n: int) -> float:
    mine, theirs = plain_words(training), plain_words(benchmark)
    if len(theirs) < n:
        return float((mine or training.strip()) == (theirs or benchmark.strip()) and bool(benchmark.strip()))
    grams = {tuple(mine[k : k + n]) for k in range(len(mine) - n + 1)}
    covered = {k + j for k in range(len(theirs) - n + 1) for j in range(n) if tuple(theirs[k : k + n]) in grams}
    return len(covered) / len(theirs)


def found(
    training: list[str], benchmarks: dict[str, list[str]], n: int = 8, threshold: float = 0.5
) -> dict[tuple[int, str], float]:
    given_ = {name: pa.array(texts, pa.string()) for name, texts in benchmarks.items()}
    table = overlaps(pa.array(training, pa.string()), given_, Decontamination(ngram=n, threshold=threshold))
    return {(r["prompt"], r["benchmark"]): r["overlap"] for r in table.to_pylist()}


TEXTS = st.lists(st.sampled_from(["a", "b", "C", "c", "d,", "-", "é", ".", "b\n"]), max_size=14).map(" ".join)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(TEXTS, max_size=6),
    st.dictionaries(st.sampled_from(["one", "two"]), st.lists(TEXTS, max_size=6)),
    st.integers(2, 4),
    st.sampled_from([0.0, 0.5, 0.8]),
    st.integers(1, 5),
)
def test_overlaps_are_those_of_plain_python(
    training: list[str], benchmarks: dict[str, list[str]], n: int, threshold: float, part: int
) -> None:
    wanted = {}
    for place, mine in enumerate(training):
        for name, theirs in benchmarks.items():
            share = max((plain_share(mine, text, n) for text in theirs), default=0.0)
            if share > threshold:
                wanted[place, name] = pytest.approx(share)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decontamination, "PART", part)
        patch.setattr(decontamination, "MOST", part)
        assert found(training, benchmarks, n, threshold) == wanted


@settings(max_examples=200, deadline=None)
@given(st.lists(TEXTS, max_size=6), st.lists(TEXTS, max_size=6), st.integers(2, 4), st.integers(1, 5))
def test_fingerprints_find_what_texts_do(training: list[str], benchmark: list[str], n: int, part: int) -> None:
    texts, given_ = pa.array(training, pa.string()), {"one": pa.array(benchmark, pa.string())}
    rule = Decontamination(ngram=n, threshold=0.5)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decontamination, "PART", part)
        hashed = fingerprints(texts, n)
        assert hashed.schema.equals(decontamination.FINGERPRINTS)
        # their own size of n-grams holds, whatever the rule's is
        assert overlaps(hashed, given_, Decontamination(ngram=7)).equals(overlaps(texts, given_, rule))


@settings(max_examples=200, deadline=None)
@given(
    st.text(
        st.characters(max_codepoint=0x2FFF, exclude_categories=["Cs", "Cn", "Cc", "Cf"], exclude_characters="İ"),
        max_size=20,
    )
)
@example("one\u1680two")  # a space outside of ASCII that NFKC keeps
def test_words_are_divided_by_white_space_punctuation_and_symbols(text: str) -> None:
    assert words_of(pa.array([text])).to_pylist() == [plain_words(text)]


def test_a_prompt_around_a_benchmarks_and_one_in_other_dress_are_found() -> None:
    around = f"Please help me. {LONG} I need it today, and it should not have more than a hundred words."
    dressed = LONG.upper().replace(" ", "\n").replace(",", " --")
    other = "Write a short letter to the owner of a garage, and ask what new brakes for my car would cost."
    assert found([around, dressed, other], {"smoke": [LONG]}) == {(0, "smoke"): 1.0, (1, "smoke"): 1.0}


def test_half_of_a_benchmark_prompt_is_not_more_than_half() -> None:
    words = [f"w{k}" for k in range(20)]
    half, more = " ".join(words[:10]), " ".join(words[:11])
    assert found([half, more], {"smoke": [" ".join(words)]}) == {(1, "smoke"): 0.55}


def test_a_short_benchmark_prompt_matches_an_equal_one_alone() -> None:
    assert found(
        ["What is C?", "what is c", "What is C? Tell me.", "", "?", "!"], {"smoke": ["What is c?", "", "?"]}
    ) == {
        (0, "smoke"): 1.0,
        (1, "smoke"): 1.0,
        (4, "smoke"): 1.0,
    }


def test_each_benchmark_that_has_a_prompt_is_named_with_its_largest_overlap() -> None:
    again = LONG.replace("plum cake", "apple pie")
    assert found([LONG], {"one": [again, LONG], "two": [again], "three": ["Nothing of the kind."]}) == {
        (0, "one"): 1.0,
        (0, "two"): pytest.approx(17 / 19),
    }


def test_nothing_overlaps_with_no_benchmark_and_no_prompt() -> None:
    assert found([LONG], {}) == found([], {"one": [LONG]}) == found([LONG], {"one": []}) == {}


def test_the_text_of_a_conversation_is_its_users() -> None:
    turns = [[("user", "One?"), ("assistant", "Two."), ("user", "Three?")], [], [("system", "Be brief.")]]
    lists = pa.array([[{"role": r, "content": c} for r, c in turn] for turn in turns])
    assert prompt_texts(lists).to_pylist() == ["One?\nThree?", "", ""]
    assert prompt_texts(pa.chunked_array([lists.slice(1), lists.slice(0, 1)])).to_pylist() == ["", "", "One?\nThree?"]
    assert keys_of(pa.array(["One?\nThree?", " ?! "])).to_pylist() == ["one three", "?!"]


def test_planted_benchmark_prompts_among_many_others_are_found() -> None:
    draw = np.random.default_rng(0)
    words = [f"word{n}" for n in (300 * draw.random(2000) ** 3).astype(int)]  # some are frequent, as in a language

    def texts(count: int) -> list[str]:
        return [" ".join(draw.choice(words, draw.integers(3, 60))) for _ in range(count)]

    pairs, others = texts(300), texts(600)
    drawn = draw.choice(len(pairs), 40, replace=False)
    planted = [f"{others[k]}\n\n{pairs[k]}" if k % 2 else pairs[k].upper() for k in drawn]
    table = found(others + planted, {"part": pairs})
    assert {p for p, _ in table if p >= len(others)} >= {
        len(others) + k for k, at in enumerate(drawn) if not at % 2 or len(plain_words(pairs[at])) >= 8
    }
    assert sum(p < len(others) for p, _ in table) < 0.02 * len(others)
