"""Settings of recipes: one reward model each."""

from typing import Literal, Self, get_args

from pydantic import Field, model_validator

from pipeline.settings.section import Name, Section, Share
from pipeline.settings.training_data import COLLECTED
from pipeline.vocabulary import ATTRIBUTES, Attribute

RatingObjective = Literal["regression", "probe"]
"""What a reward model may learn from ratings: a head on a model that is trained, or on one that is not."""

PairObjective = Literal["bradley_terry", "margin_bt", "scaled_bt"]
"""What it may learn from preferences: their losses are `pipeline.reward_model.objectives.preference_losses`, where one that is not among
the first three has a module of its own, `pipeline.reward_model.objective_NAME`."""

Objective = Literal[RatingObjective, PairObjective, "two_stage"]
"""What a recipe may ask for; `two_stage` is both, ratings first."""


class Lora(Section):
    """Low-rank adapters on every linear layer (LoRA, arXiv 2106.09685); the head is trained whole and saved with them."""

    rank: int = Field(16, ge=1, description="rank of the adapters")
    alpha: int = Field(32, ge=1, description="scale of the adapters, divided by their rank")
    dropout: float = Field(0.0, ge=0, lt=1, description="dropout before the adapters")


class PreferenceStage(Section):
    """The second stage of `two_stage`, which learns preferences from the model of the first on (HelpSteer2-Preference, arXiv 2410.01257)."""

    objective: PairObjective = "scaled_bt"
    epochs: int = Field(1, ge=1, description="passes over the preferences")
    batch_size: int = Field(64, ge=1, description="pairs in an optimiser step")
    learning_rate: float = Field(1e-6, gt=0, description="highest learning rate")
    warmup_steps: int = Field(10, ge=0, description="steps until the learning rate is at its highest")
    evaluations: int = Field(10, ge=1, description="evaluations on the development prompts during training")
    extrapolation: float = Field(
        1.0,
        ge=1,
        le=3,
        description="factor of the step from the first stage's weights to the second's (ExPO); 1 leaves them, the 94.1 model has 1.52",
    )


class Recipe(Section):
    """One reward model: training data, base model, objective, optimisation."""

    data: Name = Field(
        COLLECTED,
        description="data that it trains on: `collected`, which is this store's data set, or one of `training_data`",
    )
    base: Name = Field(description="model that it starts from, one of the profile's checkpoints")
    objective: Objective = "regression"
    attributes: tuple[Attribute, ...] = Field(
        ATTRIBUTES,
        min_length=1,
        description="attributes that are predicted; [helpfulness] is the helpfulness-only model",
    )
    labels: Literal["rounded", "mean"] = Field(
        "rounded",
        description="targets of regression: published labels, or the unrounded means of the kept ratings (soft labels)",
    )
    template: Literal["tokenizer", "helpsteer"] = Field(
        "tokenizer",
        description="how a conversation is written: by the base model's chat template, or with the markers of NVIDIA's models",
    )
    layers: int | None = Field(
        None, ge=1, description="number of the base model's first layers that are kept; null: all"
    )
    head: Literal["ridge", "zero"] = Field(
        "ridge", description="where the head starts: at a ridge regression on the states of the base model, or at zero"
    )
    lora: Lora | None = Field(
        None, description="adapters that are trained instead of all weights; null: all weights are"
    )
    preference: PreferenceStage | None = Field(None, description="the second stage of `two_stage`")
    epochs: int = Field(2, ge=1, description="passes over the training data")
    batch_size: int = Field(128, ge=1, description="responses, or pairs, in an optimiser step")
    micro_batch_tokens: int = Field(
        8192, ge=32, description="tokens in a forward pass, padding counted; a longer conversation goes alone"
    )
    learning_rate: float = Field(2e-6, gt=0, description="highest learning rate")
    warmup_steps: int = Field(10, ge=0, description="steps until the learning rate is at its highest")
    weight_decay: float = Field(0.1, ge=0, description="weight decay of AdamW")
    precision: Literal["auto", "bfloat16", "float32"] = Field(
        "auto",
        description="floating-point type of all passes of training; auto: bfloat16 where the device has it (AVX512-BF16, AMX, a GPU), else float32",
    )
    gradient_checkpointing: bool = Field(
        False, description="whether activations are computed again in the backward pass"
    )
    max_tokens: int = Field(
        4096, ge=32, description="longest conversation, in tokens; longer ones lose their oldest turns"
    )
    evaluations: int = Field(10, ge=1, description="evaluations on the development prompts during training")
    development_share: Share = Field(
        0.1,
        description="share of the train split's prompts that is held out of training, to pick the checkpoint and fit the attribute weights",
    )

    @model_validator(mode="after")
    def _stages(self) -> Self:
        if (self.objective == "two_stage") != bool(self.preference):
            raise ValueError(
                "preference: objective two_stage needs it for its second stage, and no other objective takes it"
            )
        if self.objective == "two_stage" and self.attributes[0] != "helpfulness":
            raise ValueError(
                "attributes: helpfulness must be the first, because the second stage goes on with the first output"
            )
        if len(set(self.attributes)) < len(self.attributes):
            raise ValueError("attributes: each may appear only once")
        if self.objective == "probe" and self.lora:
            raise ValueError("lora: a probe trains no weights of the base model; take lora away")
        if self.lora and self.preference and self.preference.extrapolation != 1:
            raise ValueError(
                "preference.extrapolation: adapters can't be extrapolated; leave it at 1, or take lora away"
            )
        return self

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the model's outputs: attributes, or `reward` where it learns from preferences in the end."""
        return ("reward",) if self.pairs else self.attributes

    @property
    def stages(self) -> tuple["Recipe", ...]:
        """The recipes that are trained one after the other, each with one objective: of `two_stage` two, else itself."""
        if not self.preference:
            return (self,)
        first = self.model_copy(update={"objective": "regression", "preference": None})
        then = self.preference.model_dump(exclude={"extrapolation"})
        return first, self.model_copy(update=then | {"preference": None})

    @property
    def pairs(self) -> bool:
        """Whether it learns from preferences between two responses."""
        return self.objective not in get_args(RatingObjective)

    @property
    def ratings(self) -> bool:
        """Whether it learns from ratings."""
        return self.objective not in get_args(PairObjective)
