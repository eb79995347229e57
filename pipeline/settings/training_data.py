"""Settings of the data that recipes train on, and of what is too close to a benchmark."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from pipeline.settings.section import Section
from pipeline.vocabulary import Attribute


class _Published(Section):
    """A published data set: on the hub, or the same files in a folder."""

    revision: str | None = Field(None, description="commit of the hub's data set; pin it")
    folder: str | None = Field(None, description="a folder with the same files, instead of the hub")
    limit: int | None = Field(None, ge=1, description="take at most so many prompts, the first ones")

    @property
    def rated(self) -> bool:
        """Whether it has ratings of responses."""
        return True

    @property
    def means(self) -> bool:
        """Whether it has ratings before they were rounded."""
        return False


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
    hub: str = "OpenAssistant/oasst1"
    licence: str = "Apache-2.0"
    language: str | None = Field(None, description="take only messages with this `lang`; without it, all")
    labels: dict[Attribute, str] = Field(
        {"helpfulness": "quality"},
        min_length=1,
        description="which of its labels (0 to 1) stands for which attribute, times 4",
    )

    @property
    def means(self) -> bool:
        """Yes: its labels are means over people."""
        return True


class HHData(_Published):
    """Anthropic/hh-rlhf: pairs of transcripts, in SUBSET/train.jsonl.gz; no ratings."""

    kind: Literal["hh_rlhf"]
    hub: str = "Anthropic/hh-rlhf"
    licence: str = "MIT"
    subsets: tuple[Literal["helpful-base", "helpful-rejection-sampled", "helpful-online", "harmless-base"], ...] = (
        Field(("helpful-base", "helpful-rejection-sampled", "helpful-online", "harmless-base"), min_length=1)
    )

    @property
    def rated(self) -> bool:
        """No: it has preferences alone."""
        return False


class FileData(Section):
    """Files in nvidia/HelpSteer2's form: rows, preferences, or both; JSONL, CSV or Parquet."""

    kind: Literal["file"]
    path: str | None = Field(None, description="of rows with five ratings; all of them are trained on")
    preferences: str | None = Field(None, description="of preferences; those under `val` are left out")
    licence: str
    limit: int | None = Field(None, ge=1, description="take at most so many prompts, the first ones")

    @model_validator(mode="after")
    def _a_file(self) -> Self:
        if not (self.path or self.preferences):
            raise ValueError("name a path, preferences, or both")
        return self

    @property
    def rated(self) -> bool:
        """Whether it has ratings of responses."""
        return bool(self.path)

    @property
    def means(self) -> bool:
        """No: the form's ratings are whole numbers."""
        return False


TrainingData = Annotated[HelpSteer2Data | HelpSteerData | OasstData | HHData | FileData, Field(discriminator="kind")]
COLLECTED = "collected"
"""What a recipe calls this store's own data set."""


class Decontamination(Section):
    """Which prompts are too close to a benchmark to be trained on (see `pipeline.texts.decontamination`)."""

    ngram: int = Field(8, ge=2, le=64, description="words in a row that a training prompt shares with a benchmark's")
    threshold: float = Field(
        0.5,
        ge=0,
        lt=1,
        description="a prompt is dropped where shared n-grams cover more than this of a benchmark prompt",
    )
