"""Data to tune on, samples of policies, their rewards, and the policies of the profile's methods."""

import shutil
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import dagster as dg
import pyarrow as pa
import pyarrow.compute as pc

from assets.published import Published, work
from pipeline.alignment import data, expectations, samples, schema, shown
from pipeline.alignment.goodness import Standard
from pipeline.alignment.log_probs_worker import Asked, LogProbsSpec
from pipeline.alignment.spec import Rewarding, TuningSpec
from pipeline.alignment.steerlm import policy_levels
from pipeline.benchmarks import loading
from pipeline.dataset.raters import raters_of
from pipeline.engines.spec import EngineSpec
from pipeline.evaluation import weights
from pipeline.evaluation.scorers.specs import ModelSpec
from pipeline.evaluation.worker import ScoringSpec
from pipeline.gate import Made
from pipeline.responses.worker import ResponsesSpec
from pipeline.reward_model import sources
from pipeline.settings import (
    ENGINE_POOL,
    Alignment,
    BestOfN,
    Checkpoint,
    Method,
    Origin,
    Profile,
    Rewarded,
    Sampled,
    Samples,
    SteerLm,
    SteerLm2,
)
from pipeline.store import DATA, Store, local_path, read_table
from pipeline.vocabulary import Attribute
from resources.compute import Compute
from resources.storage import Storage
from resources.tracking import TensorBoard

STAGE = "alignment"
PAIRS = "pairs.parquet"
"""File beside the data: preferences."""
STEERED = "steered.parquet"
"""File beside a policy's rewards: what is measured of it beside what it was asked for."""
CONVERSED = "licences of conversations"
"""Fact of the data's manifest: the licence of each source of conversations, by its name."""
REWARD = ("reward_model", "attribute_weights")
"""Assets that give rewards."""


def build(profile: Profile) -> list[dg.AssetsDefinition]:
    """The stage's assets for a profile; none where it aligns nothing."""
    wanted = profile.alignment
    if wanted is None:
        return []
    made = [_alignment_data(profile, wanted), _scored_data(profile, wanted)]
    evaluated = wanted.evaluated
    if evaluated:
        made += [_policy_rewards(profile, wanted, evaluated, base, None) for base in _bases(profile, wanted)]
    for name, method in wanted.methods.items():
        if isinstance(method, Sampled | BestOfN):
            made += [_policy_samples(profile, wanted, name, method), _scored_samples(profile, wanted, name)]
        if not isinstance(method, BestOfN):
            made += [_aligned(profile, wanted, name, method)]
            made += [_policy_rewards(profile, wanted, evaluated, name, method)] if evaluated else []
    return made


def _bases(profile: Profile, wanted: Alignment) -> list[str]:
    """Checkpoints that methods start from, whose rewards stand beside theirs: those that have a chat template."""
    found = dict.fromkeys(wanted.base_of(name) for name in wanted.methods)
    return [base for base in found if profile.checkpoints[base].chat_template == "tokenizer"]


def _alignment_data(profile: Profile, wanted: Alignment) -> dg.AssetsDefinition:
    against = {name: b for name, b in profile.benchmarks.items() if b.kind != "collected"}
    named = profile.training_data.get(wanted.data)

    @Published(
        "alignment_data",
        STAGE,
        schema.TUNED_ON,
        expectations.ALIGNMENT_DATA,
        "2",
        modules=("pipeline.alignment.data", "pipeline.benchmarks.loading"),
        parts=(
            *(wanted.data, wanted.held_out_share, named, profile.decontamination, *profile.benchmarks),
            *(*profile.benchmarks.values(), *map(loading.content, profile.benchmarks.values())),
            *(*wanted.conversations, *wanted.conversations.values()),
        ),
        deps=("helpsteer_dataset",),
    ).asset
    def alignment_data(context: dg.AssetExecutionContext, storage: Storage) -> Made:
        """Responses, pairs and conversations that policies are tuned on, without prompts of a benchmark or a validation split; some are held out."""
        store = storage.store()
        collected = store.read("helpsteer_dataset", columns=sources.COLUMNS)
        texts = {n: loading.load(n, b, collected).items["messages"] for n, b in against.items()}
        made = data.tuned_on(wanted, profile, collected, texts)
        beside = {PAIRS: made.pairs, "dropped.parquet": made.dropped, "quarantine.parquet": made.quarantine}
        if made.reports:
            beside["rejected.parquet"] = pa.concat_tables(report.rejected_table() for report in made.reports)
        for report in made.reports:
            context.log.info(
                f"Conversations {report.source}: {report.records} records were read, {report.kept} were kept; {report.end}"
            )
        return Made(
            made.responses,
            views=expectations.data_views(made.responses),
            beside=beside,
            shown=shown.data(made, raters_of(store, profile, wanted.recipe).said),
            info={"data": wanted.data, "licence": made.licence, CONVERSED: dict(made.licences), **made.counts},
        )

    return alignment_data


def _scored_data(profile: Profile, wanted: Alignment) -> dg.AssetsDefinition:
    # conversations are many: they are scored only where a method learns the levels that the reward model gives them
    steered = {wanted.origin_of(name) for name, method in wanted.methods.items() if isinstance(method, SteerLm)}
    told: tuple[Origin, ...] = ("conversations",) if "conversations" in steered else ()

    @Published(
        "scored_data",
        STAGE,
        schema.SCORED_DATA,
        expectations.SCORED_DATA,
        "2",
        modules=("pipeline.evaluation.worker", "pipeline.alignment.samples"),
        parts=(wanted.recipe, *told),
        deps=("alignment_data", *REWARD),
        kinds=("pytorch", "parquet"),
        pool=ENGINE_POOL,
    ).asset
    def scored_data(context: dg.AssetExecutionContext, storage: Storage, compute: Compute) -> Made:
        """What the reward model predicts of the data's responses, whose goodness standardises rewards, and of conversations that SteerLM learns."""
        store = storage.store()
        run = Run(context, compute, store, profile)
        table = samples.of_origins(store.read("alignment_data"), "data", *told)
        scores = _scores(run, "scored_data", wanted.recipe, samples.items_of(table))
        made, standard = samples.scored_data(table, scores)
        said = raters_of(store, profile, wanted.recipe).said
        return Made(
            made,
            views=expectations.scored_views(made, standard.sd),
            shown=shown.scores(made, standard.mean, standard.sd, said),
            info={"mean": standard.mean, "sd": standard.sd},
        )

    return scored_data


def _policy_samples(profile: Profile, wanted: Alignment, name: str, method: Sampled | BestOfN) -> dg.AssetsDefinition:
    base, split = profile.checkpoints[wanted.base_of(name)], "held_out" if isinstance(method, BestOfN) else "train"
    levels, origin = _levels(profile, wanted, method.start), wanted.origin_of(name)

    @Published(
        f"policy_samples/{name}",
        STAGE,
        schema.SAMPLES,
        expectations.POLICY_SAMPLES,
        "1",
        modules=("pipeline.responses.worker", "pipeline.alignment.samples"),
        parts=(method.samples, split, *_origin(wanted, name), *map(str, levels.items()), base.core, profile.seed),
        deps=("alignment_data", f"aligned/{method.start}"),
        kinds=("vllm", "parquet"),
        pool=base.pool,
        description=f"Responses that the policy `{method.start}` gives to prompts of the split {split} of the {origin}, for the method `{name}`.",
    ).asset
    def policy_samples(context: dg.AssetExecutionContext, storage: Storage, compute: Compute) -> Made:
        store = storage.store()
        policy = _policy(store, base, method.start)
        table, refused, figures = _sampled(
            Run(context, compute, store, profile),
            f"policy_samples/{name}",
            policy,
            name,
            method.samples,
            split,
            levels,
            origin,
        )
        return Made(
            table,
            views=expectations.sample_views(table, refused),
            shown=shown.samples(table, refused, figures),
            info=figures,
        )

    return policy_samples


def _scored_samples(profile: Profile, wanted: Alignment, name: str) -> dg.AssetsDefinition:
    @Published(
        f"scored_samples/{name}",
        STAGE,
        schema.SCORED,
        expectations.SCORED_SAMPLES,
        "1",
        modules=("pipeline.evaluation.worker", "pipeline.alignment.samples"),
        parts=(wanted.recipe,),
        deps=(f"policy_samples/{name}", "alignment_data", "scored_data", *REWARD),
        kinds=("pytorch", "parquet"),
        pool=ENGINE_POOL,
        description=f"The samples of the method `{name}` with what the reward model of `{wanted.recipe}` says of them.",
    ).asset
    def scored_samples(context: dg.AssetExecutionContext, storage: Storage, compute: Compute) -> Made:
        store = storage.store()
        run = Run(context, compute, store, profile)
        table = store.read(f"policy_samples/{name}")
        scores = _scores(run, f"scored_samples/{name}", wanted.recipe, samples.items_of(table))
        made = samples.with_scores(table, scores, _standard(store))
        return Made(
            made,
            views=expectations.scored_views(made),
            shown=shown.scored(made),
        )

    return scored_samples


def _aligned(profile: Profile, wanted: Alignment, name: str, method: Method) -> dg.AssetsDefinition:
    base = profile.checkpoints[wanted.base_of(name)]
    deps = ["alignment_data", *(f"aligned/{start}" for start in wanted.starts_of(name))]
    deps += ["scored_data", *REWARD] * isinstance(method, Rewarded)
    deps += [f"scored_samples/{name}"] * isinstance(method, Sampled)
    note = f" {profile.ratings_note_of_all}".rstrip()

    @Published(
        f"aligned/{name}",
        STAGE,
        None,
        expectations.ALIGNED,
        "1",
        modules=("pipeline.alignment.worker",),
        parts=(method, *_origin(wanted, name), base.core, wanted.recipe, profile.seed),
        deps=deps,
        kinds=("pytorch", "huggingface"),
        pool=ENGINE_POOL,
        description=f"Policy of the method `{name}` ({method.kind}), in Hugging Face format, with its curve and a card.{note}",
    ).asset
    def aligned(context: dg.AssetExecutionContext, storage: Storage, compute: Compute, tracking: TensorBoard) -> Made:
        store = storage.store()
        spec = _spec(store, profile, wanted, name, method, tracking.place(f"aligned-{name}", context.run.run_id))
        figures = compute.run(context, spec)
        curve, watched = (read_table(spec.out / f"{name}.parquet") for name in ("curve", "watched"))
        said = raters_of(store, profile, wanted.recipe).said
        return Made(
            folder=spec.out,
            views=expectations.aligned_views(figures),
            shown=shown.policy(figures, curve, watched, f"{wanted.recipe}. {said}"),
            info={n: value for n, value in figures.items() if not isinstance(value, list | dict)},
            rows=int(str(figures["rows"])),
            then=partial(shutil.rmtree, spec.work, ignore_errors=True),
        )

    return aligned


def _policy_rewards(
    profile: Profile, wanted: Alignment, evaluated: Samples, name: str, method: Method | None
) -> dg.AssetsDefinition:
    """Rewards on held-out prompts of a method's policy, or, without one, of a checkpoint before any."""
    base = profile.checkpoints[wanted.base_of(name) if method else name]
    before = _before(profile, wanted, name, method)
    key = f"policy_rewards/{name}" if method else f"policy_rewards/base_{name}"
    levels = _levels(profile, wanted, name) if method else {}
    watched = [wanted.recipe, *([wanted.second] if wanted.second else [])]

    @Published(
        key,
        STAGE,
        schema.REWARDS,
        expectations.POLICY_SAMPLES,
        "1",
        modules=(
            "pipeline.responses.worker",
            "pipeline.evaluation.worker",
            "pipeline.alignment.log_probs_worker",
            "pipeline.alignment.samples",
        ),
        parts=(
            evaluated,
            *watched,
            *(wanted.steered if levels else ()),
            *map(str, levels.items()),
            base.core,
            profile.seed,
        ),
        deps=(
            "alignment_data",
            "scored_data",
            *REWARD,
            *([f"aligned/{name}"] if method else []),
            *([before] if before else []),
        ),
        kinds=("vllm", "pytorch", "parquet"),
        pool=base.pool,
        description=f"Samples of {f'the policy `{name}`' if method else f'the checkpoint `{name}`, before any method,'} on held-out prompts, with "
        f"rewards by `{'` and `'.join(watched)}`, length, and the divergence from the policy before.",
    ).asset
    def policy_rewards(context: dg.AssetExecutionContext, storage: Storage, compute: Compute) -> Made:
        store = storage.store()
        run = Run(context, compute, store, profile)
        policy = _policy(store, base, name) if method else base
        table, refused, figures = _sampled(run, key, policy, name, evaluated, "held_out", levels)
        items = samples.items_of(table)
        mine, *second = [_scores(run, f"{key}_{recipe}", recipe, items) for recipe in watched]
        policies = {"policy": Asked(checkpoint=policy, levels=levels)}
        if before:
            policies["before"] = _before_of(store, profile, wanted, name)
        spec = partial(LogProbsSpec, policies=policies, cache=store.cache(), max_tokens=base.max_context)
        left = work(context, compute, store, f"{key}_log_probs", spec, reads=("log_probs",), given=table)["log_probs"]
        made = samples.rewards(table, mine, second[0] if second else None, _standard(store), left)
        steered = _steered(run, wanted, evaluated, key, policy, name, levels)
        earlier = store.read(before) if before else None
        said = raters_of(store, profile, wanted.recipe).said
        return Made(
            made,
            views=expectations.sample_views(made, refused),
            beside={} if steered is None else {STEERED: steered},
            shown=shown.rewards(made, earlier, said) | ({} if steered is None else shown.steered(steered)),
            info=figures,
        )

    return policy_rewards


# ---------------------------------------------------------------------------------------------------------------------------- parts


def _origin(wanted: Alignment, name: str) -> tuple[Origin, ...]:
    """Part of the version of what is made with a method: where it takes conversations, that it does."""
    origin = wanted.origin_of(name)
    return () if origin == "data" else (origin,)


def _licences(store: Store, wanted: Alignment, name: str) -> tuple[str, ...]:
    """Licences of the data, and of the conversations' sources where a method, or one whose policy it needs, takes these."""
    info = store.published("alignment_data").info
    told = info[CONVERSED].values() if "conversations" in wanted.origins_of(name) else ()
    return str(info["licence"]), *map(str, told)


class Run(NamedTuple):
    """What the parts of a step run with."""

    context: dg.AssetExecutionContext
    compute: Compute
    store: Store
    profile: Profile


def _before(profile: Profile, wanted: Alignment, name: str, method: Method | None) -> str | None:
    """Key of the rewards of the policy that a method started from; None for a checkpoint, and for a method that starts from one without any."""
    if method is None:
        return None
    starts, base = wanted.starts_of(name), wanted.base_of(name)
    if starts:
        return f"policy_rewards/{starts[0]}"
    return f"policy_rewards/base_{base}" if base in _bases(profile, wanted) else None


def _before_of(store: Store, profile: Profile, wanted: Alignment, name: str) -> Asked:
    """The policy that a method started from, and the levels that it is asked for."""
    base, starts = profile.checkpoints[wanted.base_of(name)], wanted.starts_of(name)
    if not starts:
        return Asked(checkpoint=base)
    return Asked(checkpoint=_policy(store, base, starts[0]), levels=_levels(profile, wanted, starts[0]))


def _policy(store: Store, base: Checkpoint, name: str) -> Checkpoint:
    """A method's policy as a checkpoint: the published folder, loaded as the one that it came from; a policy has a chat template."""
    folder = str(local_path(store.path(f"aligned/{name}")))
    changed = {"hub": None, "revision": None, "gguf": (), "folder": folder, "terms": None, "chat_template": "tokenizer"}
    return base.model_copy(update=changed)


def _levels(profile: Profile, wanted: Alignment, name: str) -> dict[Attribute, int]:
    """The levels that a method's policy is asked for, where it was tuned to them: those of the attributes that the reward model predicts."""
    return policy_levels(wanted, name, profile.recipes[wanted.recipe].outputs, wanted.recipe)


def _sampled(
    run: Run,
    key: str,
    policy: Checkpoint,
    name: str,
    wanted: Samples,
    split: str,
    levels: dict[Attribute, int],
    origin: Origin = "data",
) -> tuple[pa.Table, int, dict[str, Any]]:
    """Samples of a policy (schema SAMPLES), how many requests were refused, and the engine's figures."""
    prompts = samples.prompts_of(run.store.read("alignment_data"), split, wanted, run.profile.seed, origin)
    asked = samples.requests_of(prompts, name, wanted, run.profile.seed, levels)
    answers, figures = _answered(run, key, policy, asked)
    table, refused = samples.samples_of(prompts, answers)
    return table, refused, figures


def _steered(
    run: Run,
    wanted: Alignment,
    evaluated: Samples,
    key: str,
    policy: Checkpoint,
    name: str,
    levels: dict[Attribute, int],
) -> pa.Table | None:
    """What is measured of a policy beside what it is asked for (schema STEERED); None for one that is asked for nothing."""
    made = samples.steered(
        run.store.read("alignment_data"), name, evaluated, run.profile.seed, levels, wanted.steered if levels else ()
    )
    if not len(made.requests):
        return None
    answers, _ = _answered(run, key, policy, made.requests)
    there = pc.not_equal(answers["finish_reason"], "refused")
    table, _ = samples.samples_of(made.prompts, answers)
    scores = _scores(run, f"{key}_steered", wanted.recipe, samples.items_of(table))
    return samples.measured(made.asked.filter(there), table, scores)


def _answered(
    run: Run,
    key: str,
    policy: Checkpoint,
    asked: pa.Table,
) -> tuple[pa.Table, dict[str, Any]]:
    """A policy's answers to requests (schema REQUESTS), and the engine's figures. key: of the folder of what was answered before."""
    engine = EngineSpec.of(run.profile, policy, run.store.cache())
    spec = partial(ResponsesSpec, work=run.store.work(key), engine=engine)
    left = work(run.context, run.compute, run.store, key, spec, reads=("answers",), given=asked)
    return left["answers"], {n: v for n, v in left.figures.items() if not isinstance(v, list | dict)}


def _scores(
    run: Run,
    key: str,
    recipe: str,
    items: pa.Table,
) -> pa.Table:
    """What a recipe's reward model says of items, in the schema SCORES."""
    spec = partial(
        ScoringSpec,
        scorer=ModelSpec(model=str(local_path(run.store.path("reward_model", recipe)))),
        work=run.store.work(key),
        weights=weights.by_output(run.store.read("attribute_weights", recipe)),
        processes=run.profile.compute.processes,
    )
    return work(run.context, run.compute, run.store, key, spec, reads=("scores",), given=items)["scores"]


def _standard(store: Store) -> Standard:
    """By what rewards are standardised."""
    info = store.published("scored_data").info
    return Standard(info["mean"], info["sd"])


def _rewarding(store: Store, recipe: str) -> Rewarding:
    standard = _standard(store)
    return Rewarding(
        model=local_path(store.path("reward_model", recipe)),
        weights=weights.by_output(store.read("attribute_weights", recipe)),
        mean=standard.mean,
        sd=standard.sd,
    )


def _spec(
    store: Store, profile: Profile, wanted: Alignment, name: str, method: Method, tracked: str | None
) -> TuningSpec:
    """What the worker is to train. tracked: folder for the curves."""
    base, recipe, raters = (
        profile.checkpoints[wanted.base_of(name)],
        wanted.recipe,
        raters_of(store, profile, wanted.recipe),
    )
    starts, sampled = wanted.starts_of(name), isinstance(method, Sampled)
    rewarded = isinstance(method, Rewarded)
    versions: Sequence[str | None] = [
        store.version("alignment_data"),
        *(store.version(f"aligned/{start}") for start in starts),
        store.version("scored_data") if rewarded else None,
        *(store.version(key, recipe) if rewarded else None for key in REWARD),
        store.version(f"scored_samples/{name}") if sampled else None,
    ]
    return TuningSpec(
        method=method,
        name=name,
        start=_policy(store, base, starts[0]) if starts else base,
        unconditional=local_path(store.path(f"aligned/{method.unconditional}"))
        if isinstance(method, SteerLm2)
        else None,
        responses=store.path("alignment_data", name=DATA),
        origin=wanted.origin_of(name),
        pairs=store.path("alignment_data", name=PAIRS),
        scored=store.path("scored_data", name=DATA) if isinstance(method, SteerLm) else None,
        samples=store.path(f"scored_samples/{name}", name=DATA) if sampled else None,
        reward=_rewarding(store, recipe) if rewarded else None,
        levels=_levels(profile, wanted, name),
        data_version="/".join(str(version) for version in versions),
        work=local_path(store.work(f"aligned/{name}")),
        cache=store.cache(),
        seed=profile.seed,
        tracking=tracked,
        licences=(base.licence, *_licences(store, wanted, name)),
        recipe=recipe,
        rated_by=raters.by,
        ratings_note=raters.note,
        out=store.staging(f"aligned/{name}"),
    )
