"""Settings of recipes: one reward model each."""

from typing import Literal, Self

from pydantic import Field, model_validator

from pipeline.settings.section import Name, Section, Share
from pipeline.settings.training_data import COLLECTED
from pipeline.vocabulary import ATTRIBUTES, Attribute

PairObjective = Literal["bradley_terry", "margin_bt", "scaled_bt"]


class Lora(Section):
    """Low-rank adapters on every linear layer (LoRA, arXiv 2106.09685); the head is trained whole and saved with them."""

    rank: int = Field(16, ge=1)
    alpha: int = Field(32, ge=1)
    dropout: float = Field(0.0, ge=0, lt=1)


class PreferenceStage(Section):
    """The second stage of `two_stage`: preferences, from the model that ratings made (HelpSteer2-Preference, arXiv 2410.01257)."""

    objective: PairObjective = "scaled_bt"
    epochs: int = Field(1, ge=1)
    batch_size: int = Field(64, ge=1, description="pairs per optimiser step")
    learning_rate: float = Field(1e-6, gt=0)
    warmup_steps: int = Field(10, ge=0)
    evaluations: int = Field(10, ge=1)
    extrapolation: float = Field(
        1.0,
        ge=1,
        le=3,
        description="weights become first stage + this x (second - first): ExPO; the 94.1 model has 1.52, 1 leaves them",
    )


class Recipe(Section):
    """One reward model: training data, base model, objective, optimisation."""

    data: Name = Field(COLLECTED, description="this store's data set, or one of `training_data`")
    base: Name = Field(description="a checkpoint of this profile")
    objective: Literal["regression", "bradley_terry", "margin_bt", "scaled_bt", "two_stage", "probe"] = "regression"
    attributes: tuple[Attribute, ...] = Field(
        ATTRIBUTES, min_length=1, description="that are predicted; [helpfulness] is the helpfulness-only model"
    )
    labels: Literal["rounded", "mean"] = Field(
        "rounded", description="targets: published labels, or the unrounded means of the kept ratings (soft labels)"
    )
    template: Literal["tokenizer", "helpsteer"] = Field(
        "tokenizer", description="the base model's chat template, or the markers of NVIDIA's models"
    )
    layers: int | None = Field(None, ge=1, description="keep only so many of the base model's first layers")
    head: Literal["ridge", "zero"] = Field(
        "ridge", description="where the head starts: ridge regression on frozen states, or zero"
    )
    lora: Lora | None = Field(None, description="train adapters instead of all weights")
    preference: PreferenceStage | None = Field(None, description="the second stage of `two_stage`")
    epochs: int = Field(2, ge=1)
    batch_size: int = Field(128, ge=1, description="responses, or pairs, per optimiser step")
    micro_batch_tokens: int = Field(
        8192, ge=32, description="tokens per forward pass, padding counted; a longer conversation goes alone"
    )
    learning_rate: float = Field(2e-6, gt=0)
    warmup_steps: int = Field(10, ge=0)
    weight_decay: float = Field(0.1, ge=0)
    precision: Literal["bfloat16", "float32"] = Field("bfloat16", description="of all passes of training")
    gradient_checkpointing: bool = False
    max_tokens: int = Field(4096, ge=32, description="longer conversations lose their oldest turns")
    evaluations: int = Field(10, ge=1, description="evaluations on the development prompts during training")
    development_share: Share = Field(
        0.1,
        description="of the train split's prompts, held out of training: they pick the checkpoint and fit the attribute weights",
    )

    @model_validator(mode="after")
    def _stages(self) -> Self:
        if (self.objective == "two_stage") != bool(self.preference):
            raise ValueError("preference: the second stage of objective two_stage, which needs it; no other has it")
        if self.objective == "two_stage" and self.attributes[0] != "helpfulness":
            raise ValueError("attributes: the second stage goes on with the first output, which must be helpfulness")
        if len(set(self.attributes)) < len(self.attributes):
            raise ValueError("attributes: each once")
        if self.objective == "probe" and self.lora:
            raise ValueError("lora: a probe trains no weights of the base model")
        if self.lora and self.preference and self.preference.extrapolation != 1:
            raise ValueError("preference.extrapolation: of all weights only, not of adapters")
        return self

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the model's outputs: attributes, or `reward` where preferences are the last thing that it learns from."""
        return self.attributes if self.objective in ("regression", "probe") else ("reward",)

    @property
    def stages(self) -> tuple["Recipe", ...]:
        """What is trained one after the other, each with one objective: itself, or of `two_stage` the two."""
        if not self.preference:
            return (self,)
        first = self.model_copy(update={"objective": "regression", "preference": None})
        then = self.preference.model_dump(exclude={"extrapolation"})
        return first, self.model_copy(update=then | {"preference": None})

    @property
    def pairs(self) -> bool:
        """Whether it learns from preferences between two responses."""
        return self.objective not in ("regression", "probe")

    @property
    def ratings(self) -> bool:
        """Whether it learns from ratings."""
        return self.objective in ("regression", "probe", "two_stage")
