"""What methods are put together of: models, samples and their rewards, passes, and looks at a policy while it trains and afterwards."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, get_args

from pipeline.alignment.planning import costs
from pipeline.alignment.planning.costs import Machine, Model, Need
from pipeline.alignment.planning.data import Data, Lengths, Texts, tokens_of
from pipeline.alignment.steerlm import LEVELS, policy_levels
from pipeline.models.conditions import system_message
from pipeline.reward_model.planning.plan import precision_on
from pipeline.reward_model.planning.published import GPUS_A_NODE
from pipeline.reward_model.planning.shapes import PlanError, shape_of
from pipeline.settings import (
    Alignment,
    Checkpoint,
    Lora,
    Method,
    Profile,
    Rewarded,
    Samples,
    Tuning,
)
from pipeline.vocabulary import Attribute

Work = Literal["sampling", "scoring", "reading", "training", "again", "evaluations", "judging"]
WORK: tuple[Work, ...] = get_args(Work)
"""Kinds of work: samples to train on or to choose from; their rewards; log-probabilities and values without gradients; forward and backward passes;
layers that gradient checkpointing computes again; held-out loss and samples while a method trains; `policy_rewards` afterwards."""
SCORED_IN = "float32"
"""What reward models score in, and what the log-probabilities of `policy_rewards` are computed in."""


@dataclass(frozen=True)
class Cost:
    """Tokens that go through models (once a forward pass), operations, and hours of one device."""

    tokens: float = 0.0
    operations: float = 0.0
    gpu_hours: float = 0.0

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(self.tokens + other.tokens, self.operations + other.operations, self.gpu_hours + other.gpu_hours)

    def times(self, factor: float) -> "Cost":
        """So many times as much."""
        return Cost(factor * self.tokens, factor * self.operations, factor * self.gpu_hours)


@dataclass(frozen=True)
class MethodPlan:
    """What a method takes; also what all methods share.

    units: conversations, pairs or prompts that are trained on; parameters, trained: of the policy; sampled: tokens of responses that are trained on
    or chosen from, at most `sampled_most`; learned: tokens with a loss, as often as they are trained on; needs: of every process; notes: what the
    profile has to have besides.
    """

    name: str
    kind: str = ""
    unit: str = ""
    units: int = 0
    steps: int = 0
    parameters: int = 0
    trained: int = 0
    sampled: float = 0.0
    sampled_most: float = 0.0
    learned: float = 0.0
    costs: Mapping[Work, Cost] = field(default_factory=dict)
    needs: tuple[Need, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def total(self) -> Cost:
        """Of all work."""
        return sum(self.costs.values(), Cost())

    @property
    def node_hours(self) -> float:
        """Hours of a node of eight devices."""
        return self.total.gpu_hours / GPUS_A_NODE

    def beside(self, other: "MethodPlan") -> "MethodPlan":
        """With another's samples, costs, needs and notes."""
        works = [work for work in WORK if work in self.costs or work in other.costs]
        return replace(
            self,
            sampled=self.sampled + other.sampled,
            sampled_most=self.sampled_most + other.sampled_most,
            costs={work: self.costs.get(work, Cost()) + other.costs.get(work, Cost()) for work in works},
            needs=(*other.needs, *self.needs),
            notes=tuple(dict.fromkeys((*other.notes, *self.notes))),
        )


@dataclass(frozen=True)
class Sampled:
    """Samples of a policy to so many prompts. asked: lengths with the policy's levels in the prompts; plain: without them."""

    prompts: int
    responses: int
    asked: Lengths
    plain: Lengths
    plan: MethodPlan


class Parts:
    """What a profile's methods are put together of, on a machine."""

    def __init__(self, profile: Profile, data: Data, machine: Machine, per_token: float) -> None:
        """per_token: characters. Raises PlanError for a profile that aligns nothing."""
        self.wanted, self.data, self.machine = alignment_of(profile), data, machine
        self._profile, self._tokens = profile, tokens_of(per_token)

    # --------------------------------------------------------------------------------------------------------------- models and lengths

    def policy(self, name: str, lora: Lora | None = None) -> Model:
        """The policy of a method, or a checkpoint before any. Raises PlanError for an encoder."""
        shape = shape_of(self.checkpoint(name), self._base(name))
        if shape.pooler:
            raise PlanError(f"checkpoint {self._base(name)}: {shape.kind} is an encoder, which writes no responses")
        return Model.language(shape, lora)

    def checkpoint(self, name: str) -> Checkpoint:
        """The checkpoint that a method's policy comes from, or the one of the name."""
        return self._profile.checkpoints[self._base(name)]

    def _base(self, name: str) -> str:
        return self.wanted.base_of(name) if name in self.wanted.methods else name

    def rewards(self, recipe: str | None = None) -> Model:
        """The reward model of a recipe, else of the one that gives rewards. A probe is taken for all layers that its recipe allows it."""
        settings = self._profile.recipes[recipe or self.wanted.recipe]
        shape = shape_of(self._profile.checkpoints[settings.base], settings.base)
        layers = min(settings.layers or shape.layers, shape.layers)
        return Model(replace(shape, layers=layers), len(settings.outputs))

    def watching(self, method: Method) -> int:
        """Weights of the reward model that is loaded to look at a method's policy."""
        return self.rewards().parameters if isinstance(method, Rewarded) else 0

    def precision(self, method: Tuning) -> str:
        """What a method computes in."""
        return precision_on(self.machine.device, method.precision)

    def split(self, count: int) -> tuple[int, int]:
        """How many of so many are trained on, and how many held out."""
        held_out = round(self.wanted.held_out_share * count)
        return count - held_out, held_out

    def asking(self, name: str) -> float:
        """Tokens of the message by which a policy is asked for levels; 0 where it is asked for none."""
        levels = self._levels(name)
        return float(self._tokens(system_message(None, levels))) if levels else 0.0

    def _levels(self, name: str) -> dict[Attribute, int]:
        if name not in self.wanted.methods:
            return {}  # a checkpoint
        return policy_levels(self.wanted, name, self._profile.recipes[self.wanted.recipe].outputs, self.wanted.recipe)

    # ----------------------------------------------------------------------------------------------------------------------------- passes

    def read(self, model: Model, texts: Texts, precision: str) -> Cost:
        """A forward pass."""
        operations = model.forward(texts)
        return Cost(texts.tokens, operations, self.machine.hours(operations, precision))

    def learn(self, model: Model, texts: Texts, precision: str, fused: bool) -> Cost:
        """A forward and a backward pass. fused: by TRL's head."""
        operations = model.forward(texts) + model.backward(texts, fused)
        return Cost(texts.tokens, operations, self.machine.hours(operations, precision))

    def again(self, method: Tuning, model: Model, texts: Texts, precision: str) -> Cost:
        """What a method's gradient checkpointing computes again; nothing without it."""
        if not method.gradient_checkpointing:
            return Cost()
        operations = model.again(texts)
        return Cost(texts.tokens, operations, self.machine.hours(operations, precision))

    def score(self, rewards: Model, texts: Texts) -> Cost:
        """A reward model's outputs."""
        return self.read(rewards, texts.everywhere, SCORED_IN)

    def by_trl(self, texts: Texts) -> Texts:
        """What TRL's head predicts: the tokens that count, or all."""
        return texts if self.machine.fuses else texts.everywhere

    # ---------------------------------------------------------------------------------------------------------------------------- samples

    def sampled(self, name: str, start: str, samples: Samples, there: int) -> Sampled:
        """Samples that a method draws, by vLLM, from the policy `start`, to as many prompts of those that are there as it wants, and their rewards.

        Prompts that leave no room for a response in the model's context are refused. Raises PlanError where none is left.
        """
        most, checkpoint, device = samples.sampling.max_tokens, self.checkpoint(start), self.machine.device
        policy, levels = self.policy(start), self.asking(start)
        fitting, share = self.data.learned.asked(levels).leaving(checkpoint.max_context - most, name)
        prompts = round(min(samples.prompts, there) * share)
        if not prompts:
            raise PlanError(
                f"{name}: there is no prompt to sample responses to; give more, or change alignment.held_out_share"
            )
        asked, responses = fitting.answered(most), prompts * samples.responses
        precision = precision_on(device, checkpoint.dtype)
        memory, gpus = costs.engine(policy, precision, checkpoint.tensor_parallel, checkpoint.max_context, device)
        drawn = costs.by_engine(policy, asked, responses, precision, self.machine, gpus)
        rewards, plain = self.rewards(), asked.asked(-levels)
        notes: tuple[str, ...] = ()
        if memory.memory.gpus and gpus > checkpoint.tensor_parallel:
            notes = (
                f"checkpoint {self._base(start)}: tensor_parallel is {checkpoint.tensor_parallel}, and vLLM needs {gpus} devices for it",
            )
        plan = MethodPlan(
            name,
            sampled=responses * float(asked.response.mean()),
            sampled_most=float(responses * most),
            costs={
                "sampling": Cost(drawn.tokens, drawn.operations, drawn.hours),
                "scoring": self.score(rewards, plain.texts(responses)),
            },
            needs=(memory, self.scorer(rewards)),
            notes=notes,
        )
        return Sampled(prompts, samples.responses, asked, plain, plan)

    def scorer(self, rewards: Model) -> Need:
        """The process that scores."""
        return costs.reading("reward model", rewards, 0.0, self.machine.device)

    def watched(self, name: str, policy: Model, method: Tuning, looks: int) -> Cost:
        """Samples to a few held-out prompts, so many times, and their rewards where the method has them."""
        count = min(costs.WATCHED_PROMPTS, self.split(self.data.prompts)[1])
        if not count:
            return Cost()
        most = costs.WATCHED_TOKENS
        lengths = self.data.learned.asked(self.asking(name)).answered(most)
        one = costs.by_trainer(policy, lengths, count, most, self.precision(method), self.machine)
        found = Cost(one.tokens, one.operations, one.hours)
        if isinstance(method, Rewarded):
            found += self.score(self.rewards(), lengths.texts(count))
        return found.times(looks)

    @property
    def bases(self) -> list[str]:
        """Checkpoints that methods start from, and whose rewards stand beside theirs: those that have a chat template."""
        found = dict.fromkeys(map(self.wanted.base_of, self.wanted.methods))
        return [base for base in found if self.checkpoint(base).chat_template == "tokenizer"]

    def judged(self, name: str) -> MethodPlan:
        """`policy_rewards` of a policy, or of a checkpoint before any; nothing where a profile compares none.

        Samples to held-out prompts, their rewards by both reward models, and log-probabilities by the policy and the one that it started from;
        of a policy that is asked for levels samples at each level, and their rewards.
        """
        if self.wanted.evaluated is None:
            return MethodPlan(name)
        policy, policies = self.policy(name), [name]
        if name in self.wanted.methods:
            base = self.wanted.base_of(name)
            policies += self.wanted.starts_of(name)[:1] or ([base] if base in self.bases else [])
        found = self.sampled(name, name, self.wanted.evaluated, self.split(self.data.prompts)[1])
        responses = found.prompts * found.responses
        cost, needs = found.plan.total, list(found.plan.needs)
        if self.wanted.second:
            second = self.rewards(self.wanted.second)
            cost += self.score(second, found.plain.texts(responses))
            needs.append(self.scorer(second)._replace(process="second reward model"))
        for one in policies:
            cost += self.read(policy, found.plain.asked(self.asking(one)).texts(responses).everywhere, SCORED_IN)
        steered = LEVELS * len(self._levels(name).keys() & set(self.wanted.steered))
        if steered:
            each = self.wanted.evaluated.model_copy(update={"responses": steered})
            cost += self.sampled(name, name, each, self.split(self.data.prompts)[1]).plan.total
        logits = costs.whole_logits(policy, costs.TOKENS_A_BATCH)
        needs.append(costs.reading("log-probabilities", policy, logits, self.machine.device))
        return MethodPlan(name, costs={"judging": cost}, needs=tuple(needs), notes=found.plan.notes)


def alignment_of(profile: Profile) -> Alignment:
    """The section of a profile. Raises PlanError where it has none."""
    if profile.alignment is None:
        raise PlanError(f"profile {profile.name} aligns nothing: it has no section `alignment`")
    return profile.alignment
