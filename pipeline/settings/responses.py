"""Settings of contexts and generators."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from pipeline.settings.checkpoints import Sampling
from pipeline.settings.section import Name, Section
from pipeline.vocabulary import Attribute


class NextTurnScorer(Section):
    """Scores a candidate by the log-likelihood of the user's next turn under a language model."""

    kind: Literal["next_user_turn"]
    checkpoint: Name


class RewardScorer(Section):
    """Scores a candidate by a reward model (a sequence classifier; of several outputs, the first)."""

    kind: Literal["reward_model"]
    checkpoint: Name


Scorer = Annotated[NextTurnScorer | RewardScorer, Field(discriminator="kind")]


class Contexts(Section):
    """How the earlier assistant turns of a multi-turn prompt are written anew."""

    checkpoint: Name = Field(description="model that writes them")
    sampling: Sampling = Sampling()
    system_prompt: str | None = Field(None, description="system prompt of each request; null: none")
    candidates: int = Field(
        1, ge=1, le=64, description="number of candidates written for each assistant turn; HelpSteer2 has 16"
    )
    scorers: tuple[Scorer, ...] = Field(
        (),
        description="what ranks the candidates, by models other than the one that writes; the candidate with the best mean rank is kept",
    )

    @model_validator(mode="after")
    def _something_to_choose_by(self) -> Self:
        if (self.candidates > 1) != bool(self.scorers):
            raise ValueError(
                f"scorers: there are {len(self.scorers)} for {self.candidates} candidates; several candidates need at "
                f"least one, and a single candidate takes none"
            )
        return self


class Generator(Section):
    """One of the models that answer: a checkpoint with its decoding settings."""

    checkpoint: Name
    share: float = Field(gt=0, description="relative share of all responses that this generator writes")
    sampling: Sampling = Sampling()
    system_prompt: str | None = Field(None, description="system prompt of each request; null: none")
    attributes: dict[Attribute, Annotated[int, Field(ge=0, le=4)]] = Field(
        {}, description="levels that the system prompt asks for, as SteerLM's conditions do (HelpSteer2, section 2.2)"
    )
    description: str = Field("", description="what is shown of this generator")
