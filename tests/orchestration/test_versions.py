"""An asset is stale exactly when its code, or its part of the profile, says other things: what moves must be told."""

import json
from collections.abc import Callable, Iterator
from copy import deepcopy
from typing import Any

import pytest
from pydantic import Field

from assets.published import Published
from pipeline.settings import Recipe, Sampling, load_profile
from tests.orchestration import versions


@pytest.fixture(scope="module")
def current() -> dict[str, Any]:
    return versions.now()


@pytest.fixture
def edited(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, str, str], None]]:
    """Edits a module's text as far as the record reads it."""
    caches = (versions.imports, versions.module_code, versions.function_code)
    read, texts = versions.source, dict[str, str]()

    def edit(module: str, before: str, after: str) -> None:
        text = read(module)
        assert text.count(before) == 1
        texts[module] = text.replace(before, after)
        for cached in caches:
            cached.cache_clear()

    monkeypatch.setattr(versions, "source", lambda module: texts.get(module) or read(module))
    yield edit
    for cached in caches:
        cached.cache_clear()


def moved(record: dict[str, Any]) -> set[str]:
    """Assets of which the record says that something moved and the version did not."""
    return {line.partition(":")[0] for line in versions.problems(record, versions.now()) if "--same" in line}


def test_no_version_stands_still_while_its_code_or_its_defaults_move(current: dict[str, Any]) -> None:
    assert versions.problems(json.loads(versions.RECORD.read_text()), current) == []


def test_a_changed_line_of_a_formula_is_told_for_all_that_it_makes_and_for_nothing_else(
    current: dict[str, Any], edited: Callable[[str, str, str], None]
) -> None:
    edited("pipeline.annotations.consensus", "np.floor(mean + 0.5)", "np.round(mean)")
    told = moved(current)
    assert {"consensus_annotations", "agreed_tasks", "annotation_agreement"} <= told
    assert not told & {"conversations", "prompts", "response_plan", "responses", "attribute_weights", "reward_model"}


def test_a_change_deep_under_a_worker_is_told(current: dict[str, Any], edited: Callable[[str, str, str], None]) -> None:
    edited("pipeline.models.encoding", "def encode(", "def encode_(")
    assert {"reward_model", "benchmark_scores", "exported_model"} <= moved(current)


def test_a_changed_body_is_told(current: dict[str, Any], edited: Callable[[str, str, str], None]) -> None:
    edited("assets.evaluation", "board(models)", "board(models[:1])")
    assert moved(current) == {"leaderboard"}


def test_comments_docstrings_and_layout_move_nothing(
    current: dict[str, Any], edited: Callable[[str, str, str], None]
) -> None:
    edited("pipeline.annotations.tasks", "def in_order(", "# sorted\n\n\ndef in_order(")
    edited("pipeline.annotations.consensus", "The rule that is not this one.", "The other rule.")
    assert moved(current) == set()


def test_a_default_that_becomes_another_is_told_and_a_new_option_is_not(current: dict[str, Any]) -> None:
    section = "pipeline.settings.recipes.Recipe"
    before = deepcopy(current)
    before["defaults"][section]["precision"] = "float64"
    assert {line.partition(":")[0] for line in versions.problems(before, current)} == {"reward_model"}
    before = deepcopy(current)
    del before["defaults"][section]["precision"]
    assert versions.problems(before, current) == []


def test_a_raised_version_needs_a_new_record_and_no_reason(current: dict[str, Any]) -> None:
    before = deepcopy(current)
    before["assets"]["reward_model"] |= {"version": "1", "code": "other"}
    (line,) = versions.problems(before, current)
    assert "write the record anew" in line
    assert "--same" not in line


def test_an_option_that_is_off_by_default_makes_nothing_stale_and_one_that_is_on_does() -> None:
    class MoreSampling(Sampling):
        min_p: float = Field(0.0, ge=0, le=1)

    class MoreRecipe(Recipe):
        packed: bool = False

    def version(*parts: Any) -> str:
        return Published("key", "stage", None, (), "1", modules=(), parts=parts).code_version

    recipe = load_profile("tiny").recipes["smollm2_regression"]
    sampling = Sampling(temperature=0.2)
    said = recipe.model_dump(exclude_unset=True)
    assert version(recipe, sampling) == version(MoreRecipe(**said), MoreSampling(temperature=0.2))
    assert version(recipe) != version(MoreRecipe(**said, packed=True))
    assert version(sampling) != version(MoreSampling(temperature=0.2, min_p=0.1))
