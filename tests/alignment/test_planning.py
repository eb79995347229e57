"""What methods take: by hand, against what transformers builds, and against operations and memory that are counted as tiny models train."""

import json
import math
import re
import subprocess
import sys
import weakref
from collections.abc import Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoConfig, AutoModelForCausalLM, DynamicCache, LlamaConfig, LlamaForCausalLM

from pipeline.alignment import dpo, ppo, rloo, sampler, sft, steerlm2, tuning, watching
from pipeline.alignment.__main__ import main
from pipeline.alignment.encoding import Example
from pipeline.alignment.planning import costs
from pipeline.alignment.planning.costs import Machine, Model
from pipeline.alignment.planning.data import Data, Lengths, Texts
from pipeline.alignment.planning.parts import WORK, Cost, MethodPlan, Work
from pipeline.alignment.planning.plan import data_of, plan, stated
from pipeline.models import batching
from pipeline.models.probe import Probe
from pipeline.reward_model.planning.plan import device_of
from pipeline.reward_model.planning.published import DEVICES
from pipeline.reward_model.planning.shapes import CONFIGS, PlanError, Shape
from pipeline.settings import PROFILES, Alignment, Checkpoint, Lora, Profile, Recipe, load_profile
from tests.helpers import quiet
from tests.models.families import LAYOUTS, tokenizer_of
from tests.reward_model.test_plan import SMALL

TINY = SMALL | {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_attention_heads": 4,
    "vocab_size": 64,
}
"""Large enough for the layers to be most of the operations."""
H100 = Machine(DEVICES["H100"], 0.4)
CPU = Machine(device_of("cpu", bfloat16=0.1, float32=1, memory=10, bandwidth=10), 0.5)
TUNING = {
    "learning_rate": 1e-3,
    "batch_size": 4,
    "micro_batch_tokens": 200,
    "max_tokens": 128,
    "evaluations": 2,
    "precision": "float32",
}
TOKENIZER = tokenizer_of(LAYOUTS["qwen_2_5"])
ASKED_ONE = "Write a response with these attribute values, each from 0 to 4: helpfulness:4"
ASKED = f"{ASKED_ONE},correctness:4,coherence:4,complexity:2,verbosity:2"
SAMPLES = {"prompts": 5, "responses": 3, "sampling": {"max_tokens": 20}}


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A folder with a config.json alone."""
    return config_in(tmp_path / "base", SMALL)


def config_in(folder: Path, config: dict[str, Any]) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def profile_of(folder: Path, held_out_share: float = 0.0, evaluated: Any = None, **methods: Any) -> Profile:
    """A profile whose policies and reward model, of one output, come from one model."""
    recipe = Recipe(base="small", objective="bradley_terry", attributes=("helpfulness",))
    second = Recipe(base="small", objective="regression")
    wanted = Alignment.model_validate(
        {"recipe": "mine", "second": "other" if evaluated else None, "held_out_share": held_out_share, "evaluated": evaluated, "methods": methods}
    )  # fmt: skip
    changed = {
        "checkpoints": {"small": Checkpoint(folder=str(folder), licence="none", max_context=128)},
        "recipes": {"mine": recipe, "other": second},
        "alignment": wanted,
    }
    return load_profile("tiny").model_copy(update=changed)


def sft_of(**changes: Any) -> dict[str, Any]:
    return {"kind": "sft", "checkpoint": "small", **TUNING, **changes}


def data_for(prompt: int = 4, response: int = 2, prompts: int = 100) -> Data:
    return Data.of_counts(prompts, 2 * prompts, prompts, prompt, response, "nowhere")


def of_method(profile: Profile, name: str, data: Data, machine: Machine = H100, **options: Any) -> MethodPlan:
    (found,) = plan(profile, data, machine, name, **options)
    return found


# ------------------------------------------------------------------------------------------------------------------------------ by hand


def test_supervised_fine_tuning_by_hand(base: Path) -> None:
    method = sft_of(batch_size=20, epochs=2, micro_batch_tokens=8192, max_tokens=16, evaluations=5, precision="auto")
    found = of_method(profile_of(base, 0.1, sft=method), "sft", data_for())
    # as in the reward model's plan, 144 weights of linear maps and 8 of norms a layer; embeddings 40, last norm 4, a head of its own 40
    assert found.parameters == found.trained == 40 + 2 * (144 + 8) + 4 + 40
    assert (found.units, found.unit, found.steps) == (90, "conversations", 10)
    assert found.learned == 2 * 90 * 2
    # 6 tokens, 2 of them predicted: layers 2 x 288 x 6, attention 4 x 2 x 4 x 36, head 2 x 10 x 4 x 2
    forward, head = 2 * 288 * 6 + 4 * 2 * 4 * 36 + 160, 160
    assert found.costs["training"].operations == 2 * 90 * (forward + 2 * forward + head), "TRL computes logits twice"
    assert found.costs["training"].tokens == 2 * 90 * 6
    assert found.costs["training"].gpu_hours == pytest.approx(180 * (3 * forward + head) / 989e12 / 0.4 / 3600)
    # before the first of ten steps and every two; four prompts are watched as often
    watched = costs.by_trainer(Model.language(Shape.of(SMALL, "")), Lengths.of_means(4, 2), 4, 96, "bfloat16", H100)
    assert found.costs["evaluations"].operations == pytest.approx(6 * 10 * forward + 6 * watched.operations)
    assert set(found.costs) == {"training", "again", "evaluations"}
    assert not found.costs["again"].operations
    (need,) = found.needs
    assert (need.memory.gpus, need.memory.states, need.memory.whole) == (1, 16 * 388, 2 * 328)
    # a pass has at most the 20 conversations of 16 tokens; a tile of logits, the head in bfloat16, gradients of states and of the head
    assert need.logits == 320 * 10 * 2 + 10 * 4 * 2 + 4 * 4 * 320 + 4 * 10 * 4
    assert need.memory.activations == 320 * 2 * 208 + need.logits


def test_checkpointing_computes_the_layers_again_and_keeps_less(base: Path) -> None:
    profile = profile_of(base, sft=sft_of(), again=sft_of(gradient_checkpointing=True))
    plain, again = (of_method(profile, name, data_for()) for name in ("sft", "again"))
    assert again.costs["training"] == plain.costs["training"]
    # without the last map of each layer, 8 x 4
    assert again.costs["again"].operations == 2 * 100 * (2 * (288 - 2 * 32) * 6 + 4 * 2 * 4 * 36)
    tokens, logits = 200, again.needs[0].logits  # its budget holds one conversation of 128, and is not filled by four
    assert plain.needs[0].memory.activations == tokens * 2 * (24 * 4 + 16 * 8 + 8 * 6 + 4 * 2 + 8) + logits
    assert again.needs[0].memory.activations == tokens * (2 * 4 * 4 + 24 * 4 + 16 * 8 + 8 * 6 + 4 * 2 + 8) + logits


def test_adapters_leave_out_gradients_and_states_of_frozen_weights_the_head_among_them(base: Path) -> None:
    found = of_method(profile_of(base, sft=sft_of(lora={"rank": 1})), "sft", data_for())
    adapters = 2 * 64  # ends of a layer's maps: 8 + 6 + 6 + 8 + 12 + 12 + 12
    assert (found.parameters, found.trained) == (388 + adapters, adapters)
    assert found.needs[0].memory.states == 4 * (388 + adapters) + 12 * adapters
    layers, attention = (4 * 288 + 6 * adapters) * 6, 12 * 2 * 4 * 36
    assert found.costs["training"].operations == 2 * 100 * (layers + attention + (1 + 1 + 1) * 160)


def test_dpo_reads_all_pairs_once_for_the_reference_and_keeps_no_second_model(base: Path) -> None:
    methods = {"sft": sft_of(), "dpo": {"kind": "dpo", "start": "sft", **TUNING, "epochs": 3}}
    profile = profile_of(base, 0.2, **methods)
    found = of_method(profile, "dpo", data_for())
    model = Model.language(Shape.of(SMALL, ""))
    pair = Texts(12, 72, 4)
    assert (found.units, found.steps, found.learned) == (80, 60, 3 * 80 * 4)
    assert found.costs["reading"].operations == 100 * model.forward(pair), "held-out pairs too"
    assert found.costs["training"].operations == 3 * 80 * (model.forward(pair) + model.backward(pair, fused=True))
    assert found.needs[0].memory.states == 16 * 388


def test_ppo_keeps_policy_and_value_model_with_their_optimisers_a_reference_and_the_reward_model(base: Path) -> None:
    online = {"start": "sft", **TUNING, "steps": 6, "batch_size": 8, "max_new_tokens": 20}
    methods = {
        "sft": sft_of(),
        "ppo": {"kind": "ppo", **online, "passes": 2},
        "adapted": {"kind": "ppo", **online, "lora": {"rank": 1}},
        "rloo": {"kind": "rloo", **online, "responses": 3},
    }
    profile = profile_of(base, **methods)
    value = 388 - 40 + 4
    whole, adapted, rloo = (of_method(profile, name, data_for(response=10)) for name in ("ppo", "adapted", "rloo"))
    assert whole.needs[0].memory.states == 16 * (388 + value) + 4 * 388 + 4 * value
    assert adapted.needs[0].memory.states == 4 * (388 + 128) + 12 * 128 + 16 * value + 4 * value
    assert rloo.needs[0].memory.states == 16 * 388 + 4 * 388 + 4 * value
    assert (whole.steps, whole.units, whole.sampled, whole.sampled_most) == (6, 48, 480, 960)
    assert (rloo.sampled, whole.learned, rloo.learned) == (3 * 480, 2 * 480, 3 * 480)
    assert whole.costs["scoring"].tokens == 48 * 14
    assert whole.costs["reading"].tokens == 3 * 48 * 14, "policy, reference, value model"
    assert rloo.costs["reading"].tokens == 2 * 3 * 48 * 14
    assert whole.costs["training"].tokens == 2 * 2 * 48 * 14


def test_samples_of_the_engine_are_scored_and_each_iteration_of_steerlm2_reads_them_four_times(base: Path) -> None:
    again = {**TUNING, "batch_size": 2}
    methods = {
        "sft": sft_of(),
        "steerlm": sft_of(kind="steerlm"),
        "iterated": {"kind": "iterative_dpo", "start": "sft", "samples": SAMPLES, **again, "epochs": 4},
        "best": {"kind": "best_of_n", "start": "sft", "samples": SAMPLES},
        "second": {
            "kind": "steerlm2",
            "start": "steerlm",
            "unconditional": "sft",
            "samples": SAMPLES,
            **again,
            "epochs": 3,
        },
    }
    profile = profile_of(base, 0.25, **methods)
    profile = profile.model_copy(
        update={"alignment": profile.alignment.model_copy(update={"recipe": "other", "second": "mine"})}
    )
    data, asking = data_for(prompt=8, response=10, prompts=8), round(len(ASKED) / 3.94)
    iterated, best, steered, second = (of_method(profile, n, data) for n in ("iterated", "best", "steerlm", "second"))
    assert (iterated.units, iterated.steps) == (5, 3 * 4)
    assert (iterated.sampled, iterated.sampled_most, iterated.learned) == (15 * 10, 15 * 20, 4 * 5 * 2 * 10)
    assert iterated.costs["scoring"].tokens == 15 * 18
    assert (best.unit, best.units, best.sampled, best.steps) == ("held-out prompts", 2, 2 * 3 * 10, 0)
    assert steered.costs["training"].tokens == 2 * 6 * (18 + asking)
    assert (second.units, second.steps, second.learned) == (5, 9, 3 * 15 * 10)
    assert second.costs["scoring"].tokens == 15 * 18, "levels are no part of what the reward model reads"
    assert second.costs["reading"].tokens == 15 * (18 + (18 + asking) + 3 * (18 + asking))
    assert second.costs["training"].tokens == 3 * 15 * (18 + asking)
    assert [need.process for need in second.needs] == ["engine", "reward model", "training"]


def test_what_all_share_and_the_comparison_are_counted_once_each(base: Path) -> None:
    methods = {"sft": sft_of(), "steerlm": sft_of(kind="steerlm", target={"helpfulness": 4})}
    evaluated = {"prompts": 3, "responses": 2, "sampling": {"max_tokens": 5}}
    profile = profile_of(base, 0.5, evaluated, **methods)
    profile = profile.model_copy(
        update={"alignment": profile.alignment.model_copy(update={"recipe": "other", "second": "mine"})}
    )
    data, asking = data_for(prompt=8, response=10, prompts=8), round(len(ASKED_ONE) / 3.94)
    scored, before, sft_plan, steerlm = plan(profile, data, H100)
    assert (scored.name, before.name, steerlm.name) == ("scored_data", "base_small", "steerlm")
    assert scored.total.tokens == 16 * 18
    # sampled, read by two reward models, and by one policy or two: the last token of a response isn't read as it is sampled
    assert before.total.tokens == 6 * (12 + 13 + 13 + 13)
    assert sft_plan.costs["judging"].tokens == 6 * (12 + 4 * 13)
    assert steerlm.costs["judging"].tokens == 6 * (12 + asking + 13 + 13 + (13 + asking) + 13)
    steered = profile.model_copy(
        update={"alignment": profile.alignment.model_copy(update={"steered": ("verbosity", "helpfulness")})}
    )
    more = of_method(steered, "steerlm", data).costs["judging"].tokens - steerlm.costs["judging"].tokens
    assert more == 3 * 5 * (12 + asking + 13), "five levels of the one that it was tuned to"
    assert [need.process for need in before.needs] == [
        "engine",
        "reward model",
        "second reward model",
        "log-probabilities",
    ]
    assert sum((p.total for p in plan(profile, data, H100)), Cost()).operations == sum(
        p.costs[work].operations for p in plan(profile, data, H100) for work in WORK if work in p.costs
    )


# ------------------------------------------------------------------------------------------------------------------------------ models


def meta_model(config: dict[str, Any]) -> Any:
    values = {key: value for key, value in config.items() if key != "model_type"}
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(AutoConfig.for_model(config["model_type"], pad_token_id=0, **values))


@pytest.mark.parametrize("name", CONFIGS)
def test_a_known_model_has_the_parameters_that_transformers_builds(name: str) -> None:
    model, found = Model.language(Shape.of(CONFIGS[name], name)), meta_model(CONFIGS[name])
    assert model.parameters == sum(p.numel() for p in found.parameters())
    assert model.tied == (found.get_output_embeddings().weight is found.get_input_embeddings().weight)


@settings(max_examples=20, deadline=None)
@given(st.sampled_from(["llama", "qwen3", "gemma2", "smollm3"]), st.booleans(), st.integers(1, 4), st.integers(5, 60))
def test_adapters_are_those_that_peft_puts_on(kind: str, tied: bool, rank: int, vocabulary: int) -> None:
    config = TINY | {"model_type": kind, "tie_word_embeddings": tied, "vocab_size": vocabulary, "head_dim": 8}
    model, found = Model.language(Shape.of(config, ""), Lora(rank=rank)), meta_model(config)
    adapted = tuning.with_adapters(found, Lora(rank=rank))
    assert model.parameters == sum(p.numel() for p in adapted.parameters())
    assert model.trained == sum(p.numel() for p in adapted.parameters() if p.requires_grad)


def test_an_encoder_is_no_policy_and_no_value_model(tmp_path: Path) -> None:
    encoder = {**SMALL, "model_type": "modernbert"}
    profile = profile_of(config_in(tmp_path / "encoder", encoder), sft=sft_of())
    with pytest.raises(PlanError, match="checkpoint small: modernbert is an encoder, which writes no responses"):
        plan(profile, data_for(), H100)
    methods = {"sft": sft_of(), "ppo": {"kind": "ppo", "start": "sft", **TUNING, "max_new_tokens": 8}}
    profile = profile_of(config_in(tmp_path / "causal", SMALL), **methods)
    recipes = {"mine": profile.recipes["mine"].model_copy(update={"base": "encoder"})}
    checkpoints = {**profile.checkpoints, "encoder": Checkpoint(folder=str(tmp_path / "encoder"), licence="none")}
    profile = profile.model_copy(update={"recipes": recipes, "checkpoints": checkpoints})
    with pytest.raises(PlanError, match="ppo: the recipe mine has an encoder, from which no value model can start"):
        of_method(profile, "ppo", data_for())


# ----------------------------------------------------------------------------------------------------- against operations that are counted


def policy(seed: int = 0, **changes: Any) -> Any:
    torch.manual_seed(seed)
    values = {key: value for key, value in (TINY | changes).items() if key != "model_type"}
    return LlamaForCausalLM(LlamaConfig(**values, pad_token_id=None, attn_implementation="eager")).eval()


def values_of(seed: int) -> Any:
    torch.manual_seed(seed)
    backbone = policy(seed).model
    backbone.config.id2label = {0: "reward"}
    probe = Probe(backbone, [TINY["num_hidden_layers"]], ["last"], ["reward"])
    return ppo.Values(probe, None, ppo.Standard(0.0, 1.0))


def ids(count: int, tokens: int, seed: int = 0) -> list[list[int]]:
    return np.random.default_rng([seed, count, tokens]).integers(4, TINY["vocab_size"], (count, tokens)).tolist()


PROMPT, RESPONSE, COUNT = 40, 24, 8
EXAMPLES = [Example(row, [n >= PROMPT for n in range(PROMPT + RESPONSE)]) for row in ids(COUNT, PROMPT + RESPONSE)]
"""Conversations of equal length: padding is not counted."""


@pytest.fixture
def tiny(tmp_path: Path) -> Profile:
    """A profile with every method that trains, on a model of which `policy` is one."""
    samples = {"prompts": COUNT, "responses": 2, "sampling": {"max_tokens": RESPONSE}}
    methods = {
        "sft": sft_of(),
        "again": sft_of(gradient_checkpointing=True),
        "adapted": sft_of(lora={"rank": 4}),
        "dpo": {"kind": "dpo", "start": "sft", **TUNING, "epochs": 2},
        "ppo": {
            "kind": "ppo",
            "start": "sft",
            **TUNING,
            "batch_size": COUNT,
            "steps": 1,
            "passes": 2,
            "max_new_tokens": RESPONSE,
        },
        "rloo": {
            "kind": "rloo",
            "start": "sft",
            **TUNING,
            "responses": 2,
            "steps": 1,
            "passes": 2,
            "max_new_tokens": RESPONSE,
        },
        "steerlm": sft_of(kind="steerlm"),
        "steerlm2": {
            "kind": "steerlm2",
            "start": "steerlm",
            "unconditional": "sft",
            "samples": samples,
            **TUNING,
            "max_tokens": 128,
        },
    }
    found = profile_of(config_in(tmp_path / "tiny", TINY), **methods)
    return found.model_copy(update={"alignment": found.alignment.model_copy(update={"recipe": "other"})})


class Looks(watching.Watch):
    """A watch that only counts."""

    def __init__(self) -> None:
        self.count = 0

    def look(self, step: int, policy: Any) -> dict[str, float]:
        self.count += 1
        return {}


def added(into: Sequence[int], left: Sequence[int], right: Sequence[int], **_: Any) -> int:
    """Operations of adding a product of matrices to another in place, which torch's counter doesn't know."""
    del into
    return 2 * left[0] * left[1] * right[1]


def counted(run: Any) -> float:
    """Operations of what is run: products of matrices, which attention is made of too."""
    with FlopCounterMode(display=False, custom_mapping={torch.ops.aten.addmm_: added}) as counter:
        run()
    return float(counter.get_total_flops())


def method_of(profile: Profile, name: str) -> Any:
    return profile.alignment.methods[name] if profile.alignment else None


DATA = data_for(PROMPT, RESPONSE, COUNT)


@pytest.mark.parametrize(("name", "most"), [("sft", 0.01), ("again", 0.01), ("adapted", 0.07)])
def test_operations_of_supervised_fine_tuning_are_those_counted(
    tiny: Profile, name: str, most: float, tmp_path: Path
) -> None:
    """With adapters the first layer's maps have no gradient to pass on: up to a third of a third here, 1 / 240 of Llama 3 70B's."""
    method, found = method_of(tiny, name), of_method(tiny, name, DATA, CPU)
    model = tuning.with_adapters(policy(), method.lora) if method.lora else policy()
    curve: list[dict[str, Any]] = []
    operations = counted(
        lambda: curve.extend(sft.train(model, TOKENIZER, EXAMPLES, [], method, 0, tmp_path / "work", quiet))
    )
    planned = found.costs["training"].operations + found.costs["again"].operations
    assert 0 <= planned / operations - 1 < most
    assert found.steps == max(row["step"] for row in curve)


def test_operations_of_direct_preference_optimisation_are_those_counted(tiny: Profile, tmp_path: Path) -> None:
    method, found = method_of(tiny, "dpo"), of_method(tiny, "dpo", DATA, CPU)
    answers = (ids(COUNT, RESPONSE, seed) for seed in (1, 2))
    pairs = [dpo.Pair(*row) for row in zip(ids(COUNT, PROMPT), *answers, strict=True)]
    operations = counted(lambda: dpo.train(policy(), TOKENIZER, pairs, [], method, 0, tmp_path / "work", quiet))
    planned = found.costs["training"].operations + found.costs["reading"].operations
    assert 0 <= planned / operations - 1 < 0.01


def test_operations_of_a_round_of_ppo_are_those_counted(tiny: Profile) -> None:
    method, found = method_of(tiny, "ppo"), of_method(tiny, "ppo", DATA, CPU)
    learner, samples = ppo.Learner(policy(1), policy(2), values_of(3), method), list[sampler.Sample]()
    assert counted(lambda: samples.extend(learner.samples(ids(COUNT, PROMPT), -1, (0, 1)))) == pytest.approx(
        found.costs["sampling"].operations, rel=1e-6
    )
    assert found.sampled == sum(len(one.response) for one in samples)
    operations = counted(lambda: learner.learn(samples, np.linspace(-1, 1, COUNT)))
    planned = found.costs["training"].operations + found.costs["reading"].operations
    assert planned == pytest.approx(operations, rel=1e-3)


def test_operations_of_a_round_of_rloo_are_those_counted(tiny: Profile, tmp_path: Path) -> None:
    method, found = method_of(tiny, "rloo"), of_method(tiny, "rloo", DATA, CPU)
    asked = [([], prompt) for prompt in ids(COUNT, PROMPT)]
    model, reference = policy(1), policy(2)
    trainer = rloo.trainer_of(
        model, reference, TOKENIZER, asked, -1, lambda *_: [], method, 0, tmp_path / "work", quiet
    )  # no response ends, so that none is shown to the reward model
    operations = counted(lambda: tuning.run(trainer, tmp_path / "work", quiet))
    works: tuple[Work, ...] = ("sampling", "reading", "training")
    planned = sum(found.costs[work].operations for work in works)
    assert 0 <= planned / operations - 1 < 0.01


def test_operations_of_steerlm2_are_those_counted(tiny: Profile, tmp_path: Path) -> None:
    method, found = method_of(tiny, "steerlm2"), of_method(tiny, "steerlm2", DATA, CPU)
    levels = round(len(ASKED) / 3.94)
    asked = [
        Example(row, [n >= len(row) - RESPONSE for n in range(len(row))])
        for row in ids(2 * COUNT, PROMPT + levels + RESPONSE)
    ]
    plain = [Example(one.ids[levels:], one.trained[levels:]) for one in asked]
    model = policy()

    def run() -> None:
        prior = torch.tensor(steerlm2.response_log_probs(policy(1), plain))
        proposal = torch.tensor(steerlm2.response_log_probs(model, asked))
        groups = [
            steerlm2.Group(asked[n : n + 2], torch.zeros(2).double(), prior[n : n + 2], proposal[n : n + 2])
            for n in range(0, 2 * COUNT, 2)
        ]
        curve = steerlm2.train(model, groups, [], method, 0, tmp_path / "work", quiet)
        assert found.steps == max(row["step"] for row in curve)

    planned = found.costs["training"].operations + found.costs["reading"].operations
    assert planned == pytest.approx(counted(run), rel=1e-3)


@pytest.mark.parametrize("evaluations", [1, 2, 3, 4])
def test_held_out_losses_and_looks_are_as_many_as_there_are(base: Path, evaluations: int, tmp_path: Path) -> None:
    """Four steps, of which every fourth, second, second, and every one is the last before an evaluation."""
    method = sft_of(batch_size=2, epochs=1, evaluations=evaluations)
    profile = profile_of(config_in(tmp_path / "tiny", TINY), 0.2, sft=method)
    found, watch = of_method(profile, "sft", data_for(PROMPT, RESPONSE, 10), CPU), Looks()
    curve = sft.train(
        policy(),
        TOKENIZER,
        EXAMPLES,
        EXAMPLES[:2],
        method_of(profile, "sft"),
        0,
        tmp_path / "work",
        quiet,
        None,
        watch,
    )
    model = Model.language(Shape.of(TINY, ""))
    losses = sum(row["part"] == "development" for row in curve)
    texts = Lengths.of_means(PROMPT, RESPONSE)
    once = costs.by_trainer(model, texts, 2, 96, "float32", CPU).operations
    assert found.costs["evaluations"].operations == pytest.approx(
        losses * model.forward(texts.texts(2).everywhere) + watch.count * once
    )


# --------------------------------------------------------------------------------------------------------- against memory that is counted


class Peak(TorchDispatchMode):
    """Counts the bytes of tensors that come to be and go, and how many there were at most; those of a model's weights are there before."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self._live, self._now, self.most = {p.untyped_storage().data_ptr(): 0 for p in model.parameters()}, 0, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(found):
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                if storage.nbytes() and storage.data_ptr() not in self._live:
                    self._live[storage.data_ptr()] = storage.nbytes()
                    weakref.finalize(storage, self._gone, storage.data_ptr())
                    self._now += storage.nbytes()
                    self.most = max(self.most, self._now)
        return found

    def _gone(self, place: int) -> None:
        self._now -= self._live.pop(place, 0)


def a_token(run: Any) -> float:
    """Bytes a unit of the vocabulary at most, by running with two sizes of it: what doesn't grow with the vocabulary falls out."""
    found, sizes = [], (4_000, 8_000)
    for size in sizes:
        model = policy(vocab_size=size, num_hidden_layers=1, tie_word_embeddings=True)
        for weight in model.parameters():
            weight.grad = torch.zeros_like(weight)
        with Peak(model) as peak:
            run(model)
        found.append(peak.most)
    return (found[1] - found[0]) / (sizes[1] - sizes[0])


def drawn_samples(count: int, prompt: int, response: int) -> list[sampler.Sample]:
    return [sampler.Sample(row[:prompt], row[prompt:], True) for row in ids(count, prompt + response)]


@pytest.mark.parametrize("precision", ["bfloat16", "float32"])
@pytest.mark.parametrize("entropy", [False, True])
def test_logits_of_ppo_take_no_more_than_is_planned_and_not_much_less(precision: str, entropy: bool) -> None:
    samples = drawn_samples(4, 60, 40)

    def run(model: Any) -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
            logits, tokens = ppo.response_logits(model, samples, 1.0)
        loss = ppo.log_probs_of(logits, tokens).sum()
        (loss - ppo.entropies(logits).sum() if entropy else loss).backward()

    shape = Shape.of(TINY | {"vocab_size": 1000}, "")
    planned = costs.ppo_logits(Model.language(shape), 400, 0.4, precision, entropy) / 1000
    beside = TINY["hidden_size"] * 12
    # autograd makes the logits' gradient anew where it is looked at, as it is here: what it would write in place counts twice
    twice = costs.size_of(precision) * 400
    assert 0.9 * planned < a_token(run) < 1.05 * planned + twice + beside


@pytest.mark.parametrize("precision", ["bfloat16", "float32"])
def test_logits_of_steerlm2_take_what_is_planned(precision: str) -> None:
    rows = [one.example for one in drawn_samples(4, 60, 40)]

    def run(model: Any) -> None:
        numbers, mask, trained = steerlm2.padded(rows)
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
            values = steerlm2.token_log_probs(model, numbers, mask)
        (values * trained).sum().backward()

    planned = costs.whole_logits(Model.language(Shape.of(TINY | {"vocab_size": 1000}, "")), 400) / 1000
    assert 0.95 * planned < a_token(run) < 1.05 * planned + TINY["hidden_size"] * 12


def test_the_samplers_draws_take_what_is_planned() -> None:
    def run(model: Any) -> None:
        sampler.sample(model, ids(16, 10), -1, 4, (0,))

    model = Model.language(Shape.of(TINY, ""))
    planned = costs.by_trainer(model, Lengths.of_means(10, 4), 16, 4, "float32", CPU).held
    assert planned == 16 * (14 * model.cached(4) + 20 * 64)
    assert a_token(run) == pytest.approx(16 * 20, rel=0.01)


def test_keys_and_values_are_as_large_as_transformers_cache() -> None:
    cache = DynamicCache()
    policy()(input_ids=torch.tensor(ids(3, 7)), past_key_values=cache, use_cache=True)
    found = sum(tensor.numel() * 4 for layer in cache.layers for tensor in (layer.keys, layer.values))
    assert found == 3 * 7 * Model.language(Shape.of(TINY, "")).cached(4)


def test_states_of_ppo_are_weights_gradients_and_moments(tiny: Profile) -> None:
    learner = ppo.Learner(policy(1), policy(2), values_of(3), method_of(tiny, "ppo"))
    learner.learn(drawn_samples(4, 6, 3), np.linspace(-1, 1, 4))
    moments = [of for optimiser in learner.optimisers.values() for of in optimiser.state.values()]
    weights = [p for model in learner.models.values() for p in model.parameters()]
    found = 4 * sum(2 * p.numel() for p in weights) + 4 * sum(
        of[n].numel() for of in moments for n in ("exp_avg", "exp_avg_sq")
    )
    model = Model.language(Shape.of(TINY, ""))
    need = costs.training([model, model.giving(1)], 0, 10, "float32", False, 0.0, 0.0, CPU.device)
    assert need.memory.states == pytest.approx(found, rel=0.001), "the value model's head has a bias"


# ------------------------------------------------------------------------------------------------------------------------------ time


def test_decoding_by_hand() -> None:
    """Ten prompts of 4 tokens with responses of 3, by a model of 328 weights that multiply and 388 in all, 4 keys and values of two layers."""
    model, device = Model.language(Shape.of(SMALL, "")), replace(DEVICES["H100"], memory=4e3)
    machine = Machine(device, 0.4, 0.5)
    kept = 2 * 2 * 2 * 2
    found = costs.by_engine(model, Lengths.of_means(4, 3), 10, "bfloat16", machine, 1)
    prompts = 10 * (2 * 288 * 4 + 4 * 2 * 4 * 16 + 2 * 40)
    fed = 10 * (2 * 2 * 328 + 4 * 2 * 4 * (5 + 6))
    assert found.operations == prompts + fed
    # of 4,000 bytes 3,680 are vLLM's, 2,904 beside the weights: room for 25 contexts of 7 tokens, so that all ten go at once
    assert found.held == 10 * 7 * kept
    read = 2 * 328 * 2 + 10 * (5 + 6) * kept
    assert found.hours * 3600 == pytest.approx(prompts / (0.4 * 989e12) + read / (0.5 * 3.35e12))
    narrow = costs.by_engine(
        model, Lengths.of_means(4, 3), 10, "bfloat16", replace(machine, device=replace(device, memory=1e3)), 1
    )
    one_by_one = 20 * 328 * 2 + 10 * (5 + 6) * kept
    assert narrow.hours * 3600 == pytest.approx(prompts / (0.4 * 989e12) + one_by_one / (0.5 * 3.35e12), rel=0.2)
    loop = costs.by_trainer(model, Lengths.of_means(4, 3), 10, 5, "bfloat16", machine)
    read = 4 * 328 * 2 + 3 * 10 * (5 + 6 + 7 + 8) * kept
    prompts_and_fed = prompts + 10 * (4 * 2 * 328 + 4 * 2 * 4 * (5 + 6 + 7 + 8))
    assert (loop.operations, loop.tokens) == (prompts_and_fed, 10 * (4 + 4))
    assert loop.hours * 3600 == pytest.approx(prompts / (0.4 * 989e12) + read / (0.5 * 3.35e12))


@settings(max_examples=60, deadline=None)
@given(
    st.floats(1, 3000),
    st.floats(2, 1000),
    st.integers(1, 10**5),
    st.floats(1, 20),
    st.sampled_from(["engine", "trainer"]),
)
def test_sampling_is_bound_by_operations_and_by_bandwidth_and_a_faster_device_is_never_slower(
    prompt: float, response: float, count: int, faster: float, by: str
) -> None:
    model = Model.language(Shape.of(CONFIGS["Qwen/Qwen2.5-7B-Instruct"], ""))

    def hours(device: Any) -> tuple[float, float]:
        machine, lengths = Machine(device, 0.4), Lengths.of_means(prompt, response)
        if by == "engine":
            found = costs.by_engine(model, lengths, count, "bfloat16", machine, 1)
        else:
            found = costs.by_trainer(model, lengths, count, math.ceil(response), "bfloat16", machine)
        return found.hours, machine.hours(found.operations, "bfloat16")

    device = DEVICES["H100"]
    plain, bound = hours(device)
    assert plain >= bound * (1 - 1e-9)
    assert hours(replace(device, bandwidth=faster * 3.35e12))[0] <= plain * (1 + 1e-9)
    assert hours(replace(device, bfloat16=faster * 989e12))[0] <= plain * (1 + 1e-9)


def test_frozen_weights_are_cast_at_every_step_of_decoding() -> None:
    shape = Shape.of(CONFIGS["Qwen/Qwen2.5-7B-Instruct"], "")
    plain, adapted = (
        costs.by_trainer(Model.language(shape, lora), Lengths.of_means(100, 100), 4, 100, "bfloat16", H100)
        for lora in (None, Lora(rank=1))
    )
    assert 3.5 < adapted.hours / plain.hours < 4.1, "read as 4 bytes, written and read as 2, where 2 are read"


def test_the_engine_has_the_fewest_devices_that_share_the_heads_and_hold_weights_and_a_context() -> None:
    shape = Shape.of(CONFIGS["meta-llama/Meta-Llama-3-70B"], "")
    model = Model.language(shape)
    need, gpus = costs.engine(model, "bfloat16", 1, 4096, DEVICES["H100"])
    assert (gpus, need.memory.gpus) == (2, 2), "141 GB of 160"
    assert need.memory.total == pytest.approx(0.92 * 80e9)
    assert costs.engine(model, "bfloat16", 3, 4096, DEVICES["H100"])[1] == 4, "64 heads can't be shared by three"
    assert costs.engine(model, "bfloat16", 1, 4096, DEVICES["L4"])[1] == 8
    need, _ = costs.engine(model, "bfloat16", 1, 4096, replace(DEVICES["L4"], memory=1e9))
    assert need.memory.gpus is None


def test_a_device_of_unknown_bandwidth_samples_nothing(base: Path) -> None:
    machine = Machine(replace(DEVICES["H100"], bandwidth=None), 0.4)
    profile = profile_of(base, 0.5, sft=sft_of())
    with pytest.raises(PlanError, match="bandwidth of its memory isn't known; give it with --bandwidth-gbs"):
        plan(profile, data_for(), machine)
    assert of_method(profile_of(base, sft=sft_of()), "sft", data_for(), machine).total.operations > 0


# ------------------------------------------------------------------------------------------------------------------------------ data


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(*[st.integers(1, 300)] * 3), min_size=2, max_size=30), st.integers(20, 400))
def test_conversations_that_fit_are_those_of_a_plain_loop(rows: list[tuple[int, int, int]], most: int) -> None:
    table = np.array(rows, dtype=np.float64)
    lengths = Lengths(table[:, 0], table[:, 1:], np.zeros(len(rows)))
    kept = [(p, [a, b]) for p, a, b in rows if max(a, b) + p <= most]
    if not kept:
        with pytest.raises(PlanError, match=f"x: every conversation has more than max_tokens, {most}"):
            lengths.fitting(most, "x")
        return
    found, share = lengths.fitting(most, "x")
    assert share == pytest.approx(len(kept) / len(rows))
    texts = found.texts(len(kept))
    assert texts.tokens == pytest.approx(sum(p + r for p, both in kept for r in both))
    assert texts.squares == pytest.approx(sum((p + r) ** 2 for p, both in kept for r in both))
    assert texts.predicted == pytest.approx(sum(map(sum, (both for _, both in kept))))
    assert found.longest(1000) == max(p + max(both) for p, both in kept)


def test_means_longer_than_what_fits_are_taken_for_that_long() -> None:
    lengths, share = Lengths.of_means(300, 100).fitting(200, "x")
    assert (share, float(lengths.whole.max()), lengths.longest(200)) == (1.0, 200.0, 200)
    assert Lengths.of_means(300, 100).leaving(50, "x")[0].prompt.tolist() == [50]
    with pytest.raises(PlanError, match="x: no prompt has at most the 0 tokens"):
        Lengths.of_means(300, 100).leaving(0, "x")


def test_a_files_rows_are_conversations_responses_and_pairs() -> None:
    def turn(role: str, content: str) -> dict[str, str]:
        return {"role": role, "content": content}

    first, second = (
        [turn("user", "a" * 40)],
        [turn("user", "b" * 20), turn("assistant", "c" * 80), turn("user", "d" * 20)],
    )
    rated = pa.table(
        {
            "prompt_id": ["x", "x", "y", "y", "z"],
            "messages": [first, first, second, second, first],
            "response": ["e" * 40, "f" * 80, "g" * 120, "h" * 160, "i"],
            "helpfulness": [1.0, 3.0, 2.0, 2.0, None],
        }
    )
    nothing = pa.table({"prompt_id": [], "messages": [], "chosen": [], "rejected": []})
    found = Data.of_tables(rated, nothing, 4, "here")
    assert (found.prompts, found.rows, found.pairs) == (2, 5, 1), (
        "two prompts with a rating; one whose responses differ in it"
    )
    assert found.learned.prompt.tolist() == [10, 30]
    assert found.learned.response.tolist() == [[20], [30]]
    assert found.learned.earlier.tolist() == [0, 20], "an earlier turn of the assistant is learned too"
    assert found.learned.texts(2).predicted == 20 + 30 + 20
    assert found.paired.response.tolist() == [[20, 10]], "the chosen one first"
    pairs = pa.table(
        {"prompt_id": ["x", "x"], "messages": [first] * 2, "chosen": ["j" * 8] * 2, "rejected": ["k" * 4, "l" * 4]}
    )
    alone = Data.of_tables(rated.slice(0, 0), pairs, 4, "here")
    assert (alone.prompts, alone.rows, alone.pairs) == (1, 3, 2)
    with pytest.raises(PlanError, match="no prompt has a response with a rating of helpfulness"):
        Data.of_tables(rated.slice(4), nothing, 4, "here")


@settings(max_examples=12, deadline=None)
@given(st.integers(40, 10**5), st.integers(1, 10**4), st.floats(1, 500), st.floats(2, 50))
def test_more_or_longer_data_are_never_cheaper(prompts: int, more: int, response: float, longer: float) -> None:
    profile = load_profile("aligned")
    few, many, long = (
        {p.name: p for p in plan(profile, data_for(60, r, n), H100)}
        for n, r in ((prompts, response), (prompts + more, response), (prompts, response + longer))
    )
    for name, plain in few.items():
        assert many[name].total.operations >= plain.total.operations * (1 - 1e-9)
        assert long[name].total.operations >= plain.total.operations * (1 - 1e-9)
        assert many[name].steps >= plain.steps


# --------------------------------------------------------------------------------------------------------------------------- constants


def test_constants_are_those_of_what_they_describe() -> None:
    from trl.kernels import chunked_logprob
    from trl.trainer import utils

    assert costs.TOKENS_AT_ONCE == sampler.TOKENS_AT_ONCE
    assert (costs.WATCHED_PROMPTS, costs.WATCHED_TOKENS) == (watching.WATCHED_PROMPTS, watching.WATCHED_TOKENS)
    assert costs.TOKENS_A_BATCH == batching.TOKENS_A_BATCH
    assert (costs.TILE_TOKENS, costs.TILE_VOCABULARY) == (
        chunked_logprob.TOKEN_CHUNK_SIZE,
        utils._CHUNKED_LOGPROB_CHUNK_SIZE,
    )


def test_vllms_constants_are_those_of_the_version_that_is_installed() -> None:
    spec = find_spec("vllm")
    assert spec
    assert spec.origin
    folder = Path(spec.origin).parent
    share = re.search(
        r"gpu_memory_utilization: float = Field\(default=([\d.]+)", (folder / "config" / "cache.py").read_text()
    )
    assert share
    assert float(share[1]) == costs.ENGINE_MEMORY
    source = (folder / "engine" / "arg_utils.py").read_text()
    at_once = re.findall(r"default_max_num_seqs = \{\s+UsageContext.LLM_CLASS: (\d+),\s", source)
    assert [int(n) for n in at_once] == [1024, 1024, 256], "at least 160 GiB; at least 70, and no A100; others"


# ------------------------------------------------------------------------------------------------------------------------- the command


WITH = [name for name in sorted(path.stem for path in PROFILES.glob("*.yaml")) if load_profile(name).alignment]


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = main(["plan", *arguments])
    said = capsys.readouterr()
    return code, said.out, said.err


@pytest.mark.parametrize("name", WITH)
def test_every_profile_that_aligns_has_a_plan_without_a_file(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, "--profile", name)
    assert (code, err) == (0, "")
    profile = load_profile(name)
    assert profile.alignment
    counts, _ = data_of(profile)
    found = plan(profile, Data.of_counts(**counts, prompt=180, response=380, said=""), H100)
    assert [p.name for p in found if p.kind] == list(profile.alignment.methods)
    assert all(p.total.operations > 0 and p.needs for p in found)
    assert f"{counts['prompts']:,} prompts" in out


def test_the_originals_methods_are_planned_by_its_own_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    """arXiv 2406.08673, appendix H: 100,000 conversations, 2 epochs, 384 a step; 7,221 pairs, 7 epochs, 128; 64 steps of PPO; 20,000 prompts."""
    profile = load_profile("helpsteer2")
    assert profile.alignment
    changed = {"held_out_share": 0.0, "evaluated": None}
    profile = profile.model_copy(update={"alignment": profile.alignment.model_copy(update=changed)})
    counts, said = data_of(profile)
    assert "Daring Anteater" in said
    methods = {
        p.name: p for p in plan(profile, Data.of_counts(**counts, prompt=180.86, response=378.83, said=said), H100)
    }
    steps = [(p.kind, p.steps) for p in methods.values() if p.kind]
    assert steps[:4] == [("sft", 522), ("dpo", 399), ("iterative_dpo", 471), ("ppo", 64)]
    assert steps[4:] == [("steerlm", 522), ("steerlm2", 314), ("steerlm2", 314)]
    # 559.69 tokens of 68.45 G weights, 378.83 of them before a head of 128,256 x 8,192, that TRL computes once more, and attention
    tokens, squares = 200_000 * 559.69, 200_000 * 559.69**2
    wanted = 6 * 68_451_041_280 * tokens + 12 * 80 * 8192 * squares + 4 * 2 * 128_256 * 8192 * 200_000 * 378.83
    assert methods["sft"].costs["training"].operations == pytest.approx(wanted, rel=1e-6)
    assert methods["sft"].parameters == 70_553_706_496, "Llama 3 70B"
    hours = stated(profile, list(methods.values()))
    assert {kind: of for kind, (of, _) in hours.items()} == {
        "sft": 128,
        "dpo": 128,
        "iterative_dpo": 656,
        "ppo": 32,
        "steerlm2": 1184,
    }
    assert hours["steerlm2"][1] == pytest.approx(
        sum(p.total.gpu_hours for p in methods.values() if p.kind == "steerlm2") / 8
    )
    assert stated(load_profile("aligned"), []) == {}


def test_the_command_prints_tables_with_what_they_rest_on(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(
        capsys, "--profile", "helpsteer2", "--method", "ppo", "--share", "0.3", "--bandwidth-share", "0.5"
    )
    assert (code, err) == (0, "")
    limits = (
        "one process",
        "Turn on gradient_checkpointing",
        "in float32, with all weights on one GPU, which doesn't hold them",
    )
    for said in (
        "8,192 prompts",
        "70.6B",
        "30% of peak and 50% of bandwidth",
        "Daring Anteater",
        "no check of this plan",
        *limits,
    ):
        assert said in out
    assert "scored_data" not in out
    assert "activations again" not in out
    assert "activations again" in run(capsys, "--profile", "helpsteer2", "--method", "sft")[1]


def test_json_has_all_figures_and_their_sum(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, "--profile", "helpsteer2", "--json", "--device", "h200")
    assert (code, err) == (0, "")
    found = json.loads(out)
    assert (found["device"]["name"], found["device"]["bandwidth"]) == ("H200 SXM", 4.8e12)
    for figure in ("tokens", "operations", "gpu_hours"):
        of_methods = [p["total"][figure] for p in found["methods"]]
        assert found["total"][figure] == pytest.approx(sum(of_methods))
        assert of_methods == pytest.approx(
            [sum(cost[figure] for cost in p["costs"].values()) for p in found["methods"]]
        )
    assert found["stated_node_hours"]["ppo"] == 32
    trainings = [need for p in found["methods"] for need in p["needs"] if need["process"] == "training"]
    assert len(trainings) == sum(p["steps"] > 0 for p in found["methods"])


def test_numbers_that_are_given_replace_the_profiles(capsys: pytest.CaptureFixture[str]) -> None:
    numbers = ("--prompts", "1000", "--pairs", "300", "--mean-prompt-tokens", "50", "--mean-response-tokens", "70")
    code, out, err = run(capsys, "--profile", "aligned", *numbers, "--json")
    assert (code, err) == (0, "")
    found = json.loads(out)
    assert found["data"] == {
        "from": "the numbers given; the mean lengths given",
        "prompts": 1000,
        "responses": 2000,
        "pairs": 300,
    }
    assert {p["name"]: p["units"] for p in found["methods"]}["dpo"] == 225
    code, out, err = run(capsys, "--profile", "aligned", "--rows", "7", "--json")
    assert (
        json.loads(out)["data"]["from"]
        == "what the profile collects in one delivery, at most, but for the numbers given; HelpSteer2's mean lengths"
    )


def test_the_command_reads_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rated = dict.fromkeys(("correctness", "coherence", "complexity", "verbosity"), 3)
    rows = [
        {"prompt": "p" * (40 + n // 2), "response": "r" * 10 * (n % 7 + 1), "helpfulness": n % 3} | rated
        for n in range(40)
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    code, out, err = run(
        capsys,
        str(tmp_path / "rows.jsonl"),
        "--profile",
        "tiny",
        "--json",
        "--characters-per-token",
        "10",
        "--method",
        "sft",
    )
    assert (code, err) == (0, "")
    found = json.loads(out)
    assert found["data"] == {"from": "rows.jsonl", "prompts": 20, "responses": 40, "pairs": 20}
    best = [max((rows[n], rows[n + 1]), key=lambda row: row["helpfulness"]) for n in range(0, 40, 2)]
    tokens = np.mean([round(len(row["prompt"]) / 10) + len(row["response"]) / 10 for row in best])
    assert found["methods"][0]["costs"]["training"]["tokens"] == pytest.approx(15 * tokens)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--profile", "gpu"), "profile gpu aligns nothing: it has no section `alignment`"),
        (("--method", "gone"), "profile aligned has no method gone; it has: "),
        (("--prompts", "0"), "there must be a prompt to tune on"),
        (("--prompts", "9", "--pairs", "0"), "dpo: learns from preferences; give --pairs, or a file that has them"),
        (
            ("--prompts", "1"),
            "iterative_dpo: there is no prompt|there is no prompt to sample|nothing is left to train on|give more",
        ),
        (("--mean-prompt-tokens", "0"), "must be above 0"),
        (("--share", "0"), "--share 0: must be above 0 and at most 1"),
        (("--bandwidth-share", "2"), "--bandwidth-share 2: must be above 0 and at most 1"),
        (("--bandwidth-gbs", "0"), "device H100: its bandwidth must be above 0"),
        (("--characters-per-token", "0"), "--characters-per-token: must be above 0"),
        (("--device", "cpu"), "the device 'cpu' is not known"),
        (("rows.jsonl", "--prompts", "3"), "give either a file or numbers, not both"),
        (("gone.jsonl",), "gone.jsonl"),
    ],
)
def test_what_is_missing_or_wrong_is_said(
    arguments: Sequence[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    given = arguments if "--profile" in arguments else ("--profile", "aligned", *arguments)
    code, out, err = run(capsys, *given)
    assert (code, out) == (1, "")
    assert re.search(said, err) if "|" in said else said in err


def test_planning_loads_no_torch() -> None:
    loaded = (
        "import sys, argparse; from pipeline.alignment.planning.command import add_plan; parser = argparse.ArgumentParser(); "
        "add_plan(parser.add_subparsers()); options = parser.parse_args(['plan', '--profile', 'aligned', '--json']); "
        "options.run(options); print(); print('torch' in sys.modules, 'transformers' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", loaded], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False False"
