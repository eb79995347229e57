"""What a recipe's training takes, before anything runs: steps, tokens, operations, memory, GPUs, hours. Loads no weights, and no torch.

Operations are multiplications and additions, each counted. N is the number of weights that multiply (embeddings are looked up, norms and
biases are left out, as in Kaplan et al., arXiv 2001.08361, section 2.1), d the width of attention (heads x head size), L the layers:

    forward                            2 N + 4 L d s   a token in a conversation of s tokens
    forward and backward               6 N + 12 L d s  (PaLM, arXiv 2204.02311, appendix B; all of attention's square, not its causal half)
    gradient checkpointing             a forward more  (Megatron, arXiv 2104.04473, section 5.1: 96 instead of 72 B s l h^2)
    LoRA, A weights of adapters        4 N + 6 A + 12 L d s: a frozen weight has no gradient of its own (the head counts among A)
    head's start, probe, evaluations   forwards, in the recipe's precision
    predictions                        forwards of the published model for the development rows, in float32

Memory of a GPU, in bytes, as training has it: master weights and gradients in float32, AdamW's two states in float32 (16 a trained weight; 4
a frozen one), all sharded over the GPUs (ZeRO, arXiv 1910.02054, stage 3), and what one forward pass keeps for its backward pass, which isn't.
That is counted as Korthikanti et al. do (arXiv 2205.05198, section 4), tensor by tensor, but for this model and precision instead of
GPT's: a token and layer keep 26 h + 8 f + 4 (q + k + heads) + 8 under bfloat16 autocast, 24 h + 16 f + 8 (q + k) + 4 heads + 8 in float32
(h: width; f: width of the MLP; q, k: width of queries, and of keys), and no attention scores. With gradient checkpointing every layer
keeps its input, 4 h, and one layer at a time all of it.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.reward_model.batching import plan_steps
from pipeline.settings import Checkpoint, Lora, Profile, Recipe

SHARE_OF_PEAK = 0.4
"""Share of peak that is assumed: Llama 3's pre-training reached 38 to 43 % on H100s (arXiv 2407.21783, table 4). Short conversations reach less."""
CHARACTERS_A_TOKEN = 3.94
"""English text under Llama 3's tokenizer (arXiv 2407.21783, section 3.2)."""
HEADROOM = 0.1
"""Share of a GPU's memory that is left to CUDA, communication and fragmentation. Assumed."""
GPUS_A_NODE = 8


class PlanError(ValueError):
    """Why there is no plan; the message says what to give."""


# ----------------------------------------------------------------------------------------------------------------------------- devices


@dataclass(frozen=True)
class Device:
    """An accelerator: dense peak in operations a second, by precision, and bytes of memory."""

    name: str
    bfloat16: float
    float32: float
    memory: float


DEVICES = {
    "A100": Device("A100 80GB SXM", 312e12, 19.5e12, 80e9),
    "H100": Device("H100 SXM", 989e12, 67e12, 80e9),
    "H200": Device("H200 SXM", 989e12, 67e12, 141e9),
    "L4": Device("L4", 121e12, 30.3e12, 24e9),
}
"""NVIDIA's data sheets "A100 Tensor Core GPU", "H100 Tensor Core GPU", "H200 Tensor Core GPU", "L4 Tensor Core GPU": bfloat16 on tensor cores
without sparsity (the H100, H200 and L4 sheets print twice as much, with it), and float32 off them: torch doesn't use TF32 unless told."""


def device_of(
    name: str, bfloat16: float | None = None, float32: float | None = None, memory: float | None = None
) -> Device:
    """A device of DEVICES, or `cpu`, or any other with figures of its own: teraFLOPS (measured, say) and GB of memory.

    What is given replaces the data sheet's. Raises PlanError where a figure is missing.
    """
    given = (bfloat16, float32, memory)
    if any(value is not None and not value > 0 for value in given):
        raise PlanError(f"device {name}: a peak and a memory are above 0")
    known = DEVICES.get(name.upper())
    if known:
        sheet = (known.bfloat16, known.float32, known.memory)
    elif None in given:
        raise PlanError(
            f"device {name!r} has no data sheet here (there are: {', '.join(DEVICES)}): give what it reaches, --peak-tflops and "
            "--float32-tflops, and its memory, --memory-gb"
        )
    else:
        sheet = (0.0, 0.0, 0.0)
    scaled = [s if v is None else v * scale for v, s, scale in zip(given, sheet, (1e12, 1e12, 1e9), strict=True)]
    return Device(known.name if known else name, *scaled)


# ------------------------------------------------------------------------------------------------------------------------------ shapes


@dataclass(frozen=True)
class Shape:
    """What a model's size follows from: a decoder of Llama's kind (gated MLP, grouped queries, two norms a layer)."""

    vocabulary: int
    width: int
    mlp: int
    layers: int
    heads: int
    key_value_heads: int
    head_size: int
    biases: int = 0
    """of a layer"""
    head_norms: int = 0
    """weights of a layer's norms of queries and keys"""

    @classmethod
    def of(cls, config: Mapping[str, Any], where: str) -> "Shape":
        """The shape in a config.json's values. Raises PlanError for another kind of model, or a value that is missing."""
        kind = config.get("model_type")
        if kind not in KINDS:
            raise PlanError(f"{where}: models of type {kind!r} have no plan; there is one for: {', '.join(KINDS)}")
        try:
            width, heads, mlp = config["hidden_size"], config["num_attention_heads"], config["intermediate_size"]
            vocabulary, layers = config["vocab_size"], config["num_hidden_layers"]
        except KeyError as missing:
            raise PlanError(f"{where}: has no {missing.args[0]}") from None
        groups, size = config.get("num_key_value_heads") or heads, config.get("head_dim") or width // heads
        biases = size * (heads + 2 * groups) if kind == "qwen2" or config.get("attention_bias") else 0
        if kind != "qwen2" and config.get("attention_bias"):
            biases += width
        if kind == "llama" and config.get("mlp_bias"):
            biases += 2 * mlp + width
        norms = 2 * size if kind == "qwen3" else 0
        return cls(vocabulary, width, mlp, layers, heads, groups, size, biases, norms)

    @property
    def matrices(self) -> tuple[tuple[int, int], ...]:
        """Inputs and outputs of a layer's linear maps: queries, keys, values, attention's output, gate, up, down."""
        h, q, k, f = self.width, self.attention, self.keys, self.mlp
        return ((h, q), (h, k), (h, k), (q, h), (h, f), (h, f), (f, h))

    @property
    def attention(self) -> int:
        """Width of queries."""
        return self.heads * self.head_size

    @property
    def keys(self) -> int:
        """Width of keys, and of values."""
        return self.key_value_heads * self.head_size

    @property
    def layer(self) -> int:
        """Parameters of a layer."""
        return sum(a * b for a, b in self.matrices) + self.biases + self.head_norms + 2 * self.width

    def parameters(self, outputs: int) -> int:
        """Parameters of the reward model: embeddings, layers, last norm, and a head without bias; no language head."""
        return self.vocabulary * self.width + self.layers * self.layer + self.width + outputs * self.width

    def multiplying(self, outputs: int) -> int:
        """Weights that multiply: those of the layers' linear maps, and the head's."""
        return self.layers * sum(a * b for a, b in self.matrices) + outputs * self.width

    def adapters(self, lora: Lora) -> int:
        """Parameters of adapters on every linear map but the head."""
        return self.layers * lora.rank * sum(a + b for a, b in self.matrices)

    def kept(self, precision: str) -> int:
        """Bytes that a token and layer keep for the backward pass; see the module's description."""
        h, f, q, k = self.width, self.mlp, self.attention, self.keys
        if precision == "float32":
            return 24 * h + 16 * f + 8 * (q + k) + 4 * self.heads + 8
        return 26 * h + 8 * f + 4 * (q + k + self.heads) + 8


KINDS = ("llama", "mistral", "qwen2", "qwen3")
"""Values of `model_type` whose shape is understood."""


def _llama(width: int, mlp: int, layers: int, heads: int, groups: int, vocabulary: int) -> dict[str, Any]:
    return {
        "model_type": "llama",
        "hidden_size": width,
        "intermediate_size": mlp,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": groups,
        "vocab_size": vocabulary,
    }


CONFIGS: dict[str, dict[str, Any]] = {
    "meta-llama/Meta-Llama-3-70B": _llama(8192, 28672, 80, 64, 8, 128256),
    "meta-llama/Llama-3.1-70B-Instruct": _llama(8192, 28672, 80, 64, 8, 128256),
    "Qwen/Qwen2.5-7B-Instruct": _llama(3584, 18944, 28, 28, 4, 152064) | {"model_type": "qwen2"},
    "SmolLM2-135M-Instruct": _llama(576, 1536, 30, 9, 3, 49152),
}
"""Shapes of the models that the profiles' recipes start from, where their config.json isn't here: values of that file on the Hugging Face hub
(Llama 3: also table 3 of arXiv 2407.21783), by hub id, or the name of a GGUF file up to its first dot."""


def shape_of(checkpoint: Checkpoint, name: str) -> Shape:
    """A checkpoint's shape: from its config.json where it lies here (a folder, or the hub's cache), else from CONFIGS.

    Raises PlanError, naming what to do, where neither knows it.
    """
    from huggingface_hub import try_to_load_from_cache

    local = Path(checkpoint.folder).expanduser() / "config.json" if checkpoint.folder else None
    if local and not local.is_file():
        raise PlanError(f"checkpoint {name}: {local} is not a file")
    if checkpoint.hub:
        cached = try_to_load_from_cache(checkpoint.hub, "config.json", revision=checkpoint.revision)
        local = Path(cached) if isinstance(cached, str) else None
    if local:
        return Shape.of(json.loads(local.read_text()), str(local))
    known = checkpoint.hub or (checkpoint.gguf[0].rsplit("/", 1)[-1].split(".")[0] if checkpoint.gguf else "")
    if known not in CONFIGS:
        raise PlanError(
            f"checkpoint {name}: no config.json of {known or 'a model with weights'} is here, and its shape isn't known (known: "
            f"{', '.join(CONFIGS)}). Download it (`hf download {known or 'ID'} config.json`), or name a `folder` that has it"
        )
    return Shape.of(CONFIGS[known], known)


# ------------------------------------------------------------------------------------------------------------------------------- data


@dataclass(frozen=True)
class Data:
    """What there is to train on: rated responses and preferences, and the tokens of one conversation.

    rows, pairs: of the train split, before a recipe holds its development share out; 0: none. mean: tokens of a conversation with its
    response. row_lengths, pair_lengths: of every one (of a preference: of its two), where a file tells; else all are taken for `mean` long.
    """

    rows: int
    pairs: int
    mean: float
    row_lengths: npt.NDArray[np.float64] | None = None
    pair_lengths: npt.NDArray[np.float64] | None = None

    @classmethod
    def of_counts(cls, rows: int, pairs: int, mean: float) -> "Data":
        """From numbers alone. Raises PlanError where nothing is left to train on."""
        if rows < 0 or pairs < 0 or not rows + pairs:
            raise PlanError(
                "no rows: give the file to train on, or --rows (rated responses) or --pairs, with --mean-tokens"
            )
        if not mean > 0:
            raise PlanError("--mean-tokens: the tokens of a conversation with its response, above 0")
        return cls(rows, pairs, mean)

    @classmethod
    def of_rows(
        cls, prompt_ids: Sequence[str], characters: Sequence[int], helpfulness: Sequence[float | None], per_token: float
    ) -> "Data":
        """From a file's rows: characters of each conversation with its response, taken for tokens by `per_token` characters each.

        A preference is a prompt's two responses where they are the only ones and differ in helpfulness.
        """
        lengths = np.maximum(1, np.round(np.asarray(characters, dtype=np.float64) / per_token))
        of: dict[str, list[int]] = {}
        for row, prompt in enumerate(prompt_ids):
            of.setdefault(prompt, []).append(row)
        rated = [[(row, helpfulness[row]) for row in rows] for rows in of.values() if len(rows) == 2]
        pairs = [[a, b] for (a, x), (b, y) in rated if x is not None and y is not None and x != y]
        both = lengths[np.array(pairs, dtype=np.int64).reshape(-1, 2)]
        return cls(len(lengths), len(pairs), float(lengths.mean()), lengths, both)


def padded_tokens(units: npt.NDArray[np.float64], batch_size: int, budget: int, seed: int) -> float:
    """Tokens of an epoch with padding. units: tokens of the conversations of each unit, shape (units, conversations of a unit).

    As training cuts its passes: steps of `batch_size` drawn units, each sorted by length, in passes of at most `budget` tokens.
    """
    wide = units.max(axis=1) * units.shape[1]
    steps = plan_steps(wide.round().astype(np.int64), batch_size, 1, budget, seed)
    return float(sum(len(u) * wide[u].max() for step in steps for u in step[0]))


# ------------------------------------------------------------------------------------------------------------------------------- plan


@dataclass(frozen=True)
class Memory:
    """Bytes of one GPU among `gpus`. gpus: the fewest that hold it; None where no number does.

    states: weights, gradients and AdamW's states, sharded. whole: weights that are there whole, gathered from the shards, and
    autocast's bfloat16 copies of those that multiply. activations: of the largest pass. Without `gpus`, states are unsharded.
    """

    gpus: int | None
    states: float
    whole: float
    activations: float

    @property
    def total(self) -> float:
        """All of it."""
        return self.states + self.whole + self.activations


@dataclass(frozen=True)
class Stage:
    """A stage of a recipe. Operations by purpose; hours are of one GPU, at the stated share of peak."""

    recipe: str
    objective: str
    unit: str
    units: int
    held_out: int
    epochs: int
    steps: int
    parameters: int
    trained: int
    tokens: float
    padded: float | None
    training: float
    recomputed: float
    head_start: float
    evaluation: float
    evaluations: int
    predictions: float
    memory: Memory
    training_hours: float
    float32_hours: float
    """of the published model's predictions for the development rows"""

    @property
    def gpu_hours(self) -> float:
        """All hours."""
        return self.training_hours + self.float32_hours

    @property
    def operations(self) -> float:
        """All operations."""
        return self.training + self.recomputed + self.head_start + self.evaluation + self.predictions

    @property
    def node_hours(self) -> float:
        """Hours of a node of eight GPUs."""
        return self.gpu_hours / GPUS_A_NODE


def plan(
    profile: Profile, names: Sequence[str], data: Data, device: Device, share: float = SHARE_OF_PEAK
) -> list[Stage]:
    """The stages of some of a profile's recipes, in order.

    share: of the device's peak that is reached. Raises PlanError for an unknown recipe or model, or where data that it needs is missing.
    """
    if not 0 < share <= 1:
        raise PlanError(f"--share {share:g}: a share of peak is above 0 and at most 1")
    found = []
    for name in names:
        if name not in profile.recipes:
            raise PlanError(f"profile {profile.name} has no recipe {name}; it has: {', '.join(profile.recipes)}")
        recipe = profile.recipes[name]
        shape = shape_of(profile.checkpoints[recipe.base], recipe.base)
        if recipe.layers:
            if recipe.layers > shape.layers:
                raise PlanError(f"recipe {name}: layers: {recipe.layers} asked for; {recipe.base} has {shape.layers}")
            shape = replace(shape, layers=recipe.layers)
        for number, part in enumerate(recipe.stages):
            ends = (number == 0, number == len(recipe.stages) - 1)
            found.append(_stage(name, part, shape, data, device, share, profile.seed, *ends))
    return found


def forward(shape: Shape, multiplying: float, tokens: float, squares: float) -> float:
    """Operations of a forward pass. tokens: sum of the conversations' lengths; squares: of their squares."""
    return 2 * multiplying * tokens + 4 * shape.layers * shape.attention * squares


def backward(shape: Shape, recipe: Recipe, outputs: int, tokens: float, squares: float) -> float:
    """Operations of a backward pass: twice the forward's, less the gradients of frozen weights."""
    every = shape.multiplying(outputs)
    adapters = shape.adapters(recipe.lora) if recipe.lora else 0
    updated = adapters + outputs * shape.width if recipe.lora else every
    return 2 * (every + adapters + updated) * tokens + 8 * shape.layers * shape.attention * squares


def _stage(
    name: str,
    recipe: Recipe,
    shape: Shape,
    data: Data,
    device: Device,
    share: float,
    seed: int,
    first: bool,
    last: bool,
) -> Stage:
    wide, units = (2, data.pairs) if recipe.pairs else (1, data.rows)
    if not units:
        what, option = ("preferences", "--pairs") if recipe.pairs else ("rated responses", "--rows")
        raise PlanError(
            f"recipe {name}: its stage {recipe.objective} needs {what}: give {option}, or a file that has them"
        )
    held_out = round(recipe.development_share * units)
    ours = units - held_out
    if not ours:
        raise PlanError(f"recipe {name}: nothing is left of {units} to train on: change its development_share")
    lengths = data.pair_lengths if recipe.pairs else data.row_lengths
    cut = np.minimum(np.full((1, wide), data.mean) if lengths is None else lengths.reshape(-1, wide), recipe.max_tokens)
    tokens, squares = ours * wide * float(cut.mean()), ours * wide * float((cut**2).mean())
    probe = recipe.objective == "probe"
    epochs = 0 if probe else recipe.epochs
    steps = -(-ours // recipe.batch_size) * epochs
    evaluations = (1 if probe else steps // -(-steps // recipe.evaluations) + 1) + last  # the published model once more
    outputs = 1 if recipe.pairs else len(recipe.attributes)
    every = shape.multiplying(outputs)
    adapters = shape.adapters(recipe.lora) if recipe.lora else 0
    once = forward(shape, every + adapters, tokens, squares)
    start = forward(shape, every, tokens, squares) if probe or (first and recipe.head == "ridge") else 0.0
    training = epochs * (once + backward(shape, recipe, outputs, tokens, squares))
    recomputed = epochs * once if recipe.gradient_checkpointing else 0.0
    evaluation = evaluations * once * held_out / ours
    predictions = forward(shape, every, tokens, squares) * held_out / ours if last else 0.0
    parameters = shape.parameters(outputs)
    trained = 0 if probe else adapters + outputs * shape.width if recipe.lora else parameters
    peak = device.bfloat16 if recipe.precision == "bfloat16" else device.float32
    padded = None if lengths is None or probe else epochs * padded_tokens(
        cut, recipe.batch_size, recipe.micro_batch_tokens, seed
    ) * ours / units  # fmt: skip
    longest = recipe.max_tokens if lengths is None else math.ceil(float(cut.max()))
    return Stage(
        recipe=name,
        objective=recipe.objective,
        unit="preferences" if recipe.pairs else "rated responses",
        units=ours,
        held_out=held_out,
        epochs=epochs,
        steps=steps,
        parameters=parameters + adapters,
        trained=trained,
        tokens=epochs * tokens,
        padded=padded,
        training=training,
        recomputed=recomputed,
        head_start=start,
        evaluation=evaluation,
        evaluations=evaluations,
        predictions=predictions,
        memory=memory(shape, recipe, outputs, trained, longest * wide, device),
        training_hours=(training + recomputed + start + evaluation) / (3600 * share * peak),
        float32_hours=predictions / (3600 * share * device.float32),
    )


def memory(shape: Shape, recipe: Recipe, outputs: int, trained: int, unit: int, device: Device) -> Memory:
    """Memory of each GPU on the fewest that hold a stage. unit: tokens of the longest unit, which goes alone where the budget is smaller.

    A single GPU holds all weights, and under autocast a bfloat16 copy of those that multiply until the backward pass is done. Of several,
    each gathers the embeddings and two layers at a time, the one computed and the one fetched; without gradient checkpointing the copies
    of all layers stay there too, unsharded. With it they must not outlive their layer: autocast's cache, which keeps them for the whole
    forward pass, must be off (`cache_enabled=False`), else add 2 bytes for every weight that multiplies.
    """
    parameters = shape.parameters(outputs)
    adapters = shape.adapters(recipe.lora) if recipe.lora else 0
    states = 4.0 * (parameters + adapters) + 12.0 * trained
    copied = 2 if recipe.precision == "bfloat16" else 0
    copies = copied * (shape.multiplying(outputs) + adapters)
    tokens = min(max(recipe.micro_batch_tokens, unit), recipe.batch_size * unit)
    kept = shape.kept(recipe.precision)
    if not trained:
        activations = float(tokens * kept)
    elif recipe.gradient_checkpointing:
        activations = float(tokens * (4 * shape.width * shape.layers + kept))
    else:
        activations = float(tokens * kept * shape.layers)
    room = (1 - HEADROOM) * device.memory
    if states + copies + activations <= room:
        return Memory(1, states, copies, activations)
    gathered = 4 * (shape.vocabulary + 1 + outputs) * shape.width + 2 * 4 * shape.layer
    whole = float(gathered + (2 * copied * shape.layer if recipe.gradient_checkpointing or not trained else copies))
    if whole + activations >= room:
        return Memory(None, states, whole, activations)
    gpus = max(2, math.ceil(states / (room - whole - activations)))
    return Memory(gpus, states / gpus, whole, activations)


# ------------------------------------------------------------------------------------------------------------------------- published


@dataclass(frozen=True)
class Published:
    """A training of the original, its stated cost, and what share of an H100's peak that would be.

    training, padded: operations of two epochs over 20,324 rows, of their mean length, and all padded to 4,096 tokens.
    """

    model: str
    hubs: tuple[str, ...]
    node_hours: float
    training: float
    padded: float

    @property
    def gpu_hours(self) -> float:
        """Hours of one GPU: a node has eight."""
        return self.node_hours * GPUS_A_NODE

    @property
    def share(self) -> float:
        """Share of peak, if nothing but the two epochs ran, and no token was padding."""
        return self.training / (self.gpu_hours * 3600 * DEVICES["H100"].bfloat16)

    @property
    def padded_share(self) -> float:
        """Share of peak, if every row was padded to 4,096 tokens."""
        return self.padded / (self.gpu_hours * 3600 * DEVICES["H100"].bfloat16)


ROWS, EPOCHS, CHARACTERS, SEQUENCE = 20_324, 2, 712.6 + 1492.6, 4096
"""HelpSteer2's train split, epochs, mean characters of a prompt and a response (arXiv 2406.08673, sections 2 and 3, table 2), and the sequence
length of NeMo-Aligner's recipe."""


def published() -> tuple[Published, ...]:
    """The original's two reward models on HelpSteer2: stated node-hours (arXiv 2406.08673, appendix on compute; A100 hours are divided by 3).

    The 340B's shape: 331.6 billion parameters that aren't embeddings, 96 layers, width 18,432 (arXiv 2406.11704, section 2.1). Its
    tokenizer is another than Llama's, and is taken to make as many tokens.
    """
    llama = Shape.of(CONFIGS["meta-llama/Meta-Llama-3-70B"], "meta-llama/Meta-Llama-3-70B")
    models = (
        ("Llama 3 70B", ("meta-llama/Meta-Llama-3-70B",), 64.0, llama.multiplying(5), llama.layers * llama.attention),
        ("Nemotron-4 340B", (), 256.0, 331.6e9, 96 * 18_432),
    )
    mean, found = CHARACTERS / CHARACTERS_A_TOKEN, []
    for model, hubs, hours, weights, attention in models:
        costs = [EPOCHS * ROWS * length * (6 * weights + 12 * attention * length) for length in (mean, SEQUENCE)]
        found.append(Published(model, hubs, hours, *costs))
    return tuple(found)


def reported(stages: Sequence[Stage], device: Device, share: float, data: Data) -> dict[str, Any]:
    """All figures as one JSON object: operations, bytes and hours, unrounded."""
    rows = [
        asdict(s) | {"operations": s.operations, "gpu_hours": s.gpu_hours, "node_hours": s.node_hours} for s in stages
    ]
    for row, stage in zip(rows, stages, strict=True):
        row["memory"]["total"] = stage.memory.total
    theirs = [
        asdict(p) | {"gpu_hours": p.gpu_hours, "share_of_peak": p.share, "padded_share_of_peak": p.padded_share}
        for p in published()
    ]
    return {
        "device": asdict(device),
        "share_of_peak": share,
        "headroom": HEADROOM,
        "rows": data.rows,
        "pairs": data.pairs,
        "mean_tokens": data.mean,
        "stages": rows,
        "published": theirs,
    }
