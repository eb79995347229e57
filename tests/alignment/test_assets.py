"""From the data set to policies through Dagster, with a small Llama for the base model. Samples of policies are written by hand: no engine runs."""

from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import torch
from pydantic import ValidationError
from transformers import AutoModelForCausalLM, AutoTokenizer

from assets import alignment, evaluation, reward_model
from pipeline.alignment import samples
from pipeline.alignment.schema import SAMPLES
from pipeline.settings import Alignment, Checkpoint, Samples, load_profile
from pipeline.store import DATA, Store, write_table
from resources.storage import Storage
from resources.tracking import TensorBoard
from tests.doubles import ComputeDouble
from tests.helpers import metadata
from tests.reward_model.small import save_small_model
from tests.reward_model.test_training import RECIPE, data

TUNING = {
    "learning_rate": 1e-3,
    "batch_size": 8,
    "epochs": 1,
    "max_tokens": 64,
    "evaluations": 1,
    "precision": "float32",
}
ONLINE = {name: value for name, value in TUNING.items() if name != "epochs"} | {"steps": 2, "max_new_tokens": 8}
DRAWN = {"prompts": 6, "responses": 3}
METHODS: dict[str, Any] = {
    "sft": {"kind": "sft", "checkpoint": "small", **TUNING},
    "dpo": {"kind": "dpo", "start": "sft", "beta": 0.1, **TUNING},
    "iterative": {"kind": "iterative_dpo", "start": "dpo", "samples": DRAWN, "beta": 0.1, **TUNING},
    "ppo": {"kind": "ppo", "start": "sft", **ONLINE},
    "rloo": {"kind": "rloo", "start": "sft", "responses": 3, **ONLINE},
    "best": {"kind": "best_of_n", "start": "sft", "samples": DRAWN},
    "steered": {"kind": "steerlm", "checkpoint": "small", **TUNING},
    "steered_2": {"kind": "steerlm2", "start": "steered", "unconditional": "sft", "samples": DRAWN, **TUNING},
}


class Chain:
    """The stage's assets on a small data set, in a store and an instance of their own, run once."""

    def __init__(self, folder: Path) -> None:
        torch.manual_seed(0)
        save_small_model(folder / "base")
        self.uri = str(folder / "store")
        self.store, self.instance = Store(self.uri), dg.DagsterInstance.ephemeral()
        table = data(60)
        split = pa.array(["validation" if int(p[1:]) >= 45 else "train" for p in table["prompt_id"].to_pylist()])
        self.publish("helpsteer_dataset", table.set_column(table.schema.get_field_index("split"), "split", split))
        wanted = Alignment.model_validate({"recipe": "first", "held_out_share": 0.3, "methods": METHODS})
        self.profile = load_profile("tiny").model_copy(
            update={
                "checkpoints": {"small": Checkpoint(folder=str(folder / "base"), licence="none")},
                "recipes": {"first": RECIPE},
                "alignment": wanted,
            }
        )
        self.run(["training_data", "reward_model", "attribute_weights"], "first")
        self.result = self.run(
            [
                "alignment_data",
                "scored_data",
                "aligned/sft",
                "aligned/dpo",
                "aligned/steered",
                "aligned/ppo",
                "aligned/rloo",
            ]
        )
        for name in ("iterative", "steered_2"):
            self.publish(f"policy_samples/{name}", self.samples())
        self.second = self.run(
            ["scored_samples/iterative", "scored_samples/steered_2", "aligned/iterative", "aligned/steered_2"]
        )

    def samples(self) -> pa.Table:
        """Three samples to each of some prompts, as a policy could write them."""
        drawn = samples.prompts_of(self.store.read("alignment_data"), "train", Samples(prompts=8, responses=3), 1)
        generator = np.random.default_rng(0)
        words = "good yes no one two three".split()
        texts = [" ".join(generator.choice(words, 8)) for _ in range(len(drawn))]
        answers = {"text": texts, "finish_reason": ["stop"] * len(texts), "output_tokens": [9] * len(texts)}
        return samples.samples_of(drawn, pa.table(answers))[0].cast(SAMPLES)

    def publish(self, key: str, table: pa.Table) -> None:
        staged = self.store.staging(key)
        write_table(table, staged / DATA)
        self.store.publish(key, None, staged)

    def run(self, keys: list[str], recipe: str | None = None) -> dg.ExecuteInProcessResult:
        built = [*reward_model.build(self.profile), *evaluation.build(self.profile), *alignment.build(self.profile)]
        return dg.materialize(
            built,
            selection=[dg.AssetKey(key.split("/")) for key in keys],
            partition_key=recipe,
            instance=self.instance,
            resources={
                "storage": Storage(uri=self.uri),
                "compute": ComputeDouble(),
                "tracking": TensorBoard(folder=f"{self.uri}/.tracking"),
            },
        )


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Chain:
    return Chain(tmp_path_factory.mktemp("chain"))


def test_policies_are_published_with_curve_and_card_and_can_be_loaded(chain: Chain) -> None:
    assert chain.result.success
    assert chain.second.success
    for name, method in METHODS.items():
        if method["kind"] == "best_of_n":
            continue
        folder = Path(str(chain.store.path(f"aligned/{name}")))
        policy, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
        assert tokenizer.convert_tokens_to_ids("<|im_end|>") in policy.generation_config.eos_token_id
        curve = chain.store.read(f"aligned/{name}", name="curve.parquet")
        assert max(curve["step"].to_pylist()) >= 1
        watched = chain.store.read(f"aligned/{name}", name="watched.parquet")
        assert set(watched["step"].to_pylist()) == {0, max(curve["step"].to_pylist())}
        rewarded = name not in ("sft", "dpo")
        assert (watched["standardised"].null_count < len(watched)) == rewarded, (
            "rewards are told where a method is trained with them"
        )
        card = (folder / "README.md").read_text()
        assert f"# {name}: {method['kind']}" in card
        assert "simulated" in card
        assert ("helpfulness:4" in card) == method["kind"].startswith("steerlm")


def test_prompts_of_benchmarks_and_validation_are_in_neither_split_and_the_held_out_ones_are_apart(
    chain: Chain,
) -> None:
    table = chain.store.read("alignment_data")
    prompts = {
        split: set(table.filter(pc.equal(table["split"], split))["prompt_id"].to_pylist())
        for split in ("train", "held_out")
    }
    assert not prompts["train"] & prompts["held_out"]
    assert {int(p[1:]) for p in prompts["train"] | prompts["held_out"]} <= set(range(45))
    best = table.filter(table["best"])
    assert len(pc.unique(best["prompt_id"])) == len(best) == len(pc.unique(table["prompt_id"]))
    kinds = {row["kind"] for row in METHODS.values()}
    assert kinds == {"sft", "dpo", "iterative_dpo", "ppo", "rloo", "best_of_n", "steerlm", "steerlm2"}


def test_rewards_are_standardised_over_the_train_split(chain: Chain) -> None:
    table = chain.store.read("scored_data")
    train = np.array(table.filter(pc.equal(table["split"], "train"))["standardised"])
    assert train.mean() == pytest.approx(0, abs=1e-9)
    assert train.std() == pytest.approx(1)
    info = chain.store.published("scored_data").info
    assert info["sd"] > 0
    assert "mean of goodness" in metadata(chain.result, "scored_data")


def test_a_method_starts_from_one_above_it_and_of_the_right_kind() -> None:
    for changed, why in (
        ({"dpo": {"kind": "dpo", "start": "later", **TUNING}}, "'later' is no method above it"),
        (
            {"sft": METHODS["sft"], "dpo": {"kind": "dpo", "start": "best", **TUNING}},
            "'best' is no method above it of the kinds sft",
        ),
        ({"sft": METHODS["sft"], "s": METHODS["steered_2"] | {"start": "sft"}}, "of the kinds steerlm, steerlm2"),
    ):
        with pytest.raises(ValidationError, match=why):
            Alignment.model_validate({"recipe": "first", "methods": changed})
    with pytest.raises(ValidationError, match="is first, the recipe that is trained against"):
        Alignment.model_validate({"recipe": "first", "second": "first", "methods": {"sft": METHODS["sft"]}})
