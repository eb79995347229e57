"""One method of a profile, trained on a team's file: what the command `train` of `python -m pipeline.alignment` does, without Dagster.

The steps are those of the assets, one after the other, in a folder that is kept until the policy stands: what was sampled or scored before a
run was cut off is not done again, and training goes on from its last checkpoint.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import pyarrow as pa
import pyarrow.compute as pc
import yaml
from upath import UPath

from pipeline.alignment import data, samples
from pipeline.alignment.goodness import best_and_worst
from pipeline.alignment.process import apart
from pipeline.alignment.spec import Rewarding, TuningSpec
from pipeline.alignment.steerlm import policy_levels
from pipeline.dataset.schema import DATASET
from pipeline.engines.spec import EngineSpec
from pipeline.evaluation.scorers.specs import ModelSpec
from pipeline.evaluation.scoring import factors_of
from pipeline.evaluation.worker import ScoringSpec
from pipeline.models.checkpoints import identity, resolve
from pipeline.models.outputs import parse_weights
from pipeline.processes import QUIET, threads
from pipeline.records import FileError
from pipeline.responses.worker import ResponsesSpec
from pipeline.reward_model.sources import Source
from pipeline.reward_model.training_data import with_split
from pipeline.settings import (
    Alignment,
    BestOfN,
    Checkpoint,
    Dpo,
    IterativeDpo,
    Method,
    Profile,
    Rewarded,
    Sampled,
    Sft,
    SteerLm,
    SteerLm2,
    digest,
)
from pipeline.store import local_path, read_table, write_table
from pipeline.vocabulary import RATINGS_NOTES, Attribute, RatedBy
from pipeline.worker import Figures, Log

Begins = Sft | SteerLm
"""Methods that start from a checkpoint of the profile."""
HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*(@\S+)?")
COMMAND = "python -m pipeline.alignment train"


@dataclass(frozen=True)
class RewardModel:
    """A reward model's folder: its outputs, by what they are weighed, the hash of its files, and who gave the ratings that it learned from."""

    folder: Path
    outputs: tuple[str, ...]
    weights: dict[str, float]
    version: str
    rated_by: RatedBy | None

    @property
    def name(self) -> str:
        """What a card calls it."""
        return f"{self.folder.name} (revision {self.version})"


@dataclass(frozen=True)
class Wanted:
    """A method of a profile, and the models that it takes."""

    profile: Profile
    alignment: Alignment
    name: str
    method: Method
    start: Checkpoint
    unconditional: Path | None
    reward: RewardModel | None

    def levels(self, name: str) -> dict[Attribute, int]:
        """The levels that the policy of a method is asked for; none for one that is tuned to none."""
        reward = self.reward
        return policy_levels(self.alignment, name, reward.outputs, str(reward.folder)) if reward else {}


# ------------------------------------------------------------------------------------------------------------------- what is asked for


def called(name: str, method: Method) -> str:
    """What people are told of a method: its name, and its kind where that is another word."""
    return name if name == method.kind else f"{name} ({method.kind})"


def named(profile: Profile, text: str) -> tuple[Alignment, str]:
    """A profile's section `alignment`, and its method that is meant: by its name, or by its kind, where no other is of that kind.

    Raises ValueError where there is none, or where it trains nothing.
    """
    wanted = profile.alignment
    if wanted is None:
        raise ValueError(
            f"profile {profile.name} has no section alignment, so there is no method to train; name a profile that has one (--profile aligned)"
        )
    of_kind = [name for name, method in wanted.methods.items() if method.kind == text]
    if text not in wanted.methods and len(of_kind) != 1:
        those = ", ".join(of_kind or wanted.methods)
        why = f"has several methods of the kind {text}; name one of" if of_kind else f"has no method {text}; it has"
        raise ValueError(f"profile {profile.name} {why}: {those}")
    name = text if text in wanted.methods else of_kind[0]
    method = wanted.methods[name]
    if isinstance(method, BestOfN):
        raise ValueError(
            f"{called(name, method)} trains nothing: it is the best of a policy's samples, so there is no policy to write"
        )
    return wanted, name


def wanted_of(
    profile: Profile,
    text: str,
    start: str | None = None,
    unconditional: Path | None = None,
    reward_model: Path | None = None,
    weights: str | None = None,
) -> Wanted:
    """What a command asks for by its options. Raises ValueError where one is missing, is of no use to the method, or can't be used."""
    wanted, name = named(profile, text)
    method = wanted.methods[name]
    reward = _reward_of(name, method, reward_model, weights)
    if isinstance(method, SteerLm2) and unconditional is None:
        raise ValueError(_missing(name, method, "--unconditional", method.unconditional))
    if not isinstance(method, SteerLm2) and unconditional:
        raise ValueError(f"--unconditional: {called(name, method)} has no use for it; leave it out")
    if unconditional:
        _refuse_others("--unconditional", unconditional)
    return Wanted(profile, wanted, name, method, _start_of(profile, wanted, name, start), unconditional, reward)


def _missing(name: str, method: Method, option: str, other: str) -> str:
    """Why the policy of another method is needed, and what makes it."""
    what = "is P(y|x)" if option == "--unconditional" else "it starts from"
    return f"{called(name, method)} needs the policy of {other}, which {what}: give its folder with {option} ({COMMAND} {other} IN FOLDER makes it)"


def _start_of(profile: Profile, wanted: Alignment, name: str, text: str | None) -> Checkpoint:
    """The model that a method starts from: what `text` names, a folder or a hub id, else the profile's checkpoint."""
    method, base = wanted.methods[name], profile.checkpoints[wanted.base_of(name)]
    if text is None:
        if not isinstance(method, Begins):
            raise ValueError(_missing(name, method, "--start", method.start))
        return base
    folder = Path(text).expanduser()
    # loaded as the checkpoint that the profile has in its place; its licence is where it comes from
    loaded = {"gguf": (), "terms": None, "chat_template": "tokenizer", "hub": None, "revision": None, "folder": None}
    if folder.is_dir():
        _refuse_others("--start", folder)
        return base.model_copy(
            update=loaded | {"folder": str(folder.absolute()), "licence": f"that of {folder.absolute().name}"}
        )
    if not HUB_ID.fullmatch(text):
        raise ValueError(f"--start {text}: is neither a folder nor a hub id (organisation/name)")
    hub, _, revision = text.partition("@")
    return base.model_copy(update=loaded | {"hub": hub, "revision": revision or None, "licence": f"that of {hub}"})


def _refuse_others(option: str, folder: Path) -> None:
    """Raise ValueError where a folder's model is no language model: a reward model, say."""
    if not folder.is_dir():
        raise ValueError(f"{option} {folder}: is no folder")
    place = resolve(Checkpoint(folder=str(folder), licence=""), Path())
    found = json.loads((place / "config.json").read_text(encoding="utf-8")).get("architectures") or []
    if found and not any(one.endswith(("ForCausalLM", "ForConditionalGeneration")) for one in found):
        raise ValueError(f"{option} {folder}: is no language model ({', '.join(found)}); give the folder of a policy")


def _reward_of(name: str, method: Method, folder: Path | None, weights: str | None) -> RewardModel | None:
    if not isinstance(method, Rewarded):
        if folder or weights:
            given = "--reward-model" if folder else "--weights"
            raise ValueError(f"{given}: {called(name, method)} is trained without rewards; leave it out")
        return None
    if folder is None:
        raise ValueError(
            f"{called(name, method)} needs a reward model: give its folder with --reward-model (python -m pipeline.reward_model train IN "
            "FOLDER makes one)"
        )
    if not folder.is_dir():
        raise ValueError(f"--reward-model {folder}: is no folder")
    from pipeline.evaluation.scorers.model import LocalModel

    model = LocalModel(ModelSpec(model=str(folder)), lambda _: None)
    parsed = parse_weights(weights, model.outputs) if weights else None
    factors = factors_of(model.outputs, parsed, str(folder))
    by = {output: float(factor) for output, factor in zip(model.outputs, factors, strict=True)}
    return RewardModel(folder.absolute(), model.outputs, by, model.version, raters_of_card(folder))


def raters_of_card(folder: Path) -> RatedBy | None:
    """Who gave the ratings that a reward model of this project learned from, as its card's tags say it; None where nobody knows."""
    card = folder / "README.md"
    head = re.match(r"---\n(.*?)\n---\n", card.read_text(encoding="utf-8"), re.DOTALL) if card.is_file() else None
    if head is None:
        return None
    try:
        read = yaml.safe_load(head[1])
    except yaml.YAMLError:
        return None
    tags = read.get("tags") if isinstance(read, dict) else None
    if not isinstance(tags, list) or not {"reward-model", "helpsteer"} <= set(map(str, tags)):
        return None
    said = next((str(tag).removeprefix("rated-by-") for tag in tags if str(tag).startswith("rated-by-")), "people")
    return next((who for who in get_args(RatedBy) if who.replace(" ", "-") == said), None)


# -------------------------------------------------------------------------------------------------------------------------- the data


def data_of(wanted: Wanted, source: Source, file: Path) -> data.TunedOn:
    """What a method is tuned on of a file that was read.

    DPO learns pairs: the file's, else those of responses that were rated differently. The others learn rated responses, or where the file has
    none, those of pairs; SFT needs to know the best of a prompt. Raises FileError where there is nothing of that kind, or too little to
    hold prompts out.
    """
    method, helpful = wanted.method, source.rated["helpfulness"]
    rated = len(source.rated) > 0 and not isinstance(method, Dpo)
    if isinstance(method, Sft) and helpful.null_count == len(helpful):
        if not len(source.preferred):
            raise FileError(
                f"{file}: has neither a rating of helpfulness nor a pair, so nothing says which response to a prompt is the best to learn; name "
                "the column that does (--columns helpfulness=COLUMN)"
            )
        rated = False
    if not rated and not len(source.preferred):
        raise FileError(
            f"{file}: gives no pair: bring pairs of chosen and rejected, or several responses to a prompt with different helpfulness"
        )
    share = wanted.alignment.held_out_share
    table, what = (source.rated, "responses") if rated else (source.preferred, "pairs")
    held_out = int(pc.sum(pc.equal(with_split(table, share)["split"], "development")).as_py())
    if not held_out or held_out == len(table):
        raise FileError(
            f"{file}: has too few prompts to hold some out ({len(table) - held_out} {what} to train on, {held_out} held out): bring more, or change "
            f"the profile's alignment.held_out_share ({share:g})"
        )
    recipe = data.recipe_of(wanted.alignment, wanted.profile, rated)
    return data.of_source(source, recipe, DATASET.empty_table(), {}, wanted.profile.decontamination)


def version_of(wanted: Wanted, file: Path, columns: Mapping[str, str]) -> str:
    """Hash of all that training depends on beside its settings and the model that it starts from: 12 hex digits."""
    other, reward = wanted.unconditional, wanted.reward
    return digest(
        [
            _content(file),
            sorted(columns.items()),
            wanted.alignment.held_out_share,
            wanted.levels(wanted.name),
            identity(wanted.start),
            identity(Checkpoint(folder=str(other), licence="")) if other else None,
            [reward.version, reward.weights] if reward else None,
        ]
    )


def _content(file: Path) -> str:
    """Hash of a file's content."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def note_of(wanted: Wanted, file: Path, said: RatedBy | None) -> tuple[RatedBy | None, str]:
    """Who gave the ratings that a policy rests on, and what its card says of them.

    Rewards rest on the reward model's ratings, all else on the file's. said: what the file, or the command, says.
    """
    if said:
        return said, RATINGS_NOTES[said]
    if wanted.reward:
        return (
            None,
            f"Rewards are of {wanted.reward.folder.name}, whose card does not say who gave the ratings that it learned from.",
        )
    return None, f"Trained on the file {file.name}, which does not say who gave its ratings."


# --------------------------------------------------------------------------------------------------------------------------- training


@dataclass(frozen=True)
class Places:
    """Folders of a run.

    tables: what its steps hand over, gone afterwards; kept: what it goes on from when it was cut off; out: where the policy is written.
    """

    tables: UPath
    kept: Path
    out: UPath


def train(
    wanted: Wanted,
    given: data.TunedOn,
    version: str,
    places: Places,
    raters: tuple[RatedBy | None, str],
    tracking: Path | None,
    file: Path,
    log: Log,
) -> Figures:
    """Score and sample what the method needs, each in a process of its own, and train it in this one: the worker's figures.

    version: see `version_of`; raters: see `note_of`. Raises ValueError and RuntimeError with what to do.
    """
    profile, method, tables = wanted.profile, wanted.method, places.tables
    responses, pairs = tables / "responses.parquet", tables / "pairs.parquet"
    write_table(given.responses, responses)
    write_table(given.pairs, pairs)
    scored, sampled, reward = None, None, None
    if wanted.reward:
        log(f"Scoring {len(given.responses)} responses of the file, by which rewards are standardised")
        scores = _scores(wanted, "responses", samples.items_of(given.responses), places, log)
        table, standard = samples.scored_data(given.responses, scores)
        reward = Rewarding(
            model=wanted.reward.folder, weights=wanted.reward.weights, mean=standard.mean, sd=standard.sd
        )
        if isinstance(method, SteerLm):
            scored = tables / "scored.parquet"
            write_table(table, scored)
        if isinstance(method, Sampled):
            drawn = _samples(wanted, method, given.responses, places, log)
            scores = _scores(wanted, "samples", samples.items_of(drawn), places, log)
            sampled = tables / "samples.parquet"
            found = samples.with_scores(drawn, scores, standard)
            if isinstance(method, IterativeDpo):
                _refuse_no_pair(found)
            write_table(found, sampled)
            # what was refused is asked again, and may be answered then
            version = digest([version, _content(local_path(sampled))])
    from pipeline.alignment.worker import work

    spec = TuningSpec(
        method=method,
        name=wanted.name,
        start=wanted.start,
        unconditional=wanted.unconditional,
        responses=responses,
        pairs=pairs,
        scored=scored,
        samples=sampled,
        reward=reward,
        levels=wanted.levels(wanted.name),
        data_version=version,
        work=places.kept / "training",
        cache=_cache(profile),
        seed=profile.seed,
        tracking=tracking,
        licences=(wanted.start.licence, given.licence or f"not stated for {file.name}"),
        recipe=wanted.reward.name if wanted.reward else "",
        rated_by=raters[0],
        ratings_note=raters[1],
        out=places.out,
    )
    figures = work(spec, log)
    if not figures["finite"]:
        raise ValueError(
            f"{wanted.name}: training ended with weights that are no finite numbers; lower its learning_rate, or set its precision to float32"
        )
    return figures


def _cache(profile: Profile) -> Path:
    """Folder of unpacked models."""
    return Path(profile.store) / ".cache"


def _environment(profile: Profile) -> dict[str, str]:
    return {**QUIET, **threads(), "VLLM_CPU_KVCACHE_SPACE": str(profile.compute.kv_cache_gib)}


def _scores(wanted: Wanted, what: str, items: pa.Table, places: Places, log: Log) -> pa.Table:
    """What the reward model says of items, in the schema SCORES."""
    reward, given, out = wanted.reward, places.tables / f"{what}_items.parquet", places.tables / f"{what}_scores"
    if reward is None:
        raise ValueError(f"{wanted.name}: there is no reward model")
    write_table(items, given)
    out.mkdir()
    spec = ScoringSpec(
        scorer=ModelSpec(model=str(reward.folder)),
        input=given,
        work=UPath(places.kept / "scores"),
        weights=reward.weights,
        processes=wanted.profile.compute.processes,
        out=out,
    )
    apart("scoring", spec, _environment(wanted.profile), log)
    return read_table(out / "scores.parquet")


def _samples(wanted: Wanted, method: Sampled, responses: pa.Table, places: Places, log: Log) -> pa.Table:
    """Samples of the policy that a method starts from, in the schema SAMPLES."""
    profile, drawn, tables = wanted.profile, method.samples, places.tables
    prompts = samples.prompts_of(responses, data.TRAIN, drawn, profile.seed)
    asked = samples.requests_of(prompts, wanted.name, drawn, profile.seed, wanted.levels(method.start))
    log(f"Sampling {drawn.responses} responses to each of {len(prompts) // drawn.responses} prompts")
    write_table(asked, tables / "requests.parquet")
    out = tables / "answers"
    out.mkdir()
    engine = EngineSpec.of(profile, wanted.start, _cache(profile))
    spec = ResponsesSpec(input=tables / "requests.parquet", work=UPath(places.kept / "samples"), engine=engine, out=out)
    apart("sampling", spec, _environment(profile), log)
    answers = read_table(out / "answers.parquet")
    table, refused = samples.samples_of(prompts, answers)
    if refused:
        reason = next(detail for detail in answers["detail"].to_pylist() if detail)
        log(f"{refused} of {len(answers)} samples are missing, as the engine refused the prompt; the first: {reason}")
    if not len(table):
        raise ValueError(f"no prompt could be sampled, so there is nothing to learn from; the engine says: {reason}")
    return table


def _refuse_no_pair(scored: pa.Table) -> None:
    """Raise ValueError where no prompt's samples, in the schema SCORED, give a pair."""
    pairs, left_out = best_and_worst(scored)
    if not len(pairs):
        why = ", ".join(f"{reason}: {n}" for reason, n in left_out.items())
        raise ValueError(
            f"no prompt's samples give a pair ({why}); draw more or longer ones (samples.responses, samples.sampling.max_tokens)"
        )
