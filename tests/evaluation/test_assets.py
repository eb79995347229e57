"""From the data set to the leaderboard through Dagster, with a small Llama for the base model."""

import json
from pathlib import Path

import dagster as dg
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import torch
from transformers import AutoModelForSequenceClassification

from assets import evaluation, reward_model
from pipeline.settings import Checkpoint, Profile, load_profile
from pipeline.store import DATA, Store, write_table
from resources.compute import LocalCompute
from resources.storage import Storage
from resources.tracking import TensorBoard
from tests.doubles import ComputeDouble
from tests.helpers import metadata
from tests.reward_model.small import save_small_model
from tests.reward_model.test_training import RECIPE, data

pytestmark = pytest.mark.engine


KEYS = ["training_data", "reward_model", "attribute_weights", "benchmark_scores"]
PREFERENCES = RECIPE.model_copy(update={"objective": "scaled_bt", "labels": "mean"})


class Chain:
    """The stages' assets on a small data set, in a store and an instance of their own, run once."""

    def __init__(self, folder: Path) -> None:
        torch.manual_seed(0)
        save_small_model(folder / "base")
        self.uri = str(folder / "store")
        self.store = Store(self.uri)
        self.instance = dg.DagsterInstance.ephemeral()
        table = data(60)
        prompts = table["prompt_id"].to_pylist()
        split = pa.array(["validation" if int(p[1:]) >= 45 else "train" for p in prompts])
        staged = self.store.staging("helpsteer_dataset")
        write_table(table.set_column(table.schema.get_field_index("split"), "split", split), staged / DATA)
        self.store.publish("helpsteer_dataset", None, staged)
        checkpoint = Checkpoint(folder=str(folder / "base"), licence="none")
        self.profile = load_profile("tiny").model_copy(
            update={"checkpoints": {"small": checkpoint}, "recipes": {"first": RECIPE, "second": PREFERENCES}}
        )
        self.compute: LocalCompute = LocalCompute()
        self.result = self.run([*KEYS, "exported_model"], "first")
        self.compute = ComputeDouble()  # the workers have been seen to start
        self.board = self.run(["leaderboard"])

    def run(
        self, keys: list[str], recipe: str | None = None, profile: Profile | None = None
    ) -> dg.ExecuteInProcessResult:
        wanted = profile or self.profile
        return dg.materialize(
            [*reward_model.build(wanted), *evaluation.build(wanted)],
            selection=keys,
            partition_key=recipe,
            instance=self.instance,
            resources={
                "storage": Storage(uri=self.uri),
                "compute": self.compute,
                "tracking": TensorBoard(folder=f"{self.uri}/.tracking"),
            },
            raise_on_error=False,
        )


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Chain:
    return Chain(tmp_path_factory.mktemp("chain"))


def test_the_chain_publishes_and_shows_what_a_person_looks_for(chain: Chain) -> None:
    assert chain.result.success
    assert chain.board.success
    model = metadata(chain.result, "reward_model")
    assert {
        "ratings: loss",
        "ratings: development",
        "ratings: learning rate",
        "speed: tokens per second",
        "speed: share of peak speed",
        "tokens per second",
        "conversations that lost the middle of their texts",
    } <= set(model)
    assert {
        "figures on development responses",
        "responses with the highest and the lowest prediction",
        "rated by",
    } <= set(model)
    assert list(Path(model["TensorBoard"].value).glob("events.out.tfevents.*"))
    scores = metadata(chain.result, "benchmark_scores")
    assert {"accuracy", "length bias", "contamination", "calibration", "comparison with the run before"} <= set(scores)
    assert {"ties left out", "unusable records by reason", "tokens per second", "device", "provenance"} <= set(scores)
    board = {"models on smoke", "chart of smoke", "models on held_out", "published models on RewardBench"}
    assert board <= set(metadata(chain.board, "leaderboard"))
    failed = [
        f"{e.asset_key.to_user_string()}: {e.check_name}"
        for result in (chain.result, chain.board)
        for e in result.get_asset_check_evaluations()
        if not e.passed and e.severity == dg.AssetCheckSeverity.ERROR
    ]
    assert failed == []


def test_every_response_of_every_benchmark_is_scored(chain: Chain) -> None:
    scores = chain.store.read("benchmark_scores", "first")
    ties = metadata(chain.result, "benchmark_scores")["ties left out"].value
    counts = {c["values"]: c["counts"] for c in pc.value_counts(scores["benchmark"]).to_pylist()}
    assert counts == {"smoke": 2 * 48, "held_out": 2 * (15 - ties)}


def test_a_score_is_traceable_to_model_data_and_code(chain: Chain) -> None:
    manifest = chain.store.manifest("benchmark_scores", "first")
    assert manifest is not None
    made = manifest.info["provenance"]
    weights = chain.store.read("attribute_weights", "first").to_pylist()
    assert made["weights"] == {row["attribute"]: row["weight"] for row in weights}
    assert made["precision"] == "float32"
    assert len(made["model_version"]) == 16
    assert {name: part["items"] for name, part in made["benchmarks"].items()}["smoke"] == 48
    assert made["code"]


def test_worse_scores_warn_and_by_profile_keep_what_was_published(chain: Chain) -> None:
    # weights turned round turn every pair's order round: of the two, one is worse than the other
    fitted = chain.store.read("attribute_weights", "first")
    turned = fitted.set_column(1, "weight", pc.negate(fitted["weight"]))
    before = overall(chain)
    better, worse = (fitted, turned) if max(before.values()) > 0.5 else (turned, fitted)
    strict = chain.profile.evaluation.model_copy(update={"gate": True, "most_lost": 0.0})
    publish(chain.store, better)
    again = chain.run(["benchmark_scores"], "first")
    assert again.success
    assert metadata(again, "benchmark_scores")["conversations scored in this run"].value == 0, (
        "every conversation was scored before"
    )
    kept = chain.store.manifest("benchmark_scores", "first")
    publish(chain.store, worse)
    gated = chain.run(["benchmark_scores"], "first", chain.profile.model_copy(update={"evaluation": strict}))
    assert not gated.success
    failed = {e.check_name for e in gated.get_asset_check_evaluations() if not e.passed}
    assert "no_regression" in failed
    assert chain.store.manifest("benchmark_scores", "first") == kept
    loose = strict.model_copy(update={"gate": False})
    warned = chain.run(["benchmark_scores"], "first", chain.profile.model_copy(update={"evaluation": loose}))
    assert warned.success
    (check,) = [e for e in warned.get_asset_check_evaluations() if e.check_name == "no_regression"]
    assert (check.passed, check.severity) == (False, dg.AssetCheckSeverity.WARN)
    manifest = chain.store.manifest("benchmark_scores", "first")
    assert manifest is not None
    assert any(row["regression"] and row["paired"] for row in manifest.info["history"])
    publish(chain.store, fitted)
    assert chain.run(["benchmark_scores"], "first").success
    assert overall(chain) == before


def overall(chain: Chain) -> dict[str, float]:
    rows = chain.store.read("benchmark_scores", "first", "summary.parquet").to_pylist()
    return {row["benchmark"]: row["accuracy"] for row in rows if row["level"] == "overall"}


def publish(store: Store, weights: pa.Table) -> None:
    staged = store.staging("attribute_weights", "first")
    write_table(weights, staged / DATA)
    store.publish("attribute_weights", "first", staged)


def test_what_training_went_on_from_is_gone_once_the_model_is_published(chain: Chain) -> None:
    assert not (Path(chain.uri) / ".work" / "reward_model" / "first").exists()


def test_the_leaderboard_has_the_recipes_that_are_done(chain: Chain) -> None:
    table = chain.store.read("leaderboard").to_pandas()
    assert set(table.loc[table["origin"] == "ours", "model"]) == {"first"}
    assert table.loc[table["origin"] == "published", "model"].nunique() == 19
    page = chain.store.path("leaderboard", None, "report.html").read_text()
    assert "first" in page
    assert "simulated annotators" in page
    assert len(json.loads(chain.store.path("leaderboard", None, "summary.json").read_text())["models"]) == 1


def test_the_same_data_and_profile_give_the_same_model_byte_by_byte(chain: Chain) -> None:
    before = chain.store.manifest("reward_model", "first")
    assert chain.run(["reward_model"], "first").success
    after = chain.store.manifest("reward_model", "first")
    assert before is not None
    assert after is not None
    assert after.version == before.version


def test_a_model_of_preferences_goes_through_the_same_chain(chain: Chain) -> None:
    result = chain.run([*KEYS, "exported_model"], "second")
    assert result.success
    weights = chain.store.read("attribute_weights", "second").to_pylist()
    assert [(row["attribute"], row["weight"]) for row in weights] == [("reward", 1.0)]
    scores = chain.store.read("benchmark_scores", "second")
    assert scores["helpfulness"].null_count == len(scores)
    assert scores["goodness"].to_pylist() == scores["reward"].to_pylist()
    assert len(chain.store.read("benchmark_scores", "second", "calibration.parquet")) == 0, "a reward is no rating"


def test_the_exported_model_has_one_output_and_a_card_with_its_scores(chain: Chain) -> None:
    folder = chain.store.path("exported_model", "first")
    card = (folder / "README.md").read_text()
    assert "simulated annotators" in card
    weights = chain.store.read("attribute_weights", "first").to_pylist()
    assert all(f"| {row['attribute']} | {row['weight']:.4f} |" in card for row in weights)
    assert "| smoke | 48 |" in card
    model = AutoModelForSequenceClassification.from_pretrained(str(folder))
    assert model.config.id2label == {0: "reward"}
