"""Settings of annotating: the desk, how many annotators rate a response, which ratings are kept."""

from functools import reduce
from operator import or_
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self, get_args

from pydantic import BeforeValidator, Field, JsonValue, create_model, model_validator

from pipeline.settings.checkpoints import Sampling
from pipeline.settings.section import Columns, Name, Section, Share
from pipeline.vocabulary import RATINGS_NOTES, Attribute, RatedBy

Level = Annotated[int, Field(ge=0, le=4)]
Scale = dict[Annotated[str, BeforeValidator(str)], Level]
"""What stands for each level, and the level; a number may stand as it is."""

OWN_DESKS: dict[str, RatedBy] = {}
"""Desks of one's own, by kind: who rates there. Each is the class `Desk` of the module `resources.desks.KIND` (docs/extending.md)."""

RATERS: dict[str, RatedBy] = {}
"""Who rates at each desk that is defined, by the desk's kind."""


class DeskSection(Section):
    """What the section of every desk has: its kind, which its rows carry in the column `desk`, and who rates there.

    A desk that doesn't say who rates can't be defined.
    """

    kind: str
    rated_by: ClassVar[RatedBy]

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        kinds = get_args(cls.model_fields["kind"].annotation)
        if kinds and getattr(cls, "rated_by", None) not in get_args(RatedBy):
            allowed = ", ".join(map(repr, get_args(RatedBy)))
            raise TypeError(
                f"{cls.__name__} doesn't say who rates at this desk: give it `rated_by: ClassVar[RatedBy]`, one of {allowed}"
            )
        RATERS.update((kind, cls.rated_by) for kind in kinds)

    @property
    def note(self) -> str:
        """What is said of its ratings wherever they, or what rests on them, are shown; "" where people rate."""
        return RATINGS_NOTES[self.rated_by]


class SimulatedDesk(DeskSection):
    """A seeded panel of simulated annotators, so that everything runs without people. Every row says so."""

    kind: Literal["simulated"]
    rated_by: ClassVar[RatedBy] = "simulated annotators"
    annotators: int = Field(24, ge=5, description="number of annotators in the panel")
    careless_share: Share = Field(0.15, description="share of the panel that rates carelessly")
    noise: float = Field(
        1.0, ge=0, le=3, description="standard deviation of an annotator's error from rating to rating, in levels"
    )
    bias: float = Field(
        0.4, ge=0, le=2, description="standard deviation, over annotators, of their constant shift, in levels"
    )


class FilesDesk(DeskSection):
    """Tasks go out as a file; ratings come back as Parquet, JSONL or CSV files in a folder."""

    kind: Literal["files"]
    rated_by: ClassVar[RatedBy] = "people"
    folder: str = Field(description="folder that tasks are written to and ratings are read from")
    columns: Columns = Field(
        {}, description="field of a rating: the name that it has in the files; others are as they are called"
    )
    scale: dict[Attribute | Literal["all"], Scale] = Field(
        {},
        description="by attribute, or for `all`: what stands in the files for each level, and the level, 0 to 4; for ratings from 1 to 5 "
        "`all: {1: 0, 2: 1, 3: 2, 4: 3, 5: 4}`",
    )


class HelpSteer2Desk(DeskSection):
    """Ratings that exist already, in the form of nvidia/HelpSteer2's `disagreements` file, with the texts that they rate."""

    kind: Literal["helpsteer2"]
    rated_by: ClassVar[RatedBy] = "people"
    hub: str = Field("nvidia/HelpSteer2", description="id of the data set on the Hugging Face hub")
    revision: str | None = Field(None, description="commit of the data set on the hub; pin it")
    folder: str | None = Field(
        None, description="folder that has disagreements/disagreements.jsonl.gz, read instead of the hub"
    )
    licence: str = "CC-BY-4.0"
    limit: int | None = Field(None, ge=1, description="largest number of tasks to take, from the first on; null: all")


class RaterSampling(Sampling):
    """Decoding of a rating. It is greedy by default, so a model rates alike each time, and a panel differs by its members alone."""

    temperature: float = Field(0.0, ge=0, le=2)
    max_tokens: int = Field(96, ge=1)


class Panelist(Section):
    """A language model that rates as an annotator does."""

    checkpoint: Name = Field(description="the model, one of the profile's checkpoints")
    sampling: RaterSampling = RaterSampling()
    system_prompt: str | None = Field(None, description="persona, or guidelines of its own")


class ModelsDesk(DeskSection):
    """A panel of language models: no person rates. Every row, card and report says so."""

    kind: Literal["models"]
    rated_by: ClassVar[RatedBy] = "language models"
    panel: dict[Name, Panelist] = Field(min_length=2, description="the models that rate, by name")

    @model_validator(mode="after")
    def _no_twins(self) -> Self:
        members = list(self.panel.items())
        for n, (name, member) in enumerate(members):
            twin = next((other for other, m in members[:n] if m == member and not m.sampling.temperature), None)
            if twin:
                raise ValueError(
                    f"panel.{name}: is the same as panel.{twin}, and would give the same ratings at temperature 0"
                )
        return self

    @property
    def note(self) -> str:
        """See `DeskSection.note`; it names the panel."""
        names = ", ".join(f"{name} ({member.checkpoint})" for name, member in self.panel.items())
        return f"Ratings by language models: {names}; no person rated."


class OwnDesk(DeskSection):
    """A desk of OWN_DESKS."""

    settings: dict[str, JsonValue] = Field({}, description="values of the fields of its class `Desk`")


if TYPE_CHECKING:
    Desk = SimulatedDesk | FilesDesk | HelpSteer2Desk | ModelsDesk | OwnDesk
else:
    _OWN = [
        create_model(f"OwnDesk_{kind}", __base__=OwnDesk, kind=(Literal[kind], ...), rated_by=(ClassVar[RatedBy], by))
        for kind, by in OWN_DESKS.items()
    ]
    Desk = Annotated[
        reduce(or_, [SimulatedDesk, FilesDesk, HelpSteer2Desk, ModelsDesk, *_OWN]), Field(discriminator="kind")
    ]


HELD_BACK = ("pii", "personal data", "skip")
"""Flags that say of a task that it holds personal data, or is not to be rated."""


class Annotations(Section):
    """Who rates, how often, and what is kept (HelpSteer2, section 2.1 and its preprocessing)."""

    desk: Desk
    initial: int = Field(3, ge=2, description="annotators who rate each response at first")
    extra: int = Field(2, ge=0, description="further annotators where the first disagree")
    escalate_above: int = Field(
        2, ge=0, le=4, description="spread of the first helpfulness ratings above which further annotators are asked"
    )
    keep: int = Field(3, ge=2, description="ratings kept of each response: those that agree most")
    rule: Literal["per_attribute", "annotator"] = Field(
        "per_attribute", description="whether ratings are kept for each attribute by itself, or all of an annotator's"
    )
    max_spread: int = Field(
        2, ge=0, le=4, description="largest spread of kept helpfulness ratings that a task may have"
    )
    hold_back: tuple[str, ...] = Field(
        HELD_BACK, description="flags of annotators for which a task is not taken, whoever set them on either response"
    )

    @model_validator(mode="after")
    def _enough_models(self) -> Self:
        if isinstance(self.desk, ModelsDesk) and len(self.desk.panel) < self.initial + self.extra:
            raise ValueError(
                f"desk.panel: has {len(self.desk.panel)} members, but `initial` asks for {self.initial} for each "
                f"response, and `extra` for {self.extra} others where these disagree"
            )
        return self
