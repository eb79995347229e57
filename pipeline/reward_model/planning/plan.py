"""What a recipe's training takes, before anything runs: steps, tokens, operations, memory, GPUs, hours. Loads no weights, and no torch.

Operations are multiplications and additions, each counted. N is the number of weights that multiply and that a token meets (embeddings are
looked up, norms and biases are left out, as in Kaplan et al., arXiv 2001.08361, section 2.1; of a mixture's experts those count that a token
is sent to), d the width of attention (heads x head size), L the layers:

    forward                            2 N + 4 L d s   a token in a conversation of s tokens
    forward and backward               6 N + 12 L d s  (PaLM, arXiv 2204.02311, appendix B; all of attention's square, not its causal half)
    gradient checkpointing             a forward more  (Megatron, arXiv 2104.04473, section 5.1: 96 instead of 72 B s l h^2)
    LoRA, A weights of adapters        4 N + 6 A + 12 L d s: a frozen weight has no gradient of its own (the head counts among A)
    head's start, probe, evaluations   forwards; the published model is evaluated once more, as it was written

Memory of a GPU, in bytes, as training has it: master weights and gradients in float32, AdamW's two states in float32 (16 a trained weight; 4
a frozen one), all sharded over the GPUs (ZeRO, arXiv 1910.02054, stage 3), and what one forward pass keeps for its backward pass, which isn't.
That is counted as Korthikanti et al. do (arXiv 2205.05198, section 4), tensor by tensor, but for this model and precision instead of
GPT's: a token and layer keep 26 h + 8 f + 4 (q + k + heads) + 8 under bfloat16 autocast, 24 h + 16 f + 8 (q + k) + 4 heads + 8 in float32
(h: width; f: width of the MLP; q, k: width of queries, and of keys), and no attention scores. That is exact for Llama's kind; other families
are taken for it, a mixture with the experts that a token is sent to for its MLP. With gradient checkpointing every layer
keeps its input, 4 h, and one layer at a time all of it.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.models.batching import plan_steps
from pipeline.reward_model.planning.published import DEVICES, GPUS_A_NODE, Device, published
from pipeline.reward_model.planning.shapes import PROBED, PlanError, Shape, shape_of
from pipeline.settings import Profile, Recipe

SHARE_OF_PEAK = 0.4
"""Share of peak that is assumed: Llama 3's pre-training reached 38 to 43 % on H100s (arXiv 2407.21783, table 4). Short conversations reach less."""
HEADROOM = 0.1
"""Share of a GPU's memory that is left to CUDA, communication and fragmentation. Assumed."""


# ----------------------------------------------------------------------------------------------------------------------------- devices


def device_of(
    name: str,
    bfloat16: float | None = None,
    float32: float | None = None,
    memory: float | None = None,
    bandwidth: float | None = None,
) -> Device:
    """A device of DEVICES, or `cpu`, or any other with figures of its own: teraFLOPS (measured, say), GB of memory, and GB a second.

    What is given replaces the data sheet's. Raises PlanError where a figure is missing; only the last one need not be there.
    """
    given = (bfloat16, float32, memory)
    if any(value is not None and not value > 0 for value in given):
        raise PlanError(f"device {name}: peaks and memory must be above 0")
    if bandwidth is not None and not bandwidth > 0:
        raise PlanError(f"device {name}: its bandwidth must be above 0")
    known = DEVICES.get(name.upper())
    if known:
        sheet = (known.bfloat16, known.float32, known.memory)
    elif None in given:
        raise PlanError(
            f"the device {name!r} is not known (known are {', '.join(DEVICES)}); give its peaks with --peak-tflops and --float32-tflops, "
            "and its memory with --memory-gb"
        )
    else:
        sheet = (0.0, 0.0, 0.0)
    scaled = [s if v is None else v * scale for v, s, scale in zip(given, sheet, (1e12, 1e12, 1e9), strict=True)]
    read = bandwidth * 1e9 if bandwidth else known.bandwidth if known else None
    return replace(Device(known.name if known else name, *scaled), bandwidth=read)


def precision_on(device: Device, wanted: str) -> str:
    """The type that is computed in: what is wanted, or for `auto` the one that the device is faster in, bfloat16 or float32."""
    if wanted != "auto":
        return wanted
    return "bfloat16" if device.bfloat16 > device.float32 else "float32"


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
                "there is nothing to train on; give a file, or --rows or --pairs together with --mean-tokens"
            )
        if not mean > 0:
            raise PlanError(
                "--mean-tokens: must be above 0; it is the mean number of tokens of a conversation with its response"
            )
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
    memory: Memory
    gpu_hours: float

    @property
    def operations(self) -> float:
        """All operations."""
        return self.training + self.recomputed + self.head_start + self.evaluation

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
        raise PlanError(f"--share {share:g}: the share of peak must be above 0 and at most 1")
    found = []
    for name in names:
        if name not in profile.recipes:
            raise PlanError(f"profile {profile.name} has no recipe {name}; it has: {', '.join(profile.recipes)}")
        recipe = profile.recipes[name]
        recipe = recipe.model_copy(update={"precision": precision_on(device, recipe.precision)})
        shape = shape_of(profile.checkpoints[recipe.base], recipe.base)
        if shape.kind in PROBED and recipe.objective != "probe":
            raise PlanError(
                f"recipe {name}: {recipe.base} can't be trained, for transformers has no class for sequence classification with "
                f"{shape.kind}; take objective: probe, or a base model of another family"
            )
        if recipe.layers:
            if recipe.layers > shape.layers:
                raise PlanError(
                    f"recipe {name}: layers: {recipe.layers} are asked for, but {recipe.base} has only {shape.layers}"
                )
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
    every = shape.met(outputs)
    adapters = shape.met_adapters(recipe.lora) if recipe.lora else 0
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
            f"recipe {name}: its stage {recipe.objective} needs {what}; give {option}, or a file that has them"
        )
    held_out = round(recipe.development_share * units)
    ours = units - held_out
    if not ours:
        raise PlanError(f"recipe {name}: its development_share leaves nothing of {units} to train on; lower it")
    lengths = data.pair_lengths if recipe.pairs else data.row_lengths
    cut = np.minimum(np.full((1, wide), data.mean) if lengths is None else lengths.reshape(-1, wide), recipe.max_tokens)
    tokens, squares = ours * wide * float(cut.mean()), ours * wide * float((cut**2).mean())
    probe = recipe.objective == "probe"
    epochs = 0 if probe else recipe.epochs
    steps = -(-ours // recipe.batch_size) * epochs
    evaluations = (0 if probe else steps // -(-steps // recipe.evaluations) + 1) + last  # the published model once more
    outputs = 1 if recipe.pairs else len(recipe.attributes)
    every = shape.met(outputs)
    adapters = shape.adapters(recipe.lora) if recipe.lora else 0
    met = every + (shape.met_adapters(recipe.lora) if recipe.lora else 0)
    once = forward(shape, met, tokens, squares)
    start = forward(shape, every, tokens, squares) if probe or (first and recipe.head == "ridge") else 0.0
    start *= units / ours if probe else 1  # which reads the development rows along
    training = epochs * (once + backward(shape, recipe, outputs, tokens, squares))
    recomputed = epochs * once if recipe.gradient_checkpointing else 0.0
    evaluation = evaluations * once * held_out / ours
    parameters = shape.parameters(outputs)
    trained = 0 if probe else adapters + shape.head(outputs) if recipe.lora else parameters
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
        memory=memory(shape, recipe, outputs, trained, longest * wide, device),
        gpu_hours=(training + recomputed + start + evaluation) / (3600 * share * peak),
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
    gathered = 4 * (shape.vocabulary + 1 + outputs) * shape.width + 2 * 4 * shape.layer
    whole = float(gathered + (2 * copied * shape.layer if recipe.gradient_checkpointing or not trained else copies))
    return held(states, copies, whole, activations, device)


def held(states: float, alone: float, whole: float, activations: float, device: Device) -> Memory:
    """Bytes on the fewest GPUs that hold them, of each of which HEADROOM stays free.

    states: sharded over the GPUs; alone, whole: what is there whole beside them on a single GPU, and on each of several.
    """
    room = (1 - HEADROOM) * device.memory
    if states + alone + activations <= room:
        return Memory(1, states, alone, activations)
    if whole + activations >= room:
        return Memory(None, states, whole, activations)
    gpus = max(2, math.ceil(states / (room - whole - activations)))
    return Memory(gpus, states / gpus, whole, activations)


# ------------------------------------------------------------------------------------------------------------------------- published


def reported(stages: Sequence[Stage], device: Device, share: float, data: Data) -> dict[str, Any]:
    """All figures as one JSON object: operations, bytes and hours, unrounded."""
    rows = [asdict(s) | {"operations": s.operations, "node_hours": s.node_hours} for s in stages]
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
