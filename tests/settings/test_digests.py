"""Digests: what is at its default counts for nothing, what isn't does."""

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import create_model

from pipeline.settings import PROFILES, Contexts, Recipe, Sampling, Section, SimulatedDesk, digest, load_profile, said


def within(value: Any) -> Iterator[Section]:
    """A section and all those in it."""
    if isinstance(value, Section):
        yield value
        value = dict(value)
    for part in value.values() if isinstance(value, dict) else value if isinstance(value, tuple) else ():
        yield from within(part)


SECTIONS = {type(s).__name__: s for path in PROFILES.glob("*.yaml") for s in within(load_profile(path))}


@pytest.mark.parametrize("section", SECTIONS.values(), ids=SECTIONS)
def test_a_new_option_changes_no_digest_until_it_is_used(section: Section) -> None:
    later = create_model(type(section).__name__, __base__=type(section), novel=(int, 7), other=(float | None, None))
    values = section.model_dump()
    assert digest(later(**values)) == digest(later(**values, novel=7, other=None)) == digest(section)
    assert digest(later(**values, novel=8)) != digest(section)
    assert digest(later(**values, other=0.0)) != digest(section)


class LaterSampling(Sampling):
    min_p: float = 0.0


class LaterContexts(Contexts):
    sampling: LaterSampling = LaterSampling()


@given(st.floats(0.1, 1.9), st.sampled_from([0.0, 0.05]))
def test_a_new_option_of_a_section_in_a_section_is_as_one_of_its_own(temperature: float, min_p: float) -> None:
    before = Contexts(checkpoint="m", sampling=Sampling(temperature=temperature))
    later = LaterContexts(checkpoint="m", sampling=LaterSampling(temperature=temperature, min_p=min_p))
    assert (digest([before, 1]) == digest([later, 1])) == (not min_p)


SAMPLINGS = st.builds(
    Sampling,
    temperature=st.sampled_from([0.0, 0.5, 1.0]),
    top_k=st.sampled_from([0, 40]),
    max_tokens=st.sampled_from([64, 512]),
    stop=st.sampled_from([(), ("\n",)]),
)
CONTEXTS = st.builds(
    Contexts, checkpoint=st.sampled_from("ab"), sampling=SAMPLINGS, system_prompt=st.sampled_from([None, "", "x"])
)


@given(CONTEXTS, CONTEXTS)
def test_sections_have_one_digest_where_they_are_equal(one: Contexts, other: Contexts) -> None:
    assert (digest(one) == digest(other)) == (one == other)


@given(CONTEXTS)
def test_what_a_section_says_beyond_its_defaults_makes_it_again(contexts: Contexts) -> None:
    assert Contexts.model_validate(said(contexts)) == contexts


def test_a_default_that_is_stated_is_a_default() -> None:
    recipe = Recipe(base="m")
    assert digest(Recipe.model_validate({**recipe.model_dump(), "epochs": recipe.epochs})) == digest(recipe)
    assert said(recipe) == {"base": "m"}
    assert digest({"a": recipe}) != digest({"a": recipe.model_copy(update={"epochs": 3})})


def test_the_kind_of_a_variant_always_counts() -> None:
    assert said(SimulatedDesk(kind="simulated")) == {"kind": "simulated"}
