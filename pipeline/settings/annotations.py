"""Settings of annotating: desks, how many people rate, what is kept."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from pipeline.settings.checkpoints import Sampling
from pipeline.settings.section import Name, Section, Share


class SimulatedDesk(Section):
    """A seeded panel of simulated annotators, so that everything runs without people. Every row says so."""

    kind: Literal["simulated"]
    annotators: int = Field(24, ge=5)
    careless_share: Share = 0.15
    noise: float = Field(1.0, ge=0, le=3, description="sd of an annotator's error, in rating levels")
    bias: float = Field(0.4, ge=0, le=2, description="sd of an annotator's constant shift, in rating levels")


class FilesDesk(Section):
    """Tasks go out as a file; ratings come back as Parquet, JSONL or CSV files in a folder."""

    kind: Literal["files"]
    folder: str


class HelpSteer2Desk(Section):
    """Ratings that exist already, in the form of nvidia/HelpSteer2's `disagreements` file, with the texts that they rate."""

    kind: Literal["helpsteer2"]
    hub: str = "nvidia/HelpSteer2"
    revision: str | None = Field(None, description="commit of the hub's data set; pin it")
    folder: str | None = Field(
        None, description="a folder with disagreements/disagreements.jsonl.gz, instead of the hub"
    )
    licence: str = "CC-BY-4.0"
    limit: int | None = Field(None, ge=1, description="take at most so many tasks, the first ones")


class RaterSampling(Sampling):
    """Decoding of a rating. Greedy by default: a model's likeliest answer, the same every time; a panel differs by its members, not by dice."""

    temperature: float = Field(0.0, ge=0, le=2)
    max_tokens: int = Field(96, ge=1)


class Panelist(Section):
    """A language model that rates as an annotator does."""

    checkpoint: Name
    sampling: RaterSampling = RaterSampling()
    system_prompt: str | None = Field(None, description="a persona, or guidelines of its own")


class ModelsDesk(Section):
    """A panel of language models: no person rates. Every row, card and report says so."""

    kind: Literal["models"]
    panel: dict[Name, Panelist] = Field(min_length=2)

    @model_validator(mode="after")
    def _no_twins(self) -> Self:
        members = list(self.panel.items())
        for n, (name, member) in enumerate(members):
            twin = next((other for other, m in members[:n] if m == member and not m.sampling.temperature), None)
            if twin:
                raise ValueError(f"panel.{name}: is {twin} again, and rates alike at temperature 0")
        return self


Desk = Annotated[SimulatedDesk | FilesDesk | HelpSteer2Desk | ModelsDesk, Field(discriminator="kind")]


class Annotations(Section):
    """Who rates, how often, and what is kept (HelpSteer2, section 2.1 and its preprocessing)."""

    desk: Desk
    initial: int = Field(3, ge=2, description="annotators per task")
    extra: int = Field(2, ge=0, description="more annotators where the first disagree")
    escalate_above: int = Field(2, ge=0, le=4, description="helpfulness spread among the first that asks for more")
    keep: int = Field(3, ge=2, description="ratings kept per response: those that agree most")
    rule: Literal["per_attribute", "annotator"] = "per_attribute"
    max_spread: int = Field(
        2, ge=0, le=4, description="largest spread of kept helpfulness ratings that a task may have"
    )

    @model_validator(mode="after")
    def _enough_models(self) -> Self:
        if isinstance(self.desk, ModelsDesk) and len(self.desk.panel) < self.initial + self.extra:
            raise ValueError(
                f"desk.panel: has {len(self.desk.panel)} members; `initial` asks for {self.initial} a response, and `extra` for {self.extra} "
                "others where these disagree"
            )
        return self
