"""What docs/extending.md adds, used. Run in a tree that has all of it: `python -m tests.docs.extended WHAT FOLDER`."""

import json
import sys
from pathlib import Path

import dagster as dg
import pyarrow as pa
import pytest

from assets import annotations
from pipeline.automation.jobs import plan, stretches
from pipeline.dataset.schema import DATASET
from pipeline.definitions import STAGES, build_defs
from pipeline.settings import HubBenchmark, Profile, load_profile
from pipeline.store import DATA, Store, write_table
from pipeline.vocabulary import ATTRIBUTES
from resources.storage import Storage


def desk(profile: Profile, folder: Path) -> None:
    """A round of ratings goes through the assets, and says who rated; a setting that the desk doesn't have is refused."""
    from pipeline.annotations.schema import rated_by
    from resources.desks.starting import desk_of
    from tests.dataset.collected import UNANSWERED, response_pairs

    store, pairs = Store(str(folder / "store")), response_pairs("first", 12)
    staged = store.staging("response_pairs", "first")
    write_table(pairs, staged / DATA)
    write_table(UNANSWERED, staged / "left_out.parquet")
    store.publish("response_pairs", "first", staged, len(pairs))
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions("delivery", ["first"])
        resources = {"storage": Storage(uri=store.uri), "desk": desk_of(profile), "compute": None}
        made = dg.materialize(
            annotations.build(profile)[:4], partition_key="first", instance=instance, resources=resources
        )
    assert made.success
    ratings = store.read("annotations", "first")
    assert set(ratings["desk"].to_pylist()) == {"by_length"}
    assert rated_by(ratings) == {"simulated annotators": 1}
    assert profile.rated_by == "simulated annotators"
    words = profile.annotations.desk.model_copy(update={"settings": {"word": 20}})
    with pytest.raises(Exception, match="words"):
        desk_of(profile.model_copy(update={"annotations": profile.annotations.model_copy(update={"desk": words})}))


def rejecting(profile: Profile, folder: Path) -> None:
    """A prompt in capitals is rejected with its reason, in its turn; others are as they were."""
    from pipeline.prompts.filters import FILTERS
    from tests.prompts.test_filters import GOOD, candidate_prompts, pool

    assert [reason for reason, _ in FILTERS][-2:] == ["personal_data", "shouting"]
    planted = pool([GOOD], [GOOD.upper()], ["PLEASE WRITE A PYTHON SCRIPT THAT SORTS NUMBERS."], ["WHAT IS NASA?"])
    kept, rejected = candidate_prompts(planted, load_profile("tiny").prompts.filters, 1)  # type: ignore[union-attr]
    reasons = dict(
        zip((turns[0] for turns in rejected["turns"].to_pylist()), rejected["reason"].to_pylist(), strict=True)
    )
    assert reasons[GOOD.upper()] == "shouting"
    assert GOOD in {turns[0] for turns in kept["turns"].to_pylist()}
    assert reasons.get("WHAT IS NASA?") != "shouting"
    assert reasons["PLEASE WRITE A PYTHON SCRIPT THAT SORTS NUMBERS."] == "code"


def benchmark_form(profile: Profile, folder: Path) -> None:
    """A file of the form is read, bad records are set aside, and scores become accuracies; so it does on a command line."""
    from pipeline.benchmarks.loading import FORMS, Form, load, named

    with pytest.raises(ValueError, match=r"id\n.*required"):
        HubBenchmark.model_validate({"kind": "hub", "form": "one_right", "split": "test"})
    records = [
        {"id": "a", "subject": "Europe", "question": "Of Portugal?", "right": "Lisbon", "wrong": ["Porto", "Faro"]},
        {"id": "b", "subject": "Europe", "question": "Of Norway?", "right": "Oslo", "wrong": ["Bergen"]},
        {"id": "c", "subject": "Africa", "question": "Of Kenya?", "right": "Nairobi", "wrong": ["Mombasa"]},
        {"id": "d", "subject": "Africa", "question": "Of Ghana?", "right": "Accra", "wrong": []},
    ]
    path = folder / "capitals.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    benchmark = profile.benchmarks["capitals"].model_copy(update={"path": str(path)})
    assert named(f"one_right:{path}") == benchmark
    found, form = load("capitals", benchmark, DATASET.empty_table()), FORMS["one_right"]
    assert isinstance(form, Form)
    assert [(r["line"], "wrong" in r["reason"]) for r in found.rejected.to_pylist()] == [(4, True)]
    reached = form.outcomes(found.items, [3.0, 1.0, 2.0, 1.0, 1.0, 5.0, 4.0]).to_pylist()
    assert [row["value"] for row in reached] == [1, 0, 1]
    counts = {"Europe": 2, "Africa": 1}
    sections = form.sections({"Europe": 0.5, "Africa": 1.0}, counts)
    assert (sections, form.overall(sections, counts)) == ({"Europe": 0.5, "Africa": 1.0}, 0.75)


def objective(profile: Profile, folder: Path) -> None:
    """The loss is finite, and steps against its gradient lessen it; a recipe may name it."""
    import torch

    from pipeline.reward_model.objectives import preference_losses

    recipe = profile.recipes["smollm2_hinge"]
    assert recipe.pairs
    assert recipe.outputs == ("reward",)
    rewards = torch.tensor([[0.0, 0.5], [1.0, 0.0], [0.3, 2.0]], requires_grad=True)
    losses = []
    for _ in range(5):
        loss = preference_losses(recipe.objective, *rewards.unbind(1), torch.tensor([1.0, 3.0, 2.0])).sum()  # type: ignore[arg-type]
        losses.append(float(loss))
        rewards = (rewards - 0.1 * torch.autograd.grad(loss, rewards)[0]).detach().requires_grad_()
    assert losses[0] == pytest.approx(1.5 + 2.0 + 3.7)
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < losses[0]


def generator(profile: Profile, folder: Path) -> None:
    """The graph has an asset more."""
    keys = {spec.key.to_user_string() for spec in build_defs(profile).resolve_all_asset_specs()}
    before = {spec.key.to_user_string() for spec in build_defs(load_profile("tiny")).resolve_all_asset_specs()}
    assert keys - before == {"responses/hot"}


def stage(profile: Profile, folder: Path) -> None:
    """The stage has a job of its own, in its place, and no other job has another asset; a partition of it is made and published."""
    location = build_defs(profile)
    specs = list(location.resolve_all_asset_specs())
    found = {s.job: [spec.key.to_user_string() for spec in members] for s, members in stretches(profile, specs)}
    assert list(found) == ["build_pool", "collect_delivery", "train_and_evaluate", "align", "count_levels"]
    assert found["count_levels"] == ["attribute_levels"]
    assert [step for step in plan(profile, specs, ["demo"]) if step[0] == "count_levels"] == [
        ("count_levels", attribute) for attribute in ATTRIBUTES
    ]
    store = Store(str(folder / "store"))
    staged = store.staging("helpsteer_dataset")
    rows = [{"helpfulness": level, "coherence": 4} for level in (0, 3, 3, 4)]
    write_table(pa.Table.from_pylist(rows, schema=DATASET), staged / DATA)
    store.publish("helpsteer_dataset", None, staged, len(rows))
    with dg.DagsterInstance.ephemeral() as instance:
        made = dg.materialize(
            STAGES[-1].build(profile),
            partition_key="helpfulness",
            instance=instance,
            resources={"storage": Storage(uri=store.uri)},
        )
    assert made.success
    assert {check.check_name for check in made.get_asset_check_evaluations()} == {"schema", "some"}
    assert store.read("attribute_levels", "helpfulness")["responses"].to_pylist() == [1, 0, 0, 2, 1]


def records(profile: Profile, folder: Path) -> None:
    """The records say what moved and what is new, and are in order once they are written anew."""
    from tests.orchestration import graph, versions

    known = json.loads(versions.RECORD.read_text())
    said = {line.partition(":")[0] for line in versions.problems(known, versions.now())}
    assert {"candidate_prompts", "benchmark_scores", "reward_model", "initial_annotations"} <= said
    assert "attribute_levels is not on record" in said
    assert versions.main([]) == 1
    assert versions.main(["--same", "said by a test"]) == 0
    assert versions.problems(json.loads(versions.RECORD.read_text()), versions.now()) == []
    assert set(graph.graph()) - set(json.loads(graph.RECORD.read_text())) == {"attribute_levels"}


USES = {
    "A desk": desk,
    "A filter": rejecting,
    "A benchmark form": benchmark_form,
    "A recipe objective": objective,
    "A generator": generator,
    "A stage with its own partition": stage,
    "The records": records,
}

if __name__ == "__main__":
    name, place = sys.argv[1], Path(sys.argv[2])
    own = place / "profile.yaml"
    USES[name](load_profile(own if own.is_file() else "tiny"), place)
