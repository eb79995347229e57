"""What the worker of a method is to do. Light: assets and commands make it."""

from pathlib import Path

from pydantic import Field

from pipeline.settings import Checkpoint, Method, Origin, Section
from pipeline.vocabulary import Attribute, RatedBy
from pipeline.worker import Spec, Uri


class Rewarding(Section):
    """A reward model, by what its outputs are weighed, and what its goodness is standardised by."""

    model: Path = Field(description="folder of the reward model")
    weights: dict[str, float] | None = Field(description="of its outputs, by name; null: it has one")
    mean: float = Field(description="mean of goodness over the data set's responses")
    sd: float = Field(gt=0, description="standard deviation of goodness over the data set's responses")


class TuningSpec(Spec):
    """The training of one method's policy, into a local folder."""

    worker = "pipeline.alignment.worker"
    method: Method
    name: str = Field(description="the method's name in the profile")
    start: Checkpoint = Field(
        description="model that it starts from: a checkpoint of the profile, or the folder of another method's policy"
    )
    unconditional: Path | None = Field(None, description="folder of the policy that is P(y|x), for SteerLM 2.0")
    responses: Uri = Field(description="table of responses to learn, in the schema TUNED_ON")
    origin: Origin = Field("data", description="which of them are learned, or have the prompts that are asked")
    pairs: Uri = Field(description="table of preferences, in the schema PREFERRED, with the splits of TUNED_ON")
    scored: Uri | None = Field(
        None, description="what the reward model says of the responses, in the schema SCORED_DATA"
    )
    samples: Uri | None = Field(
        None, description="scored samples of the policy that it starts from, in the schema SCORED"
    )
    reward: Rewarding | None = Field(
        None, description="what gives the rewards while it trains; null for a method that needs none"
    )
    levels: dict[Attribute, int] = Field(
        {}, description="levels that the policy is asked for in use; none where it is tuned to none"
    )
    data_version: str = Field(
        description="version of the tables; training doesn't go on from a checkpoint of another version"
    )
    work: Path = Field(description="folder of the training's checkpoints")
    cache: Path = Field(description="folder of unpacked models")
    seed: int
    tracking: Path | None = Field(None, description="folder for the curves, as TensorBoard files; null: none")
    licences: tuple[str, ...] = Field(
        description="of the model that it starts from, of the data, and of the conversations' sources where it is tuned on these"
    )
    recipe: str = Field(description="name of the reward model: its recipe, or its folder; empty where there is none")
    rated_by: RatedBy | None = Field(description="who gave the ratings of the reward model; null: nobody knows")
    ratings_note: str = Field(description="what the card says of the ratings; may be empty")
