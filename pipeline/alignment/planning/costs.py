"""What passes through language models take: operations, time, memory.

Formulas of the layers' passes are the reward models' (`pipeline.reward_model.planning.plan`); here is what a language head and sampling add.
N is the number of weights that multiply in the layers and that a token meets, V the vocabulary, h the width, d the width of attention, k that
of keys, L the layers. Operations:

    head, a predicted token     2 V h forward, 4 V h backward; 2 V h backward where it is frozen, as with LoRA
    TRL's fused head            2 V h more backward: it keeps no logits, and computes them again (TRL 1.16, kernels/chunked_logprob.py). On an
                                accelerator it predicts only the tokens that count, on a CPU all, as PPO and SteerLM 2.0 do
    gradient checkpointing      a forward pass of the layers more, but for each one's last map (27 % of Llama 3 70B's), which isn't needed
    sampling a token after s    2 N + 2 V h + 4 L d s, with keys and values kept. A prompt is read as in a forward pass, and only its last
                                token predicts; the last token of a response is never read

Sampling takes as long as its operations or as what it reads of memory, whichever is longer. A step of decoding reads all weights that multiply,
once for the batch, and the keys and values of each conversation, 2 L k numbers a token:

    seconds = max(operations / (peak x share of peak), bytes / (bandwidth x share of bandwidth))

vLLM puts the next request in the place of a response that has ended, and reads weights in the type that it serves in. The trainer's own sampler
(PPO, RLOO, what is watched) goes on with a batch until its longest response ends, which is taken for one of the largest length. Under
autocast it reads bfloat16 weights, which are made once a batch; of frozen weights no copy is kept, so that each step reads 4 bytes a weight,
writes 2, and reads 2. It lengthens keys and values by copying them: read, written, read (transformers' DynamicCache). What a step takes
besides, such as starting its kernels, is not counted: of a small model or a small batch it is most.

Bytes of memory beside the reward models' formulas:

    TRL's fused head            a tile of logits (4,096 tokens x 32,768 of the vocabulary), under autocast so much of the head in bfloat16, and
                                gradients in float32: 4 h a token, and 4 V h of the head before they are added to the others
    SteerLM 2.0, and            12 V a token of a pass: logits, their quotient by the temperature, log-softmax; in the backward pass
    log-probabilities           log-softmax and two gradients
    PPO                         the larger of 2 V (float32: 4 V) a token of a pass with 10 V a token of a response, and 16 V a token of a
                                response; with an entropy bonus 28 V
    sampling by the trainer     keys and values of the batch, and 20 V a conversation, as tokens are drawn in float64
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, Self

import numpy as np

from pipeline.alignment.planning.data import Lengths, Texts
from pipeline.reward_model.planning.plan import HEADROOM, Memory, forward, held
from pipeline.reward_model.planning.published import Device
from pipeline.reward_model.planning.shapes import MIXTURES, PlanError, Shape
from pipeline.settings import Lora

SHARE_OF_BANDWIDTH = 0.6
"""Share of the memory's bandwidth that decoding is taken to reach. Assumed, as nothing of this size has been measured here."""
ENGINE_MEMORY = 0.92
"""Share of a GPU's memory that vLLM takes (vLLM 0.32, `CacheConfig.gpu_memory_utilization`)."""
LARGE_DEVICE, ENGINE_REQUESTS = 70 * 2**30, {True: 1024, False: 256}
"""Requests that vLLM has in work at a time: on a device of at least so many bytes that is no A100, and on another (vLLM 0.32,
`EngineArgs.get_batch_defaults`)."""
TOKENS_AT_ONCE, WATCHED_PROMPTS, WATCHED_TOKENS, TOKENS_A_BATCH = 32768, 4, 96, 4096
"""Those of `pipeline.alignment.sampler` and `watching`, which need torch, and of `pipeline.models.batching`."""
NORMED = ("gemma2", "gemma3_text", "olmo2")
"""Kinds of models whose layers have a norm after the MLP."""
TILE_TOKENS, TILE_VOCABULARY = 4096, 32768
"""Of TRL's fused head: TRL 1.16, `kernels/chunked_logprob.py` and `trainer/utils.py`."""


# ------------------------------------------------------------------------------------------------------------------------------ models


@dataclass(frozen=True)
class Model:
    """A model that texts go through: its shape, the width of its head, whether that is the matrix of embeddings, and adapters."""

    shape: Shape
    outputs: int
    tied: bool = False
    lora: Lora | None = None

    @classmethod
    def language(cls, shape: Shape, lora: Lora | None = None) -> Self:
        """A policy."""
        return cls(shape, shape.vocabulary, shape.tied, lora)

    @property
    def plain(self) -> Self:
        """Without adapters."""
        return replace(self, lora=None)

    def giving(self, outputs: int) -> Self:
        """With a head of so many outputs."""
        return replace(self, outputs=outputs)

    @property
    def adapters(self) -> int:
        """Weights of the adapters."""
        return self.shape.adapters(self.lora) if self.lora else 0

    @property
    def parameters(self) -> int:
        """All weights."""
        return self.shape.parameters(0 if self.tied else self.outputs) + self.adapters

    @property
    def trained(self) -> int:
        """Weights that are trained: a policy's head is not, where there are adapters."""
        return self.adapters or self.parameters

    @property
    def multiplying(self) -> int:
        """Weights that multiply, the head's among them."""
        return self.shape.multiplying(self.outputs) + self.adapters

    def forward(self, texts: Texts) -> float:
        """Operations of a forward pass."""
        met = self.shape.met(0) + (self.shape.met_adapters(self.lora) if self.lora else 0)
        return forward(self.shape, met, texts.tokens, texts.squares) + self._head(texts)

    def backward(self, texts: Texts, fused: bool) -> float:
        """Operations of a backward pass. fused: the head is TRL's."""
        shape = self.shape
        met = 2 * shape.met(0) + (4 * shape.met_adapters(self.lora) if self.lora else 2 * shape.met(0))
        head = (1 if self.lora else 2) + fused
        return met * texts.tokens + 8 * shape.layers * shape.attention * texts.squares + head * self._head(texts)

    def again(self, texts: Texts) -> float:
        """Operations of what gradient checkpointing computes again: the layers, up to the last that a backward pass needs.

        torch stops where all is there that had been kept: before a layer's last map, where neither a norm nor the sum over experts follows it.
        """
        shape, last = self.shape, self.shape.matrices[-1]
        spared = 0 if shape.kind in (*MIXTURES, *NORMED) else 2 * shape.layers * last.weights * texts.tokens
        return self.forward(texts._replace(predicted=0.0)) - spared

    def _head(self, texts: Texts) -> float:
        return 2.0 * self.outputs * self.shape.width * texts.predicted

    def cached(self, size: int) -> int:
        """Bytes of a token's keys and values, in numbers of `size` bytes."""
        return 2 * self.shape.layers * self.shape.keys * size


# ---------------------------------------------------------------------------------------------------------------------------- machines


@dataclass(frozen=True)
class Machine:
    """A device, and the shares of its peak and of its memory's bandwidth that are reached. Raises PlanError for what are no shares."""

    device: Device
    share: float
    bandwidth_share: float = SHARE_OF_BANDWIDTH

    def __post_init__(self) -> None:
        for option, share in (("--share", self.share), ("--bandwidth-share", self.bandwidth_share)):
            if not 0 < share <= 1:
                raise PlanError(f"{option} {share:g}: must be above 0 and at most 1")

    @property
    def fuses(self) -> bool:
        """Whether TRL's head predicts only the tokens that count: it does where it has Triton."""
        return self.device.name.lower() != "cpu"

    def hours(self, operations: float, precision: str) -> float:
        """Hours of one device for operations in a precision."""
        return operations / (3600 * self.share * self._peak(precision))

    def decoding_hours(self, operations: float, precision: str, read: float) -> float:
        """Hours of one device for operations beside which so many bytes are read of memory."""
        if self.device.bandwidth is None:
            raise PlanError(
                f"device {self.device.name}: the bandwidth of its memory isn't known; give it with --bandwidth-gbs"
            )
        return max(self.hours(operations, precision), read / (3600 * self.bandwidth_share * self.device.bandwidth))

    def _peak(self, precision: str) -> float:
        return self.device.float32 if precision == "float32" else self.device.bfloat16

    @property
    def requests(self) -> int:
        """Requests that vLLM has in work at a time."""
        device = self.device
        return ENGINE_REQUESTS[device.memory >= LARGE_DEVICE and not device.name.upper().startswith("A100")]


def size_of(precision: str) -> int:
    """Bytes of a number."""
    return 4 if precision == "float32" else 2


# ---------------------------------------------------------------------------------------------------------------------------- sampling


class Sampling(NamedTuple):
    """Sampled responses: tokens that go through the model, prompts among them, operations, hours of one device, and what it holds besides weights.

    held: bytes of keys and values, and of what tokens are drawn from.
    """

    tokens: float
    operations: float
    hours: float
    held: float


def _read_and_written(model: Model, lengths: Lengths, responses: float) -> tuple[Texts, Texts, float]:
    """What is read of prompts, what is fed token by token afterwards, and the tokens whose keys and values are looked at by the latter, added up."""
    prompt, fed = lengths.prompt, np.maximum(lengths.response[:, 0] - 1, 0)
    before = fed * prompt + fed * (fed + 1) / 2
    read, squares, count, seen = (responses * float(x.mean()) for x in (prompt, prompt**2, fed, before))
    return Texts(read, squares, responses), Texts(count, seen, count), seen


def by_engine(
    model: Model, lengths: Lengths, responses: float, precision: str, machine: Machine, gpus: int
) -> Sampling:
    """Responses by vLLM, on `gpus` devices that share the weights: as many at a time as it allows, and as their keys and values have room for.

    A prompt is read anew for each of its responses; prefix caching, which is on, may spare all but the first. Keys and values have what a GPU's
    memory leaves them; on a CPU vLLM gives them the profile's `kv_cache_gib` instead, which is not looked at here.
    """
    size = size_of(precision)
    read, fed, seen = _read_and_written(model, lengths, responses)
    weights, each = model.multiplying * size, model.cached(size) * float(lengths.whole[:, 0].mean())
    room = gpus * ENGINE_MEMORY * machine.device.memory - model.parameters * size
    at_once = max(1.0, min(machine.requests, responses, room // each))
    traffic = math.ceil(fed.tokens / at_once) * weights + seen * model.cached(size)
    first, rest = model.forward(read), model.forward(fed)
    hours = machine.hours(first, precision) + machine.decoding_hours(rest, precision, traffic)
    return Sampling(read.tokens + fed.tokens, first + rest, hours, at_once * each)


def by_trainer(
    model: Model, lengths: Lengths, responses: float, most: int, precision: str, machine: Machine
) -> Sampling:
    """Responses by the sampler that is part of training, in batches of prompts that fit TOKENS_AT_ONCE with `most` tokens more."""
    size = size_of(precision)
    longest = replace(lengths, response=np.full_like(lengths.response, most))
    read, fed, seen = _read_and_written(model, longest, responses)
    each = float(lengths.prompt.mean()) + most
    at_once = min(responses, max(1.0, TOKENS_AT_ONCE // each))
    weights = model.multiplying * size
    if model.lora and precision != "float32":
        weights += (4 + size) * (model.multiplying - model.adapters)
    traffic = math.ceil(responses / at_once) * (most - 1) * weights + 3 * seen * model.cached(size)
    first, rest = model.forward(read), model.forward(fed)
    hours = machine.hours(first, precision) + machine.decoding_hours(rest, precision, traffic)
    drawn = at_once * (each * model.cached(size) + 20 * model.outputs)
    return Sampling(read.tokens + fed.tokens, first + rest, hours, drawn)


# ------------------------------------------------------------------------------------------------------------------------------ memory


class Need(NamedTuple):
    """What a process needs of each of its devices: see `Memory`, whose activations have the logits and what sampling holds in them."""

    process: str
    memory: Memory
    logits: float
    sampling: float


def training(
    models: Sequence[Model],
    frozen: int,
    tokens: int,
    precision: str,
    checkpointing: bool,
    logits: float,
    sampling: float,
    device: Device,
) -> Need:
    """The process that trains models, each in turn, in passes of so many tokens.

    frozen: weights that stand beside them, in float32; logits: bytes of the first model's; sampling: bytes that its sampling holds, while no pass
    does. States and what layers keep are those of `pipeline.reward_model.planning.plan.memory`; so is what several devices would each have
    whole, for which autocast's cache is taken to be off with gradient checkpointing.
    """
    states = sum(4.0 * m.parameters + 12.0 * m.trained for m in models) + 4.0 * frozen
    copied = 2 if precision == "bfloat16" else 0

    def kept(model: Model) -> float:
        shape, layer = model.shape, model.shape.kept(precision)
        a_token = 4 * shape.width * shape.layers + layer if checkpointing else layer * shape.layers
        return float(tokens * a_token)

    def gathered(model: Model) -> float:
        shape, head = model.shape, 0 if model.tied else model.outputs
        layers = 2 * copied * shape.layer if checkpointing else copied * model.multiplying
        return float(4 * (shape.vocabulary + 1 + head) * shape.width + 2 * 4 * shape.layer + layers)

    passes = [kept(model) + (logits if n == 0 else 0.0) for n, model in enumerate(models)]
    alone = max(float(copied * model.multiplying) for model in models)
    most = max(*passes, sampling)
    return Need("training", held(states, alone, max(map(gathered, models)), most, device), logits, sampling)


def fused_logits(model: Model, tokens: int, precision: str) -> float:
    """Bytes that TRL's head takes beside what the layers keep, of a pass of so many tokens."""
    size, width, some = size_of(precision), model.shape.width, min(model.outputs, TILE_VOCABULARY)
    tile = min(tokens, TILE_TOKENS) * some * size + (some * width * size if precision != "float32" else 0)
    return float(tile + 4 * width * tokens + (0 if model.lora else 4 * model.outputs * width))


def ppo_logits(model: Model, tokens: int, share: float, precision: str, entropy: bool) -> float:
    """Bytes of the logits in PPO's pass of so many tokens, of which responses are a share."""
    return model.outputs * tokens * max(size_of(precision) + 10 * share, (28 if entropy else 16) * share)


def whole_logits(model: Model, tokens: int) -> float:
    """Bytes of the logits where log-probabilities of all tokens of a pass are computed: SteerLM 2.0's, and those without gradients."""
    return 12.0 * model.outputs * tokens


def reading(process: str, model: Model, logits: float, device: Device) -> Need:
    """A process that only reads, in float32, with all weights on one device: it is not sharded."""
    states, layer = 4.0 * model.parameters, float(TOKENS_A_BATCH * model.shape.kept("float32"))
    fits = states + layer + logits <= (1 - HEADROOM) * device.memory
    return Need(process, Memory(1 if fits else None, states, 0.0, layer + logits), logits, 0.0)


def engine(model: Model, precision: str, least: int, context: int, device: Device) -> tuple[Need, int]:
    """VLLM's process, and its devices: the fewest that share the heads evenly, but at least `least`, that hold the weights and one whole context.

    It takes what is left of its share of memory for keys and values.
    """
    weights, one = float(size_of(precision) * model.parameters), float(model.cached(size_of(precision)) * context)
    room, heads = ENGINE_MEMORY * device.memory, model.shape.heads
    gpus = next((n for n in range(least, heads + 1) if not heads % n and weights + one <= n * room), None)
    shared = gpus or max(least, heads)
    cache = room - weights / shared if gpus else one / shared
    return Need("engine", Memory(gpus, weights / shared, 0.0, cache), 0.0, cache), shared
