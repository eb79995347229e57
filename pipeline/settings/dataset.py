"""Settings of the data set that is published."""

from pydantic import Field

from pipeline.settings.section import Section, Share


class Push(Section):
    """Where the data set is uploaded on the Hugging Face hub. The token is read from the environment variable HF_TOKEN alone."""

    repo: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*/[A-Za-z0-9][A-Za-z0-9_.-]*$",
        description="organisation/name of the data set",
    )
    private: bool = Field(True, description="a repository that is public already is then refused")
    allow_simulated: bool = Field(False, description="push although ratings come from simulated annotators")
    allow_model_ratings: bool = Field(False, description="push although ratings come from language models")


class Dataset(Section):
    """The data set that is published."""

    name: str = "helpsteer-collected"
    licence: str = "unknown"
    validation_share: Share = Field(0.05, description="of the prompts, by hash; the original has 5 %")
    annotators: str | None = Field(
        None,
        description="for the card, in Markdown: who the annotators are; how they were found, tested, taught, paid; guidelines; review",
    )
    push: Push | None = Field(None, description="without it nothing leaves the store")
