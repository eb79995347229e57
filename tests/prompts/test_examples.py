import json
from collections import Counter

import pytest

from measurements.filters import EXAMPLES, held_out, on_examples
from pipeline.texts.personal_data import KINDS


@pytest.fixture(scope="module")
def examples() -> list[dict[str, object]]:
    return [json.loads(line) for line in EXAMPLES.read_text(encoding="utf-8").splitlines()]


def test_the_labelled_examples_are_many_different_and_in_two_halves(examples: list[dict[str, object]]) -> None:
    assert len({e["text"] for e in examples}) == len(examples) >= 500
    assert {k for e in examples for k in e["personal_data"]} == set(KINDS)
    assert 0.45 < sum(held_out(str(e["text"])) for e in examples) / len(examples) < 0.55
    assert Counter(e["language"] for e in examples)["en"] > 400


def test_the_rules_do_on_them_what_was_measured(examples: list[dict[str, object]]) -> None:
    least = {
        "not English": (0.9, 0.95),
        "code": (0.95, 0.75),
        "identity": (0.85, 0.6),
        "unsafe": (0.95, 0.75),
        "personal data": (0.95, 0.95),
    }
    found, _ = on_examples(examples)
    assert {
        name: (found[name]["precision"] >= p, found[name]["recall"] >= r) for name, (p, r) in least.items()
    } == dict.fromkeys(least, (True, True))
