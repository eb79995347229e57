"""What the training worker is to do. Light: assets and commands make it."""

from pathlib import Path

from pydantic import Field

from pipeline.settings import Checkpoint, Recipe
from pipeline.vocabulary import RatedBy
from pipeline.worker import Spec, Uri


class TrainingSpec(Spec):
    """The training of one recipe's reward model. It is trained into a local folder."""

    worker = "pipeline.reward_model.worker"
    rated: Uri = Field(description="table in the schema RATED")
    preferred: Uri = Field(description="table in the schema PREFERRED")
    data_version: str = Field(description="of both tables; a checkpoint of another one is not gone on from")
    work: Path = Field(description="folder of checkpoints")
    cache: Path = Field(description="folder of checkpoints that were unpacked")
    checkpoint: Checkpoint = Field(description="that is trained from")
    recipe: Recipe
    recipe_name: str
    seed: int
    tracking: Path | None = Field(None, description="folder for TensorBoard")
    rated_by: RatedBy
    ratings_note: str = Field(description="what the card says of the ratings; may be empty")
