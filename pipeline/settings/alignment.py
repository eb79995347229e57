"""Settings of alignment: the methods by which policies are tuned with the rewards, one policy each."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from pipeline.settings.checkpoints import Sampling
from pipeline.settings.prompts import Source
from pipeline.settings.recipes import Lora
from pipeline.settings.section import Name, Section, Share
from pipeline.settings.training_data import COLLECTED
from pipeline.vocabulary import Attribute

Level = Annotated[int, Field(ge=0, le=4)]
Origin = Literal["data", "conversations"]
"""What there is to tune on: rated responses and pairs, or conversations without ratings."""
ON_CONVERSATIONS = ("sft", "iterative_dpo", "best_of_n", "steerlm", "steerlm2")
"""Methods that take conversations where a profile has any and nothing else is said, as the original's did (HelpSteer2, appendix H)."""


class FromOrigin(Section):
    """What every method says of where its conversations or prompts come from."""

    origin: Literal["auto", "data", "conversations"] = Field(
        "auto",
        description="what it learns from, or draws its prompts from: `data` or `conversations`; auto: sft, iterative_dpo, best_of_n, steerlm and "
        "steerlm2 take the conversations where the profile has any, the others the data",
    )


class Tuning(FromOrigin):
    """What every method that trains says: where it starts, and its optimisation by AdamW at a constant rate."""

    learning_rate: float = Field(gt=0, description="learning rate, constant after the warm-up")
    warmup_steps: int = Field(0, ge=0, description="steps until the learning rate is at its highest")
    weight_decay: float = Field(0.0, ge=0, description="AdamW's weight decay")
    batch_size: int = Field(ge=1, description="conversations, pairs or prompts in an optimiser step")
    micro_batch_tokens: int = Field(4096, ge=1, description="largest number of tokens in a forward pass")
    max_tokens: int = Field(
        4096, ge=8, description="largest number of tokens of a conversation; a longer one is left out"
    )
    evaluations: int = Field(4, ge=1, description="evaluations on the held-out prompts during training")
    precision: Literal["auto", "bfloat16", "float32"] = Field(
        "auto", description="type to compute in; auto: bfloat16 where the device has it, else float32"
    )
    lora: Lora | None = Field(None, description="low-rank adapters instead of all weights")
    gradient_checkpointing: bool = Field(
        False,
        description="compute activations again in the backward pass instead of keeping them: less memory, a third more time",
    )


class Samples(Section):
    """Responses that a method draws from its policy, by the engine of the responses stage."""

    prompts: int = Field(ge=1, description="number of prompts, drawn by the seed from what there is to tune on")
    responses: int = Field(10, ge=2, description="responses to each prompt")
    sampling: Sampling = Sampling(temperature=0.7, top_p=0.9)


class Begun(Tuning):
    """What methods say that start from a model of the profile, not from another method's policy."""

    checkpoint: Name = Field(description="model that it starts from, one of the profile's checkpoints")
    template: Literal["tokenizer", "chatml", "llama3"] = Field(
        "tokenizer",
        description="chat template that the policy is tuned with and keeps: the model's own, or, for a base model without one, ChatML's or "
        "Llama 3's, whose special tokens its tokenizer must have",
    )
    epochs: int = Field(2, ge=1, description="passes over the conversations")


class Sft(Begun):
    """Supervised fine-tuning on conversations, TRL's (`SFTTrainer`); original: 2 epochs at 2e-6, batch 384 (method H)."""

    kind: Literal["sft"]


class Paired(Tuning):
    """What methods say that learn from pairs of responses."""

    start: Name = Field(description="method whose policy it starts from, and that is the reference")
    beta: float = Field(1e-3, gt=0, description="weight of the KL divergence to the reference")
    losses: tuple[Literal["sigmoid", "sigmoid_norm", "hinge", "ipo", "sppo_hard", "aot", "apo_zero", "sft"], ...] = (
        Field(
            ("sigmoid",),
            min_length=1,
            description="losses of TRL's list that are added up; sigmoid_norm divides log-probabilities by a response's tokens",
        )
    )
    beyond: Share = Field(
        1.0,
        description="weight of the tokens of a response beyond the length of the shorter one of its pair: below 1, longer responses gain less by "
        "their length (LD-DPO, arXiv 2409.06411)",
    )


class Dpo(Paired):
    """Direct preference optimisation, TRL's (`DPOTrainer`); original: 7 epochs at 2e-7, beta 1e-3, batch 128 (method H)."""

    kind: Literal["dpo"]
    epochs: int = Field(7, ge=1, description="passes over the pairs")

    @model_validator(mode="after")
    def _has_pairs(self) -> Self:
        if self.origin == "conversations":
            raise ValueError(
                "origin: conversations have no pairs, which dpo learns; iterative_dpo makes pairs of samples"
            )
        return self


class IterativeDpo(Paired):
    """DPO on pairs of the policy's own samples, the best and the worst by the reward; original: 3 epochs at 9e-8, 20,000 prompts (method H)."""

    kind: Literal["iterative_dpo"]
    samples: Samples
    epochs: int = Field(3, ge=1, description="passes over the pairs of a round")


class Online(Tuning):
    """What methods say that sample from the policy as it is trained, and are rewarded for it."""

    start: Name = Field(description="method whose policy it starts from, and that is the reference")
    steps: int = Field(64, ge=1, description="rounds of sampling and training, `batch_size` prompts each")
    kl: float = Field(3e-3, ge=0, description="weight of the KL divergence to the reference in the reward")
    clip: float = Field(0.2, gt=0, lt=1, description="how far a probability ratio counts from 1")
    passes: int = Field(1, ge=1, description="times that a round's samples are trained on")
    temperature: float = Field(1.0, gt=0, le=2, description="temperature that is sampled at")
    max_new_tokens: int = Field(512, ge=1, description="largest number of tokens of a response")
    unended: float = Field(-1.0, description="standardised reward of a response that doesn't end")

    @model_validator(mode="after")
    def _leaves_room(self) -> Self:
        if self.max_new_tokens >= self.max_tokens:
            raise ValueError(
                f"max_new_tokens: {self.max_new_tokens} leaves no room for a prompt in max_tokens, {self.max_tokens}"
            )
        if self.gradient_checkpointing:
            raise ValueError(
                "gradient_checkpointing: is not had by a method that samples as it trains; lower micro_batch_tokens"
            )
        return self


class Ppo(Online):
    """Proximal policy optimisation, our own; original: 64 steps of 128 at 1e-7, KL 3e-3, lambda 0.95, gamma 1, clip 0.2 (method H, NeMo-Aligner)."""

    kind: Literal["ppo"]
    gae_lambda: Share = Field(0.95, description="lambda of generalised advantage estimation")
    gamma: Share = Field(1.0, description="discount of later rewards")
    value_clip: float = Field(0.2, gt=0, description="how far a value counts from the old one")
    value_learning_rate: float = Field(
        1e-6, gt=0, description="learning rate of the value model, which starts from the reward model"
    )
    entropy: float = Field(0.0, ge=0, description="weight of the policy's entropy")


class Rloo(Online):
    """REINFORCE with the other responses to a prompt for a baseline, TRL's (`RLOOTrainer`; arXiv 2402.14740): PPO's plain counterpart."""

    kind: Literal["rloo"]
    responses: int = Field(4, ge=2, description="responses to each prompt of a round")


class BestOfN(FromOrigin):
    """No training: of so many responses of a policy that with the highest reward, the yardstick of the others."""

    kind: Literal["best_of_n"]
    start: Name = Field(description="method whose policy is sampled")
    samples: Samples


class SteerLm(Begun):
    """Attribute-conditioned supervised fine-tuning on conversations that the reward model has rated (arXiv 2310.05344)."""

    kind: Literal["steerlm"]
    target: dict[Attribute, Level] = Field(
        {"helpfulness": 4, "correctness": 4, "coherence": 4, "complexity": 2, "verbosity": 2},
        description="levels that are asked for in use (HelpSteer2, section 4)",
    )


class SteerLm2(Tuning):
    """SteerLM 2.0, our own: the policy approaches P(y|a,x) as Bayes has it (HelpSteer2, appendix H; NeMo-Aligner); original: 2 epochs at 1e-7."""

    kind: Literal["steerlm2"]
    start: Name = Field(description="method of the kind steerlm or steerlm2, whose policy is sampled and trained on")
    unconditional: Name = Field(description="method of the kind sft whose policy is P(y|x)")
    samples: Samples
    epochs: int = Field(2, ge=1, description="passes over the prompts")
    concentration: float = Field(
        24.0, gt=0, description="alpha + beta of the Beta distribution of a rating, scaled to 0 to 1"
    )


Method = Annotated[Sft | Dpo | IterativeDpo | Ppo | Rloo | BestOfN | SteerLm | SteerLm2, Field(discriminator="kind")]


Sampled = IterativeDpo | SteerLm2
"""Methods that learn from samples of the policy that they start from, drawn before."""
Rewarded = IterativeDpo | Ppo | Rloo | SteerLm | SteerLm2
"""Methods that are trained with the rewards of a reward model."""


class Alignment(Section):
    """Policies tuned with the rewards of a recipe, one a method; the prompts of the data are disjoint from benchmarks and validation splits."""

    recipe: Name = Field(
        description="recipe whose reward model gives the rewards; it needs an exported model's weights of its outputs"
    )
    second: Name | None = Field(
        None, description="recipe whose reward model watches and is never trained against; null: nobody watches"
    )
    data: Name = Field(
        COLLECTED,
        description="what is tuned on: `collected`, which is this store's data set, or one of `training_data`; a prompt's best response is learned",
    )
    conversations: dict[Name, Source] = Field(
        {},
        description="conversations without ratings that are tuned on as well, by name: of all their assistant turns; of two equal ones that of the "
        "earlier source stays",
    )
    held_out_share: Share = Field(
        0.1, description="share of the prompts that policies are evaluated on, and never trained"
    )
    evaluated: Samples | None = Field(
        Samples(prompts=64, responses=2, sampling=Sampling(temperature=0.7, top_p=0.9)),
        description="samples of every policy on held-out prompts, whose rewards are compared; null: none, so that what is seen of a policy is what "
        "it wrote while it was trained",
    )
    steered: tuple[Attribute, ...] = Field(
        ("verbosity",),
        description="attributes whose levels 0 to 4 are asked for, one after the other, of each policy that is tuned to levels, on the held-out "
        "prompts of `evaluated`; what the reward model measures stands beside what was asked",
    )
    methods: dict[Name, Method] = Field(
        min_length=1, description="the policies, by name; a method starts from one above it"
    )

    @model_validator(mode="after")
    def _conversations_there(self) -> Self:
        for name, method in self.methods.items():
            if method.origin == "conversations" and not self.conversations:
                raise ValueError(
                    f"methods.{name}.origin: there are no conversations; name their sources under `conversations`, or take data"
                )
        for name, source in self.conversations.items():
            if source.weight != 1:
                raise ValueError(
                    f"conversations.{name}.weight: all conversations are taken, so that a source has no weight; leave it out, or set its `limit`"
                )
        return self

    @model_validator(mode="after")
    def _starts_above(self) -> Self:
        above: dict[str, Method] = {}
        trained = ("sft", "dpo", "iterative_dpo", "ppo", "rloo", "steerlm", "steerlm2")
        steered: dict[str, tuple[str, ...]] = {"start": ("steerlm", "steerlm2"), "unconditional": ("sft",)}
        for name, method in self.methods.items():
            wanted = steered if method.kind == "steerlm2" else {"start": trained}
            for field, kinds in wanted.items():
                start = getattr(method, field, None)
                if start is not None and (start not in above or above[start].kind not in kinds):
                    known = ", ".join(n for n, m in above.items() if m.kind in kinds) or "none"
                    raise ValueError(
                        f"methods.{name}.{field}: {start!r} is no method above it of the kinds {', '.join(kinds)}; there are: {known}"
                    )
            above[name] = method
        if self.second == self.recipe:
            raise ValueError(f"second: is {self.recipe}, the recipe that is trained against; name another, or null")
        return self

    def starts_of(self, name: str) -> tuple[str, ...]:
        """The methods whose policies a method needs."""
        method = self.methods[name]
        found = (getattr(method, field, None) for field in ("start", "unconditional"))
        return tuple(dict.fromkeys(start for start in found if start))

    def origin_of(self, name: str) -> Origin:
        """What a method learns from, or draws its prompts from."""
        method = self.methods[name]
        if method.origin != "auto":
            return method.origin
        return "conversations" if self.conversations and method.kind in ON_CONVERSATIONS else "data"

    def origins_of(self, name: str) -> set[Origin]:
        """What a method's policy was tuned on or with in the end, by itself and by the methods whose policies it needs."""
        return {self.origin_of(name)}.union(*(self.origins_of(start) for start in self.starts_of(name)))

    def steered_by(self, name: str) -> SteerLm | None:
        """The method that tuned a policy to levels, by which it is asked for them: itself or one before it; None for one that is asked for none."""
        method = self.methods[name]
        while isinstance(method, SteerLm2):
            method = self.methods[method.start]
        return method if isinstance(method, SteerLm) else None

    def base_of(self, name: str) -> str:
        """The checkpoint that a method's policy comes from in the end."""
        method = self.methods[name]
        return method.checkpoint if isinstance(method, Sft | SteerLm) else self.base_of(method.start)
