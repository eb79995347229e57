"""Workers and their specs."""

import ast
import importlib
from pathlib import Path

import pytest
from pydantic import ValidationError
from upath import UPath

import pipeline
from pipeline.prompts.worker import TopicsSpec
from pipeline.settings import Topics
from pipeline.worker import Progress, Spec

PLACE = Path(pipeline.__file__).parent


def workers() -> list[str]:
    """Modules of the pipeline that run as a worker."""
    found = []
    for path in PLACE.rglob("*.py"):
        calls = [n.func for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Call)]
        if any(isinstance(called, ast.Name) and called.id == "run_worker" for called in calls):
            found.append(".".join(path.relative_to(PLACE.parent).with_suffix("").parts))
    return sorted(found)


def specs(kind: type[Spec] = Spec) -> dict[str, type[Spec]]:
    """The pipeline's specs by their worker."""
    below = [
        one for sub in kind.__subclasses__() for one in ({sub.worker: sub} if hasattr(sub, "worker") else {}).items()
    ]
    below += [one for sub in kind.__subclasses__() for one in specs(sub).items()]
    return {worker: one for worker, one in below if worker.startswith("pipeline.")}


TOPICS = {"input": "a", "work": "b", "topics": {}, "seed": 1, "out": "c"}


def test_every_worker_has_a_spec_of_its_own_that_says_what_its_fields_are() -> None:
    for module in ("pipeline.definitions", *workers()):
        importlib.import_module(module)
    assert sorted(specs()) == workers()
    for spec in specs().values():
        assert spec.__doc__
        assert (spec.model_config["extra"], spec.model_config["frozen"]) == ("forbid", True)


def test_a_spec_refuses_what_it_does_not_know_and_says_all_that_is_wrong() -> None:
    wrong = {**TOPICS, "seed": "one", "colour": "red", "topics": {"count": 0}}
    with pytest.raises(ValueError, match=r"pipeline\.prompts\.worker can't use its TopicsSpec: ") as raised:
        TopicsSpec.read(wrong)
    for said in (
        "topics.count: Input should be greater than",
        "seed: Input should be a valid integer",
        "colour: Extra",
    ):
        assert said in str(raised.value)


def test_a_spec_reads_what_it_was_sent_as_it_was_and_does_not_change() -> None:
    spec = TopicsSpec(
        input=UPath("memory://here/pool.parquet"), work=UPath("/w"), topics=Topics(count=3), seed=1, out=UPath("/o")
    )
    sent = spec.model_dump(mode="json")
    assert sent["input"] == "memory://here/pool.parquet"
    assert TopicsSpec.read(sent) == spec
    with pytest.raises(ValidationError):
        spec.seed = 2


def test_the_time_ahead_is_told_by_how_long_things_are(monkeypatch: pytest.MonkeyPatch) -> None:
    now, said = iter([0.0, 9.0, 20.0, 30.0]), list[str]()
    monkeypatch.setattr("pipeline.worker.time.monotonic", lambda: next(now))
    progress = Progress(said.append, "things", 4, lengths=[2, 90, 8, 8])
    progress.update(1)  # the longest is done, after 9 seconds
    progress.update(3, note="fast")
    progress.update(4)
    assert said == ["things: 1/4, 2 s left", "things: 3/4, fast, 0 s left", "things: 4/4"]
