"""A typo in any section is told the keys that this section has, whichever variants there are."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.settings import Profile, Section
from tests.settings.sections import Step, kind_of, sections, variants, with_key
from tests.settings.test_profile import refusal

KINDS = {
    "simulated", "files", "helpsteer2", "models", "sharegpt", "hub", "builtin", "collected", "file", "helpsteer", "oasst", "hh_rlhf",
    "next_user_turn", "reward_model",
}  # fmt: skip
"""Of desks, sources, benchmarks, training data and scorers."""


def named(case: object) -> str | None:
    if isinstance(case, tuple):
        return ".".join(s["kind"] if isinstance(s, dict) else str(s) for s in case) or "profile"
    return None


@pytest.mark.parametrize(("way", "section"), sections(), ids=named)
def test_a_typo_is_told_the_keys_of_its_section(tmp_path: Path, way: tuple[Step, ...], section: type[Section]) -> None:
    text = "extends: tiny\n" + yaml.safe_dump(with_key(way, "a_typo"), sort_keys=False)
    place = ".".join([str(step) for step in way if not isinstance(step, dict)] + ["a_typo"])
    (line,) = [n for n, content in enumerate(text.splitlines(), 1) if "a_typo" in content]
    allowed = ", ".join(section.model_fields)
    assert (
        f"{tmp_path / 'mine.yaml'}:{line}: {place}: unknown key; allowed here: {allowed}"
        in refusal(tmp_path, text).splitlines()
    )


def test_every_variant_is_among_those_sections() -> None:
    assert {kind_of(section) for section in variants()} >= KINDS


@pytest.mark.parametrize("section", variants())
def test_a_variant_is_named_in_the_file(section: type[Section]) -> None:
    """A kind with a default would be left out of digests, and two variants could have the same."""
    assert section.model_fields["kind"].is_required()


def test_a_name_that_is_none_is_refused_at_its_place(tmp_path: Path) -> None:
    said = refusal(tmp_path, "extends: tiny\nprompts:\n  sources:\n    Share GPT: {kind: sharegpt, licence: x}\n")
    assert said.startswith(f"{tmp_path / 'mine.yaml'}:4: prompts.sources.Share GPT: String should match pattern")


def test_unions_are_told_apart_by_kind_or_have_null_alone() -> None:
    """What reads the way to a refused value knows no other union."""

    def unions(node: Any) -> Iterator[Any]:
        if isinstance(node, dict):
            yield from (node[name] for name in ("anyOf", "oneOf") if name in node and "discriminator" not in node)
            node = list(node.values())
        if isinstance(node, list):
            for child in node:
                yield from unions(child)

    found = list(unions(Profile.model_json_schema()))
    assert found
    assert all(len(members) == 2 and members[1] == {"type": "null"} for members in found)
