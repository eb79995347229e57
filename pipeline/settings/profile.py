"""The whole profile, and what must hold between its sections."""

from typing import Self

from pydantic import Field, field_validator, model_validator

from pipeline.settings.alignment import Alignment, Sft, SteerLm
from pipeline.settings.annotations import Annotations, HelpSteer2Desk, ModelsDesk, Panelist
from pipeline.settings.checkpoints import Checkpoint
from pipeline.settings.compute import Compute, Schedule, Tracking
from pipeline.settings.dataset import Dataset
from pipeline.settings.evaluation import Benchmark, Evaluation
from pipeline.settings.prompts import Prompts
from pipeline.settings.recipes import Recipe
from pipeline.settings.responses import Contexts, Generator
from pipeline.settings.section import PROJECT, Name, Section
from pipeline.settings.training_data import COLLECTED, Decontamination, FileData, TrainingData
from pipeline.vocabulary import RATINGS_NOTES, RatedBy


class Profile(Section):
    """A whole profile."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]*$", max_length=60)
    store: str = Field(
        ".store",
        description="URI or path under which everything is published; a relative path counts from the project's folder",
    )
    seed: int = Field(0, description="seed of every draw")
    checkpoints: dict[Name, Checkpoint] = Field(min_length=1)
    prompts: Prompts | None = None
    contexts: Contexts | None = None
    generators: dict[Name, Generator] = Field({})
    annotations: Annotations
    dataset: Dataset = Dataset()
    training_data: dict[Name, TrainingData] = Field(
        {}, description="data that recipes train on besides `collected`, by name"
    )
    decontamination: Decontamination = Decontamination()
    recipes: dict[Name, Recipe] = Field(min_length=1)
    benchmarks: dict[Name, Benchmark] = Field(min_length=1)
    evaluation: Evaluation = Evaluation()
    alignment: Alignment | None = Field(None, description="models aligned with the rewards; null: none")
    compute: Compute = Compute()
    tracking: Tracking = Tracking()
    schedule: Schedule = Schedule()

    @field_validator("store")
    @classmethod
    def _absolute(cls, store: str) -> str:
        return store if "://" in store else str((PROJECT / store).resolve())

    @model_validator(mode="after")
    def _whole_chain(self) -> Self:
        made = {"prompts": self.prompts, "contexts": self.contexts, "generators": self.generators}
        if self.recorded:
            given = [name for name, section in made.items() if section]
            if given:
                raise ValueError(
                    f"{', '.join(given)}: must not be there with desk helpsteer2, which brings its texts along; set "
                    f"prompts and contexts to null, generators to {{}}"
                )
            if self.annotations.extra:
                raise ValueError("annotations.extra: with desk helpsteer2 it must be 0, as nobody can be asked again")
            return self
        missing = [name for name, section in made.items() if not section]
        if missing:
            raise ValueError(f"{', '.join(missing)}: missing; only desk helpsteer2 can do without")
        if len(self.generators) < 2:
            raise ValueError("generators: at least two are needed, because two different ones answer every prompt")
        return self

    @model_validator(mode="after")
    def _names_resolve(self) -> Self:
        used = {"contexts.checkpoint": self.contexts.checkpoint} if self.contexts else {}
        if self.prompts and self.prompts.complexity.checkpoint:
            used["prompts.complexity.checkpoint"] = self.prompts.complexity.checkpoint
        if self.contexts:
            for n, scorer in enumerate(self.contexts.scorers):
                used[f"contexts.scorers.{n}.checkpoint"] = scorer.checkpoint
        used |= {f"generators.{name}.checkpoint": g.checkpoint for name, g in self.generators.items()}
        used |= {f"recipes.{name}.base": r.base for name, r in self.recipes.items()}
        panel = {f"annotations.desk.panel.{name}.checkpoint": member.checkpoint for name, member in self.panel.items()}
        used |= panel
        for place, checkpoint in used.items():
            if checkpoint not in self.checkpoints:
                raise ValueError(
                    f"{place}: there is no checkpoint {checkpoint!r}; there are: {', '.join(self.checkpoints)}"
                )
        for place, checkpoint in panel.items():
            if self.checkpoints[checkpoint].recording:
                raise ValueError(f"{place}: checkpoint {checkpoint} is a recording, which can't rate responses")
        if len(pools := {self.checkpoints[c].pool for c in panel.values() if self.checkpoints[c].weights}) > 1:
            raise ValueError(
                f"annotations.desk.panel: its checkpoints must have one pool of Dagster in common (set by "
                f"`accelerator`), not {', '.join(sorted(pools))}"
            )
        several = [name for name, c in self.checkpoints.items() if c.replicas > 1]
        if several and self.compute.kind != "ray":
            raise ValueError(f"checkpoints.{several[0]}.replicas: more than one needs `compute: {{kind: ray}}`")
        loaded = {place: c for place, c in used.items() if place.startswith(("recipes.", "contexts.scorers."))}
        for place, checkpoint in loaded.items():
            if not self.checkpoints[checkpoint].weights:
                raise ValueError(f"{place}: checkpoint {checkpoint} has no weights that could be loaded here")
        total = sum(g.share for g in self.generators.values())
        for name, generator in self.generators.items():
            if generator.share > total / 2 + 1e-9:
                raise ValueError(
                    f"generators.{name}.share: {generator.share} is more than half of all shares ({total:g}); "
                    "every prompt has two different generators, so none can answer more than every prompt once"
                )
        return self

    @model_validator(mode="after")
    def _benchmarks_told_apart(self) -> Self:
        files = self.prompts.filters.benchmark_prompts if self.prompts else {}
        if twice := sorted(set(files) & set(self.benchmarks)):
            raise ValueError(f"prompts.filters.benchmark_prompts.{twice[0]}: is the name of a benchmark; take another")
        return self

    @model_validator(mode="after")
    def _training_data_resolves(self) -> Self:
        if COLLECTED in self.training_data:
            raise ValueError(f"training_data.{COLLECTED}: is the name of this store's data set; take another")
        for name, recipe in self.recipes.items():
            if recipe.data == COLLECTED:
                continue
            data = self.training_data.get(recipe.data)
            if data is None:
                known = ", ".join([COLLECTED, *self.training_data])
                raise ValueError(f"recipes.{name}.data: there is no training data {recipe.data!r}; there are: {known}")
            if recipe.ratings and not data.rated:
                raise ValueError(
                    f"recipes.{name}.objective: {recipe.objective} learns from ratings, but {recipe.data} has only preferences"
                )
            if recipe.ratings and recipe.labels == "mean" and not data.means:
                raise ValueError(
                    f"recipes.{name}.labels: mean needs ratings before rounding, and {recipe.data} ({data.kind}) has none; take rounded"
                )
        return self

    @model_validator(mode="after")
    def _alignment_resolves(self) -> Self:
        if (wanted := self.alignment) is None:
            return self
        for field, recipe in (("recipe", wanted.recipe), ("second", wanted.second)):
            if recipe is not None and recipe not in self.recipes:
                raise ValueError(
                    f"alignment.{field}: there is no recipe {recipe!r}; there are: {', '.join(self.recipes)}"
                )
        if wanted.data != COLLECTED and wanted.data not in self.training_data:
            known = ", ".join([COLLECTED, *self.training_data])
            raise ValueError(f"alignment.data: there is no training data {wanted.data!r}; there are: {known}")
        for name, method in wanted.methods.items():
            if isinstance(method, Sft | SteerLm):
                checkpoint = self.checkpoints.get(method.checkpoint)
                if checkpoint is None or not checkpoint.weights:
                    raise ValueError(
                        f"alignment.methods.{name}.checkpoint: {method.checkpoint!r} is no checkpoint with weights; there are: "
                        f"{', '.join(n for n, c in self.checkpoints.items() if c.weights)}"
                    )
        return self

    def generators_of(self, checkpoint: str) -> tuple[str, ...]:
        """Names of the generators that run on a checkpoint, in the profile's order."""
        return tuple(name for name, g in self.generators.items() if g.checkpoint == checkpoint)

    @property
    def recorded(self) -> bool:
        """Whether ratings and texts exist already: there is no pool, and nobody is asked."""
        return self.annotations.desk.kind == "helpsteer2"

    @property
    def sources(self) -> dict[str, str]:
        """Where prompts come from: name and licence."""
        desk = self.annotations.desk
        if isinstance(desk, HelpSteer2Desk):
            return {desk.folder or desk.hub: desk.licence}
        return {name: source.licence for name, source in self.prompts.sources.items()} if self.prompts else {}

    @property
    def language(self) -> str:
        """ISO 639-1 code of the prompts."""
        return self.prompts.filters.language if self.prompts else "en"

    @property
    def panel(self) -> dict[str, Panelist]:
        """The language models that rate, by name; none with another desk than `models`."""
        desk = self.annotations.desk
        return desk.panel if isinstance(desk, ModelsDesk) else {}

    @property
    def rated_by(self) -> RatedBy:
        """Who gives the ratings: see the profile's desk."""
        return self.annotations.desk.rated_by

    @property
    def ratings_note(self) -> str:
        """What is said of ratings wherever they, or what rests on them, are shown; "" where people rate."""
        return self.annotations.desk.note

    @property
    def ratings_note_of_all(self) -> str:
        """What is said of the ratings wherever all recipes learn from the collected data; "" where one learns from others."""
        return self.ratings_note if all(r.data == COLLECTED for r in self.recipes.values()) else ""

    def rated_by_of(self, recipe: str, collected: RatedBy) -> RatedBy:
        """Who gave the ratings that a recipe learns from: people for published data. collected: who rated this store's data set."""
        return collected if self.recipes[recipe].data == COLLECTED else "people"

    def ratings_note_of(self, recipe: str, collected: RatedBy) -> str:
        """What is said of the ratings that a recipe learns from wherever its figures are shown; "" where people rated."""
        data = self.recipes[recipe].data
        if data == COLLECTED:
            desk = self.annotations.desk
            return desk.note if desk.rated_by == collected else RATINGS_NOTES[collected]
        if isinstance(self.training_data[data], FileData):
            return f"Trained on the file of {data}: who gave its ratings is not recorded here."
        return ""
