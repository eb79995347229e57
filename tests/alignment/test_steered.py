"""What is asked of a policy that is tuned to levels, and what is measured of it."""

import numpy as np
import pyarrow as pa
import pytest

from pipeline.alignment.samples import measured, prompts_of, requests_of, samples_of, steered
from pipeline.alignment.schema import TUNED_ON
from pipeline.alignment.shown import steered as shown_of
from pipeline.settings import Samples
from pipeline.shown import Rows
from pipeline.vocabulary import Attribute

LEVELS: dict[Attribute, int] = {"helpfulness": 4, "verbosity": 2}
WANTED = Samples(prompts=3, responses=2)


def tuned_on() -> pa.Table:
    rows = [
        {
            "split": "held_out" if n < 4 else "train",
            "prompt_id": f"p{n}",
            "response_id": f"r{n}",
            "messages": [{"role": "user", "content": f"question {n}"}],
            "response": "an answer",
            "best": True,
            **({"origin": "data"} if "origin" in TUNED_ON.names else {}),
        }
        for n in range(6)
    ]
    return pa.Table.from_pylist(rows, schema=TUNED_ON)


def test_the_same_held_out_prompts_are_asked_at_every_level_with_the_same_draws() -> None:
    made = steered(tuned_on(), "steerlm", WANTED, 5, LEVELS, ("verbosity", "coherence"))
    assert made.asked.to_pylist() == [
        {"attribute": "verbosity", "asked": level} for level in range(5) for _ in range(3)
    ]
    assert len(made.prompts) == len(made.requests) == 15
    ids = made.prompts["prompt_id"].to_pylist()
    assert ids == ids[:3] * 5
    assert len(set(ids)) == 3
    assert set(ids) <= {f"p{n}" for n in range(4)}
    for level in range(5):
        part = made.requests.slice(3 * level, 3)
        assert part["seed"].to_pylist() == made.requests["seed"][:3].to_pylist()
        assert all(
            f"verbosity:{level}" in m[0]["content"] and "helpfulness:4" in m[0]["content"]
            for m in part["messages"].to_pylist()
        )
    once = prompts_of(tuned_on(), "held_out", WANTED, 5).take(pa.array([0, 2, 4]))
    assert made.requests.slice(6, 3).equals(requests_of(once, "steerlm", WANTED, 5, LEVELS))
    assert not len(steered(tuned_on(), "sft", WANTED, 5, {}, ("verbosity",)).requests)


def test_what_is_measured_stands_beside_what_was_asked_and_what_is_not_scored_counts_for_nothing() -> None:
    made = steered(tuned_on(), "steerlm", WANTED, 5, LEVELS, ("verbosity", "helpfulness"))
    texts = [f"{'long ' * n}text" for n in range(30)]
    answers = pa.table({"text": texts, "finish_reason": ["stop"] * 30, "output_tokens": [n + 1 for n in range(30)]})
    table, refused = samples_of(made.prompts, answers)
    assert refused == 0
    verbosity = np.arange(30.0)
    verbosity[1] = np.nan
    scores = pa.table({"verbosity": verbosity, "helpfulness": np.arange(30.0) + 100})
    found = measured(made.asked, table, scores)
    assert found["measured"].to_pylist()[:1] == [0.0]
    assert found["measured"].to_pylist()[15:] == [float(n) + 100 for n in range(15, 30)]
    assert found["characters"].to_pylist() == [len(text) for text in texts]
    shown = shown_of(found)["measured by asked (95 % intervals over prompts)"]
    assert isinstance(shown, Rows)
    rows = shown.table.to_pylist()
    assert [(row["attribute"], row["asked"]) for row in rows] == [
        (a, n) for a in ("verbosity", "helpfulness") for n in range(5)
    ]
    assert rows[0]["mean"] == pytest.approx((0 + 2) / 2)
    assert rows[1]["mean"] == pytest.approx(4)
    assert rows[9]["mean"] == pytest.approx(128)
