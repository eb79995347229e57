"""Settings of the data that recipes train on, and of what is too close to a benchmark."""

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator

from pipeline.settings.section import Columns, Section, Share
from pipeline.vocabulary import ATTRIBUTES, Attribute

COLLECTED = "collected"
"""What a recipe calls this store's own data set."""


class _Published(Section):
    """A published data set: on the hub, or the same files in a folder."""

    rated: ClassVar[bool] = True
    """Whether responses are rated."""
    means: ClassVar[bool] = False
    """Whether ratings are means before rounding."""
    revision: str | None = Field(None, description="commit of the data set on the hub; pin it")
    folder: str | None = Field(None, description="folder that has the same files, read instead of the hub")
    limit: int | None = Field(None, ge=1, description="largest number of prompts to take, from the first on; null: all")


class HelpSteer2Data(_Published):
    """nvidia/HelpSteer2: train.jsonl.gz, and preferences where preference/preference.jsonl.gz is there."""

    kind: Literal["helpsteer2"]
    hub: str = "nvidia/HelpSteer2"
    licence: str = "CC-BY-4.0"


class HelpSteerData(_Published):
    """nvidia/HelpSteer, the first of its kind: train.jsonl.gz, several responses a prompt, no preferences."""

    kind: Literal["helpsteer"]
    hub: str = "nvidia/HelpSteer"
    licence: str = "CC-BY-4.0"


class OasstData(_Published):
    """OpenAssistant/oasst1: flat messages, in data/train-*.parquet, or *.messages.jsonl.gz in a folder."""

    kind: Literal["oasst"]
    means: ClassVar[bool] = True
    hub: str = "OpenAssistant/oasst1"
    licence: str = "Apache-2.0"
    language: str | None = Field(None, description="value of `lang` that messages must have to be taken; null: any")
    leave_out: tuple[Literal["deleted", "refused", "spam", "synthetic"], ...] = Field(
        ("deleted", "refused", "spam", "synthetic"),
        description="messages that are left out with all replies to them: deleted, refused by reviewers, spam, or marked as synthetic",
    )
    spam_above: Share = Field(0.5, description="value of its label `spam` above which a message is spam")
    labels: dict[Attribute, str] = Field(
        {"helpfulness": "quality"},
        min_length=1,
        description="label of its own, 0 to 1, that is taken for an attribute, times 4; by attribute",
    )


class HHData(_Published):
    """Anthropic/hh-rlhf: pairs of transcripts, in SUBSET/train.jsonl.gz; no ratings."""

    kind: Literal["hh_rlhf"]
    rated: ClassVar[bool] = False
    hub: str = "Anthropic/hh-rlhf"
    licence: str = "MIT"
    subsets: tuple[Literal["helpful-base", "helpful-rejection-sampled", "helpful-online", "harmless-base"], ...] = (
        Field(("helpful-base", "helpful-rejection-sampled", "helpful-online", "harmless-base"), min_length=1)
    )


TRAINING_FIELDS = (
    *("prompt", "messages", "context", "response", *ATTRIBUTES),
    *("chosen", "rejected", "strength", "score_chosen", "score_rejected"),
    *("response_1", "response_2", "preference_strength", "response1", "response2", "overall_preference"),
    *("split", "rated_by", "simulated", "desk"),
)
"""Fields of a team's rows and pairs that are read, whatever their form."""


class FileData(Section):
    """A team's files: rated responses, pairs of which one is preferred, or both, in the forms of `pipeline.reward_model.sources.files`."""

    kind: Literal["file"]
    means: ClassVar[bool] = True
    path: str | None = Field(
        None,
        description="file of rated responses, pairs, or both; rows whose `split` is a validation or test split are left out",
    )
    preferences: str | None = Field(
        None, description="file of pairs; those whose `split` is a validation or test split are left out"
    )
    licence: str
    columns: Columns = Field({})
    limit: int | None = Field(None, ge=1, description="largest number of prompts to take, from the first on; null: all")

    @field_validator("columns")
    @classmethod
    def _known_fields(cls, columns: dict[str, str]) -> dict[str, str]:
        if strange := [field for field in columns if field not in TRAINING_FIELDS]:
            raise ValueError(f"there is no field {strange[0]}; there are: {', '.join(TRAINING_FIELDS)}")
        return columns

    @model_validator(mode="after")
    def _a_file(self) -> Self:
        if not (self.path or self.preferences):
            raise ValueError("training data of kind file must have `path`, `preferences`, or both")
        return self

    @property
    def rated(self) -> bool:
        """Whether responses are rated."""
        return bool(self.path)


TrainingData = Annotated[HelpSteer2Data | HelpSteerData | OasstData | HHData | FileData, Field(discriminator="kind")]


class Decontamination(Section):
    """Which prompts are too close to a benchmark to be trained on (see `pipeline.texts.decontamination`)."""

    ngram: int = Field(8, ge=2, le=64, description="number of words in a row that are compared")
    threshold: float = Field(
        0.5,
        ge=0,
        lt=1,
        description="share of a benchmark prompt that shared n-grams may cover; where they cover more, the training prompt is dropped",
    )
