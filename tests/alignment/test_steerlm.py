"""Conditions of SteerLM: levels of predictions, and the text that asks for them, the same as generators are asked with."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from pipeline.alignment.encoding import Example, encode, end_of_turn
from pipeline.alignment.steerlm import asked_of, conditioned, conditioned_each, last_alone, levels_of
from pipeline.models.templates import ASKED, own_template, settled, written
from pipeline.responses.plan import system_of
from pipeline.settings import Generator
from pipeline.settings.alignment import SteerLm
from pipeline.vocabulary import ATTRIBUTES
from tests.models.families import LAYOUTS, tokenizer_of

TARGET = SteerLm(kind="steerlm", checkpoint="a", learning_rate=1e-6, batch_size=8).target
ASKS = [{"role": "user", "content": "one two"}]


@pytest.mark.parametrize(
    ("predicted", "level"),
    [(0.49, 0), (0.5, 1), (1.5, 2), (2.5, 3), (3.5, 4), (3.4999, 3), (-0.5, 0), (-7.0, 0), (4.5, 4), (99.0, 4), (2.0, 2), (-0.0, 0)],
)  # fmt: skip
def test_a_prediction_is_clamped_and_rounded_with_halves_up(predicted: float, level: int) -> None:
    assert levels_of(np.array([[predicted]])).tolist() == [[level]]


@given(arrays.arrays(np.float64, (7, 5), elements=st.floats(-3, 7)))
def test_a_level_is_the_nearest_there_is(predictions: np.ndarray) -> None:
    levels = levels_of(predictions)
    off = np.abs(predictions[..., None] - np.arange(5))
    assert (np.take_along_axis(off, levels[..., None], -1)[..., 0] == off.min(axis=-1)).all()


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_a_prediction_that_is_no_number_is_refused(bad: float) -> None:
    with pytest.raises(ValueError, match="1 of 5 predicted ratings are no finite numbers"):
        levels_of(np.array([[1.0, 2.0, bad, 0.0, 4.0]]))


@pytest.mark.parametrize("own", [None, "Answer in one line."])
def test_the_condition_is_what_a_generator_is_asked_with(own: str | None) -> None:
    generator = Generator(checkpoint="a", share=1, system_prompt=own, attributes=TARGET)
    mine = [{"role": "system", "content": own}, *ASKS] if own else ASKS
    found = conditioned(mine, TARGET)
    assert found == [{"role": "system", "content": system_of(generator)}, *ASKS]
    assert found[0]["content"].endswith("helpfulness:4,correctness:4,coherence:4,complexity:2,verbosity:2")
    assert conditioned(mine, {}) == mine


@pytest.mark.parametrize("family", ["qwen_2_5", "llama_3", "gemma_2"])
def test_every_familys_prompt_has_the_levels(family: str) -> None:
    tokenizer = tokenizer_of(LAYOUTS[family])
    text = written(tokenizer, settled(own_template(tokenizer) or "", ASKED), conditioned(ASKS, TARGET))
    assert text.count("complexity:2,verbosity:2") == 1


def test_a_model_is_asked_for_what_it_predicts() -> None:
    assert list(asked_of(ATTRIBUTES, TARGET, "r").items()) == list(TARGET.items())
    assert asked_of(("helpfulness",), TARGET, "r") == {"helpfulness": 4}
    assert list(asked_of(ATTRIBUTES, {"verbosity": 0, "helpfulness": 3}, "r")) == ["helpfulness", "verbosity"]
    with pytest.raises(ValueError, match="the reward model pairs predicts reward, no attribute of `target`") as error:
        asked_of(("reward",), TARGET, "pairs")
    assert "\n" not in str(error.value)


def test_conversations_have_the_levels_of_their_own_responses() -> None:
    each = [[*ASKS, {"role": "assistant", "content": word}] for word in ("three", "four")]
    found = conditioned_each(each, np.array([[3.6, -1.0], [0.2, 1.5]]), ("helpfulness", "verbosity"))
    assert [m[0]["content"].rpartition(" ")[2] for m in found] == [
        "helpfulness:4,verbosity:0",
        "helpfulness:0,verbosity:2",
    ]
    assert [m[1:] for m in found] == each
    with pytest.raises(ValueError, match="zip"):
        conditioned_each(each, np.zeros((2, 5)), ("helpfulness",))


def test_the_last_response_alone_is_trained() -> None:
    tokenizer = tokenizer_of(LAYOUTS["qwen_2_5"])
    chat = [*ASKS, {"role": "assistant", "content": "three"}, *ASKS, {"role": "assistant", "content": "five six"}]
    example, _ = encode(tokenizer, conditioned(chat, TARGET), end_of_turn(tokenizer))
    alone = last_alone(example)
    assert alone.ids == example.ids
    assert alone.prompt == example.prompt
    assert sum(alone.trained) < sum(example.trained)
    assert alone.trained == [False] * example.prompt + [True] * (len(example.ids) - example.prompt)
    assert last_alone(Example([1, 2], [False, True])).trained == [False, True]
