"""Settings of the data set that is published."""

from pydantic import Field

from pipeline.settings.section import Section, Share


class Push(Section):
    """Where on the Hugging Face hub the data set is uploaded. The token is read from the environment variable HF_TOKEN alone."""

    repo: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*/[A-Za-z0-9][A-Za-z0-9_.-]*$",
        description="id of the data set on the hub, organisation/name",
    )
    private: bool = Field(
        True, description="whether the repository is private; one that is public already is then refused"
    )
    allow_simulated: bool = Field(False, description="whether ratings by simulated annotators may be pushed")
    allow_model_ratings: bool = Field(False, description="whether ratings by language models may be pushed")


class Dataset(Section):
    """The data set that is published."""

    name: str = "helpsteer-collected"
    licence: str = "unknown"
    validation_share: Share = Field(
        0.05, description="share of the prompts in the validation split, drawn by their hash; the original has 5 %"
    )
    annotators: str | None = Field(
        None,
        description="text for the card, in Markdown: who the annotators are; how they were found, tested, taught, paid; guidelines; review",
    )
    push: Push | None = Field(
        None, description="repository that the data set is uploaded to; null: nothing leaves the store"
    )
