import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification

from pipeline.reward_model.__main__ import main
from pipeline.reward_model.planning.plan import Data, device_of, padded_tokens, plan
from pipeline.reward_model.planning.published import DEVICES, published
from pipeline.reward_model.planning.shapes import CONFIGS, PROBED, PlanError, Shape, shape_of
from pipeline.settings import PROFILES, Lora, Profile, Recipe, load_profile

H100 = DEVICES["H100"]
HELPSTEER2 = load_profile("helpsteer2")
LLAMA = Shape.of(CONFIGS["meta-llama/Meta-Llama-3-70B"], "here")
SMALL = {
    "model_type": "llama",
    "hidden_size": 4,
    "intermediate_size": 8,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "vocab_size": 10,
}


@pytest.fixture
def small(tmp_path: Path) -> Profile:
    """A profile with a base model of four wide, of which there is a config.json only."""
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "config.json").write_text(json.dumps(SMALL))
    (tmp_path / "mine.yaml").write_text(
        f"extends: tiny\nname: mine\nalignment: null\nstore: {tmp_path}/store\ncheckpoints:\n  small: {{folder: {tmp_path}/base, licence: none}}\n"
        "recipes:\n  smollm2_probe: null\n  smollm2_regression: {base: small, layers: null, head: zero, micro_batch_tokens: 8192,"
        " epochs: 2, batch_size: 20, development_share: 0.1, evaluations: 5}\n"
    )
    return load_profile(tmp_path / "mine.yaml")


def with_recipe(profile: Profile, **changes: Any) -> Profile:
    ((name, recipe),) = profile.recipes.items()
    return profile.model_copy(update={"recipes": {name: Recipe.model_validate(recipe.model_dump() | changes)}})


def stages(profile: Profile, data: Data | None = None, **changes: Any) -> Any:
    profile = with_recipe(profile, **changes)
    return plan(profile, list(profile.recipes), data or Data.of_counts(100, 40, 6), H100)


def test_a_small_recipe_by_hand(small: Profile) -> None:
    (stage,) = stages(small)
    # queries 4x4, keys and values 4x2, output 4x4, gate, up and down 4x8: 144 a layer; its two norms 8. Embeddings 40, last norm 4, head 20
    assert stage.parameters == stage.trained == 40 + 2 * (144 + 8) + 4 + 20 == 368
    assert (stage.units, stage.held_out, stage.steps) == (90, 10, 10)
    assert stage.tokens == 90 * 2 * 6
    # a row: 6 x (288 + 20) weights x 6 tokens + 12 x 2 layers x 4 wide x 36 = 11,088 + 3,456
    assert stage.training == 90 * 2 * 14_544
    assert (stage.recomputed, stage.head_start, stage.padded) == (0, 0, None)
    # 10 steps, evaluated every 2, before the first, and as written: 7 forward passes, a third of a row's operations each, over 10 rows
    assert (stage.evaluations, stage.evaluation) == (7, 7 * 10 * 14_544 / 3)
    assert stage.gpu_hours == pytest.approx((90 * 2 + 7 * 10 / 3) * 14_544 / 989e12 / 0.4 / 3600)
    assert stage.node_hours == stage.gpu_hours / 8
    # float32 weights and gradients, AdamW's two states: 16 bytes; a bfloat16 copy of the 308 that multiply
    assert (stage.memory.gpus, stage.memory.states, stage.memory.whole) == (1, 16 * 368, 2 * 308)
    # a pass of 8,192 tokens would be more than a batch of 20 responses of 384; two layers, 26x4 + 8x8 + 4x(4 + 2 + 2) + 8 = 208 bytes a token
    assert stage.memory.activations == 20 * 384 * 2 * 208


def test_the_originals_share_of_peak_by_hand() -> None:
    """arXiv 2406.08673: 20,324 rows, 2 epochs, 712.6 + 1,492.6 characters a row, 64 and 256 H100 node-hours; arXiv 2407.21783: 3.94 a token."""
    llama, nemotron = published()
    # 80 layers of 2 x 8192^2 + 2 x 8192 x 1024 + 3 x 8192 x 28672 = 855,638,016, and a head of 5 x 8192
    weights = 80 * 855_638_016 + 40_960
    assert LLAMA.multiplying(5) == weights == 68_451_082_240
    tokens = 2 * 20_324 * 559.6954
    # 6 x 68.45 G + 12 x 80 x 8192 x 559.7 = 410.71 G + 4.40 G a token
    assert llama.training == pytest.approx(tokens * (410.7065e9 + 4.4016e9), rel=1e-4)
    assert llama.training == pytest.approx(9.444e18, rel=1e-3)
    # 512 GPU-hours at 989 teraFLOPS are 1.8229e21
    assert llama.gpu_hours == 512
    assert llama.share == pytest.approx(9.444e18 / 1.82292e21, rel=1e-3)
    assert round(llama.share, 4) == 0.0052
    # 4096 tokens a row: 166.5 M tokens of 410.71 G + 32.21 G
    assert llama.padded_share == pytest.approx(2 * 20_324 * 4096 * (410.7065e9 + 32.2123e9) / 1.82292e21, rel=1e-4)
    assert (nemotron.gpu_hours, round(nemotron.share, 4)) == (2048, 0.0062)


def test_the_originals_recipes_make_the_originals_steps() -> None:
    """NeMo-Aligner's recipes: 317 steps over the ratings, 105 over 6,766 preferences, both cut off before the last, partial batch."""
    recipe = HELPSTEER2.recipes["llama_3_1_70b_two_stage"].model_copy(update={"development_share": 0.0})
    profile = HELPSTEER2.model_copy(update={"recipes": {"whole": recipe}})
    first, second = plan(profile, ["whole"], Data.of_counts(20_324, 6_766, 560), H100)
    assert (first.steps, second.steps) == (2 * 159, 106)
    assert (20_324 * 2 // 128, 6_766 // 64) == (317, 105)


@st.composite
def configs(draw: st.DrawFn) -> dict[str, Any]:
    kind = draw(st.sampled_from(["llama", "mistral", "qwen2", "qwen3"]))
    groups, size = draw(st.integers(1, 3)), 2 * draw(st.integers(1, 4))
    heads = groups * draw(st.integers(1, 3))
    config = {
        "model_type": kind,
        "hidden_size": heads * (size if kind == "qwen2" else 2 * draw(st.integers(1, 10))),
        "intermediate_size": draw(st.integers(1, 50)),
        "num_hidden_layers": draw(st.integers(1, 4)),
        "num_attention_heads": heads,
        "num_key_value_heads": groups,
        "vocab_size": draw(st.integers(5, 60)),
    }
    if kind != "qwen2":
        config["head_dim"] = size
    if kind == "llama":
        config |= {"attention_bias": draw(st.booleans()), "mlp_bias": draw(st.booleans())}
    if kind == "qwen3":
        config["attention_bias"] = draw(st.booleans())
    return config


def meta_model(config: dict[str, Any], outputs: int) -> Any:
    values = {key: value for key, value in config.items() if key != "model_type"}
    with torch.device("meta"):
        return AutoModelForSequenceClassification.from_config(
            AutoConfig.for_model(config["model_type"], pad_token_id=0, num_labels=outputs, **values)
        )


@settings(max_examples=40, deadline=None)
@given(configs(), st.integers(1, 6))
def test_parameters_are_those_that_transformers_builds(config: dict[str, Any], outputs: int) -> None:
    shape, model = Shape.of(config, "here"), meta_model(config, outputs)
    assert shape.parameters(outputs) == sum(p.numel() for p in model.parameters())
    linear = [m for m in model.modules() if isinstance(m, torch.nn.Linear)]
    assert shape.multiplying(outputs) == sum(m.weight.numel() for m in linear)
    ends = sum(sum(m.weight.shape) for m in linear if m.weight.shape[0] != outputs or m is not model.score)
    assert shape.adapters(Lora(rank=3)) == 3 * ends


@pytest.mark.parametrize("name", CONFIGS)
def test_a_known_shape_has_the_parameters_that_transformers_builds(name: str) -> None:
    shape, config = Shape.of(CONFIGS[name], name), dict(CONFIGS[name])
    if shape.kind in PROBED:  # without a head
        with torch.device("meta"):
            model = AutoModel.from_config(AutoConfig.for_model(config.pop("model_type"), pad_token_id=0, **config))
    else:
        model = meta_model(config, 5)
    head = shape.head(5) if shape.kind in PROBED else 0
    assert shape.parameters(5) - head == sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("kind", ["llama", "qwen2"])
@pytest.mark.parametrize("precision", ["bfloat16", "float32"])
def test_a_token_and_layer_keep_what_autograd_keeps(kind: str, precision: str) -> None:
    config = SMALL | {
        "model_type": kind,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_attention_heads": 4,
        "vocab_size": 50,
    }
    tokens, found = 2 * 24, []
    for layers in (1, 2):
        values = {key: value for key, value in config.items() if key not in ("model_type", "num_hidden_layers")}
        whole = AutoConfig.for_model(kind, pad_token_id=0, num_hidden_layers=layers, **values)
        model = AutoModelForSequenceClassification.from_config(whole).train()
        weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
        kept: dict[int, torch.Tensor] = {}

        def keep(tensor: torch.Tensor, kept: dict[int, torch.Tensor] = kept) -> torch.Tensor:
            return kept.setdefault(tensor.untyped_storage().data_ptr(), tensor) if tensor.numel() else tensor

        ids = torch.randint(1, 50, (2, 24))
        with (
            torch.autograd.graph.saved_tensors_hooks(lambda t, keep=keep: (keep(t), t)[1], lambda t: t),
            torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"),
        ):
            model(input_ids=ids, attention_mask=torch.ones_like(ids))
        found.append(sum(t.untyped_storage().nbytes() for at, t in kept.items() if at not in weights))
    shape = Shape.of(config, "here")
    copies = 2 * sum(matrix.weights for matrix in shape.matrices) if precision == "bfloat16" else 0
    assert found[1] - found[0] - copies == tokens * shape.kept(precision)


def test_checkpointing_computes_a_forward_pass_again_and_keeps_less(small: Profile) -> None:
    (plain,), (again,) = stages(small), stages(small, gradient_checkpointing=True)
    assert (again.training, again.recomputed) == (plain.training, plain.training / 3)
    assert again.memory.activations < plain.memory.activations
    # 4 bytes of each layer's input, and one layer whole
    assert again.memory.activations == 20 * 384 * (2 * 4 * 4 + 208)


def test_adapters_cost_less_and_hold_fewer_states(small: Profile) -> None:
    (whole,), (adapted,) = stages(small), stages(small, lora={"rank": 1})
    # a layer's maps have 8 + 6 + 6 + 8 + 12 + 12 + 12 = 64 ends
    assert adapted.trained == 2 * 64 + 20
    assert adapted.memory.states == 4 * (368 + 128) + 12 * 148
    # 4 x 308 frozen or head, 6 x 128 of adapters, 2 x 20 for the head's own gradient
    assert adapted.training == 90 * 2 * (6 * (4 * 308 + 6 * 128 + 2 * 20) + 3_456)
    assert adapted.training < whole.training * 1.2


def test_a_probe_makes_one_forward_pass_and_trains_nothing(small: Profile) -> None:
    (probe,) = stages(small, objective="probe")
    assert (probe.steps, probe.trained, probe.training, probe.recomputed) == (0, 0, 0, 0)
    # over the rows to train on and the development rows, which the published probe reads again
    assert (probe.head_start, probe.evaluations, probe.evaluation) == (100 * 14_544 / 3, 1, 10 * 14_544 / 3)
    assert probe.memory.states == 4 * 368


def test_the_ridge_start_is_a_forward_pass_of_the_first_stage_alone(small: Profile) -> None:
    two = {"objective": "two_stage", "head": "ridge", "preference": {"batch_size": 6, "evaluations": 1}}
    first, second = stages(small, **two)
    assert [first.head_start, second.head_start] == [90 * 14_544 / 3, 0]
    assert (first.evaluations, second.evaluations) == (6, 3)
    # 36 of 40 preferences, two responses each, 6 a step, one output
    assert (second.objective, second.unit, second.units, second.steps, second.tokens) == (
        "scaled_bt",
        "preferences",
        36,
        6,
        36 * 12,
    )
    assert second.training == 36 * 2 * (6 * (288 + 4) * 6 + 3_456)


def test_fewer_layers_are_planned_for(small: Profile) -> None:
    assert stages(small, layers=1)[0].parameters == 368 - 152


@settings(max_examples=60, deadline=None)
@given(st.integers(40, 10**6), st.integers(1, 10**5), st.floats(1, 4000), st.floats(1, 90))
def test_more_to_train_on_is_never_cheaper(rows: int, more: int, mean: float, longer: float) -> None:
    def of(rows: int, mean: float) -> Any:
        return plan(HELPSTEER2, ["llama_3_70b_regression"], Data.of_counts(rows, 0, mean), H100)[0]

    base, larger, wider = of(rows, mean), of(rows + more, mean), of(rows, mean + longer)
    assert larger.steps >= base.steps
    assert larger.training >= base.training, "the share held out is rounded: one row more may be one that is held out"
    assert wider.training > base.training
    assert wider.evaluation > base.evaluation
    assert wider.memory == larger.memory == base.memory


@settings(max_examples=60, deadline=None)
@given(st.floats(30, 400), st.floats(0, 400))
def test_a_larger_gpu_never_takes_more_of_them(gigabytes: float, more: float) -> None:
    profile, data = HELPSTEER2, Data.of_counts(20_324, 6_766, 560)
    small, large = (
        plan(profile, list(profile.recipes), data, replace(H100, memory=1e9 * size))
        for size in (gigabytes, gigabytes + more)
    )
    for a, b in zip(small, large, strict=True):
        assert (b.memory.gpus or np.inf) <= (a.memory.gpus or np.inf)
        if a.memory.gpus:
            assert a.memory.total <= 0.9e9 * gigabytes * (1 + 1e-9)


def test_without_checkpointing_no_number_of_gpus_holds_the_70b_model() -> None:
    profile, data = HELPSTEER2, Data.of_counts(20_324, 0, 560)
    recipe = profile.recipes["llama_3_70b_regression"]
    loose = profile.model_copy(
        update={"recipes": {"loose": recipe.model_copy(update={"gradient_checkpointing": False})}}
    )
    assert plan(loose, ["loose"], data, H100)[0].memory.gpus is None
    held = plan(profile, ["llama_3_70b_regression"], data, H100)[0].memory
    assert held.gpus == 25
    assert held.states == 16 * LLAMA.parameters(5) / 25


def test_padding_is_what_passes_of_sorted_conversations_waste() -> None:
    rows = np.array([[1.0], [5.0], [3.0], [2.0]])
    assert padded_tokens(rows, 4, 10, 0) == 5 + 5 + 2 + 2, "5 and 3 in a pass of ten, 2 and 1 in another"
    assert padded_tokens(rows, 4, 1, 0) == 11, "each alone"
    assert padded_tokens(rows, 4, 1000, 0) == 20, "all in one"
    assert padded_tokens(np.array([[4.0, 6.0]]), 4, 1000, 0) == 12
    equal = np.full((50, 1), 7.0)
    assert padded_tokens(equal, 8, 20, 3) == 350


def test_a_files_pairs_are_of_two_responses_that_differ() -> None:
    data = Data.of_rows(["a", "a", "b", "b", "c", "d", "d", "d"], [40] * 8, [4, 2, 3, 3, 1, 1, 2, 3], per_token=4)
    assert (data.rows, data.pairs, data.mean) == (8, 1, 10)


@pytest.mark.parametrize("name", sorted(path.stem for path in PROFILES.glob("*.yaml")))
def test_every_profile_that_ships_has_a_plan(name: str) -> None:
    profile = load_profile(name)
    found = plan(profile, list(profile.recipes), Data.of_counts(1000, 1000, 300), H100)
    assert len(found) == sum(len(recipe.stages) for recipe in profile.recipes.values())
    assert all(stage.operations > 0 for stage in found)


# ------------------------------------------------------------------------------------------------------------------------- the command


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = main(["plan", *arguments])
    said = capsys.readouterr()
    return code, said.out, said.err


ORIGINAL = ("--profile", "helpsteer2", "--rows", "20324", "--pairs", "6766", "--mean-tokens", "560")


def test_the_command_says_what_a_recipe_needs_and_what_the_original_took(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, *ORIGINAL, "--recipe", "llama_3_70b_regression")
    assert (code, err) == (0, "")
    for said in (
        "llama_3_70b_regression",
        "69.5B",
        "19,308",
        "989 teraFLOPS",
        "40% of peak",
        "0.52%",
        "not stated",
    ):
        assert said in out
    assert "HelpSteer2's own" not in run(capsys, *ORIGINAL, "--recipe", "llama_3_1_70b_helpfulness")[1]


def test_the_command_gives_one_json_object(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, *ORIGINAL, "--json", "--device", "h200", "--share", "0.3")
    assert code == 0
    found = json.loads(out)
    assert (found["device"]["name"], found["share_of_peak"]) == ("H200 SXM", 0.3)
    assert len(found["stages"]) == 10
    # 1,112 GB of states; of 126.9 GB each, 14.5 are gathered weights and 12.7 activations
    assert found["stages"][0]["memory"]["gpus"] == 12
    assert [round(p["share_of_peak"], 4) for p in found["published"]] == [0.0052, 0.0062]


def test_the_command_reads_a_file(small: Profile, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rated = dict.fromkeys(("correctness", "coherence", "complexity", "verbosity"), 3)
    rows = [
        {"prompt": "p" * (40 + n // 2), "response": "r" * 10 * (n + 1), "helpfulness": n % 3} | rated for n in range(40)
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    arguments = (
        str(tmp_path / "rows.jsonl"),
        "--profile",
        str(tmp_path / "mine.yaml"),
        "--json",
        "--characters-per-token",
        "10",
    )
    code, out, err = run(capsys, *arguments)
    assert (code, err) == (0, "")
    found = json.loads(out)
    assert (found["rows"], found["pairs"]) == (40, 20)
    stage = found["stages"][0]
    characters = [40 + n // 2 + 10 * (n + 1) for n in range(40)]
    assert stage["tokens"] == pytest.approx(2 * 36 * np.mean([round(c / 10) for c in characters]))
    assert stage["padded"] > stage["tokens"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--rows", "10", "--mean-tokens", "5", "--recipe", "gone"), "has no recipe gone; it has: smollm2_regression"),
        ((), "there is nothing to train on; give a file"),
        (("--rows", "-1", "--mean-tokens", "5"), "there is nothing to train on; give a file"),
        (("--rows", "10"), "--mean-tokens: must be above 0"),
        (("--pairs", "10", "--mean-tokens", "5"), "needs rated responses; give --rows"),
        (
            ("--rows", "10", "--mean-tokens", "5", "--device", "cpu"),
            "the device 'cpu' is not known (known are A100, H100",
        ),
        (("--rows", "10", "--mean-tokens", "5", "--peak-tflops", "0"), "peaks and memory must be above 0"),
        (("--rows", "10", "--mean-tokens", "5", "--share", "1.2"), "--share 1.2: the share of peak must be above 0"),
        (("rows.jsonl", "--rows", "10"), "give either a file or numbers"),
    ],
)
def test_what_is_missing_is_said(arguments: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, "--profile", "tiny", *arguments)
    assert (code, out) == (1, "")
    assert said in err


def test_planning_loads_no_torch() -> None:
    loaded = "import sys, pipeline.reward_model.__main__; print('torch' in sys.modules, 'transformers' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", loaded], capture_output=True, text=True, check=True)
    assert done.stdout == "False False\n"


def test_a_cpu_has_the_peak_that_was_measured() -> None:
    cpu = device_of("cpu", bfloat16=2.5, float32=0.2, memory=24)
    assert (cpu.bfloat16, cpu.float32, cpu.memory) == (2.5e12, 0.2e12, 24e9)
    assert device_of("l4", memory=22) == replace(DEVICES["L4"], memory=22e9)


def test_a_model_of_unknown_shape_is_refused_with_what_to_do(small: Profile, tmp_path: Path) -> None:
    base = small.checkpoints["small"]
    with pytest.raises(PlanError, match=r"checkpoint mine: no config.json of some/model is here.*Download the file"):
        shape_of(base.model_copy(update={"folder": None, "hub": "some/model"}), "mine")
    (tmp_path / "base" / "config.json").write_text(json.dumps(SMALL | {"model_type": "mamba"}))
    with pytest.raises(PlanError, match="models of type 'mamba' can't be planned"):
        shape_of(base, "mine")
    (tmp_path / "base" / "config.json").write_text(json.dumps({"model_type": "llama"}))
    with pytest.raises(PlanError, match=r"config.json: has no field hidden_size"):
        shape_of(base, "mine")
    (tmp_path / "base" / "config.json").write_text(json.dumps(SMALL))
    with pytest.raises(PlanError, match=r"layers: 3 are asked for, but small has only 2"):
        stages(small, layers=3)
