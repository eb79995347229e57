"""What the training worker is to do. Light: assets and commands make it."""

from pathlib import Path

from pydantic import Field

from pipeline.settings import Checkpoint, Recipe
from pipeline.vocabulary import RatedBy
from pipeline.worker import Spec, Uri


class TrainingSpec(Spec):
    """The training of one recipe's reward model. It is trained into a local folder."""

    worker = "pipeline.reward_model.worker"
    rated: Uri = Field(description="table of rated responses, in the schema RATED")
    preferred: Uri = Field(description="table of preferences, in the schema PREFERRED")
    data_version: str = Field(
        description="version of both tables; training doesn't go on from a checkpoint of another version"
    )
    work: Path = Field(description="folder of the training's checkpoints")
    cache: Path = Field(description="folder of unpacked base models")
    checkpoint: Checkpoint = Field(description="base model that the training starts from")
    recipe: Recipe
    recipe_name: str
    seed: int
    tracking: Path | None = Field(None, description="folder for the curves, as TensorBoard files; null: none")
    rated_by: RatedBy | None = Field(description="who gave the ratings; null: nobody knows")
    ratings_note: str = Field(description="what the card says of the ratings; may be empty")
