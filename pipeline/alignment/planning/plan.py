"""What each method of a profile takes, from its settings and from numbers of the data: what its assets run, and nothing else.

Everything that a method's assets do is counted: `policy_samples`, `scored_samples`, `aligned` and `policy_rewards`. What all methods share stands
apart: `scored_data`, and the rewards of the checkpoints that they start from. Formulas are in `pipeline.alignment.planning.costs`.

    sft, steerlm      epochs over the conversations that fit; the held-out ones forward before the first step and at every evaluation
    dpo               the reference's log-probabilities of all pairs once, before the first step, so that no second model is kept; then two
                      responses a pair
    iterative_dpo     samples, their rewards, and dpo on at most a pair a prompt
    best_of_n         samples to held-out prompts, and their rewards
    ppo               a round: samples by the trainer, their rewards, policy, reference and value model forward, and `passes` times policy and
                      value model forward and backward. All stay in memory: policy and value model with their optimisers, the reference (none
                      with adapters, without which the policy is it), and the reward model
    rloo              likewise without a value model, `responses` to each prompt
    steerlm2          samples, their rewards, log P(y|x) and log Q'(y|a,x) once; then a pass without gradients for b, one forward and backward

Scores are computed in float32, and so are the log-probabilities of `policy_rewards`, whatever a method computes in. Padding isn't counted, nor is the
time to load, start and save. Training is sharded in this plan where one device doesn't hold it, as reward models are; the worker has one process.
"""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from pipeline.alignment.planning import costs
from pipeline.alignment.planning.costs import Machine, Need
from pipeline.alignment.planning.data import NODE_HOURS, ORIGINAL, Data, Lengths
from pipeline.alignment.planning.parts import WORK, Cost, MethodPlan, Parts, Work, alignment_of
from pipeline.reward_model.planning.plan import HEADROOM
from pipeline.reward_model.planning.published import CHARACTERS_A_TOKEN, published
from pipeline.reward_model.planning.shapes import PlanError
from pipeline.settings import COLLECTED, BestOfN, Dpo, IterativeDpo, Ppo, Profile, Rloo, Sft, SteerLm, SteerLm2, Tuning


def plan(
    profile: Profile,
    data: Data,
    machine: Machine,
    method: str | None = None,
    per_token: float = CHARACTERS_A_TOKEN,
) -> list[MethodPlan]:
    """What a profile's methods take, in order, after what all of them share; or one of them alone.

    per_token: characters a token, of messages that ask for levels. Raises PlanError for a profile that aligns nothing, an unknown method or
    model, and where nothing is left to train on.
    """
    parts = Parts(profile, data, machine, per_token)
    methods = parts.wanted.methods
    if method is None:
        return [*_shared(parts), *(_method(parts, name) for name in methods)]
    if method not in methods:
        raise PlanError(f"profile {profile.name} has no method {method}; it has: {', '.join(methods)}")
    return [_method(parts, method)]


def _shared(parts: Parts) -> list[MethodPlan]:
    """`scored_data`, and `policy_rewards` of the checkpoints that methods start from."""
    rewards, rated = parts.rewards(), parts.data.rated.texts(parts.data.rows)
    scored = MethodPlan("scored_data", costs={"scoring": parts.score(rewards, rated)}, needs=(parts.scorer(rewards),))
    if parts.wanted.evaluated is None:
        return [scored]
    return [scored, *(MethodPlan(f"base_{base}").beside(parts.judged(base)) for base in parts.bases)]


def _method(parts: Parts, name: str) -> MethodPlan:
    match parts.wanted.methods[name]:
        case Sft() | SteerLm() as method:
            found = _sft(parts, name, method)
        case Dpo() as method:
            found = _dpo(parts, name, method)
        case IterativeDpo() as method:
            found = _iterative_dpo(parts, name, method)
        case Ppo() | Rloo() as method:
            found = _online(parts, name, method)
        case SteerLm2() as method:
            found = _steerlm2(parts, name, method)
        case BestOfN() as method:
            held_out = parts.split(parts.data.prompts)[1]
            sampled = parts.sampled(name, method.start, method.samples, held_out)
            mine = MethodPlan(
                name, method.kind, "held-out prompts", sampled.prompts, parameters=parts.policy(name).parameters
            )
            return mine.beside(sampled.plan)
    return found.beside(parts.judged(name))


# ------------------------------------------------------------------------------------------------------------------ methods by epochs


def _sft(parts: Parts, name: str, method: Sft | SteerLm) -> MethodPlan:
    lengths = parts.data.learned.asked(parts.asking(name))
    if isinstance(method, SteerLm):
        lengths = lengths.last_alone
    fitting, share = lengths.fitting(method.max_tokens, name)
    train, held_out = (round(n * share) for n in parts.split(parts.data.prompts))
    return _epochs(parts, name, method, "conversations", (fitting, train), (fitting, held_out))


def _dpo(parts: Parts, name: str, method: Dpo) -> MethodPlan:
    if not parts.data.pairs:
        raise PlanError(f"{name}: learns from preferences; give --pairs, or a file that has them")
    fitting, share = parts.data.paired.fitting(method.max_tokens, name)
    train, held_out = (round(n * share) for n in parts.split(parts.data.pairs))
    return _epochs(parts, name, method, "pairs", (fitting, train), (fitting, held_out))


def _iterative_dpo(parts: Parts, name: str, method: IterativeDpo) -> MethodPlan:
    sampled = parts.sampled(name, method.start, method.samples, parts.split(parts.data.prompts)[0])
    pairs, share = sampled.plain.each(2).fitting(method.max_tokens, name)
    held_out, others = parts.split(parts.data.pairs)[1], (pairs, 0)
    if held_out:  # the data's own
        fitting, fits = parts.data.paired.fitting(method.max_tokens, name)
        others = (fitting, round(held_out * fits))
    mine = _epochs(parts, name, method, "pairs", (pairs, round(sampled.prompts * share)), others)
    return mine.beside(sampled.plan)


def _epochs(
    parts: Parts,
    name: str,
    method: Sft | SteerLm | Dpo | IterativeDpo,
    unit: str,
    mine: tuple[Lengths, int],
    others: tuple[Lengths, int],
) -> MethodPlan:
    """Training by TRL for so many epochs over rows. mine, others: lengths of those to train on and of those held out, and how many they are."""
    lengths, units = mine
    if not units:
        raise PlanError(f"{name}: nothing is left to train on; give more, or lower alignment.held_out_share")
    policy, precision = parts.policy(name, method.lora), parts.precision(method)
    texts, held_out = (parts.by_trl(of.texts(count)) for of, count in (mine, others))
    steps = _steps(units, method.batch_size, method.epochs)
    looks = _looks(steps, method)
    costs_of: dict[Work, Cost] = {
        "training": parts.learn(policy, texts, precision, fused=True).times(method.epochs),
        "again": parts.again(method, policy, texts, precision).times(method.epochs),
        "evaluations": parts.read(policy, held_out, precision).times(looks)
        + parts.watched(name, policy, method, looks),
    }
    if isinstance(method, Dpo | IterativeDpo):
        costs_of["reading"] = parts.read(policy, texts, precision) + parts.read(policy, held_out, precision)
    responses = lengths.response.shape[1]
    tokens = _in_a_pass(method, responses * lengths.longest(method.max_tokens), method.batch_size)
    logits = costs.fused_logits(policy, tokens, precision)
    return MethodPlan(
        name,
        method.kind,
        unit,
        units,
        steps,
        policy.parameters,
        policy.trained,
        learned=method.epochs * lengths.texts(units).predicted,
        costs=costs_of,
        needs=(_training(parts, method, [policy], parts.watching(method), tokens, precision, logits),),
    )


# --------------------------------------------------------------------------------------------------------- methods on a policy's samples


def _online(parts: Parts, name: str, method: Ppo | Rloo) -> MethodPlan:
    """A policy that is sampled from as it is trained."""
    most, each = method.max_new_tokens, method.responses if isinstance(method, Rloo) else 1
    policy, precision, rewards = parts.policy(name, method.lora), parts.precision(method), parts.rewards()
    fitting, share = parts.data.learned.leaving(method.max_tokens - most, name)
    prompts = round(parts.split(parts.data.prompts)[0] * share)
    if not prompts:
        raise PlanError(
            f"{name}: no prompt is left to sample responses to; give more, or lower alignment.held_out_share"
        )
    answered, a_round = fitting.answered(most), method.batch_size * each
    drawn = costs.by_trainer(policy, answered, a_round, most, precision, parts.machine)
    texts = answered.texts(method.steps * a_round)
    trained = [policy]
    if isinstance(method, Ppo):
        if rewards.shape.pooler:
            raise PlanError(
                f"{name}: the recipe {parts.wanted.recipe} has an encoder, from which no value model can start"
            )
        trained.append(rewards.giving(1))
    seen = texts.everywhere if isinstance(method, Ppo) else parts.by_trl(texts)
    learned = [parts.learn(model, seen, precision, fused=isinstance(method, Rloo)) for model in trained]
    read = [parts.read(model, seen, precision) for model in (*trained, policy.plain)]
    tokens = _in_a_pass(method, min(method.max_tokens, fitting.longest_prompt(method.max_tokens) + most), a_round)
    if isinstance(method, Ppo):
        part = most / (most + float(fitting.prompt.mean()))
        logits = costs.ppo_logits(policy, tokens, part, precision, method.entropy > 0)
    else:
        logits = costs.fused_logits(policy, tokens, precision)
    reference = 0 if method.lora else policy.parameters
    frozen = reference + rewards.parameters
    return MethodPlan(
        name,
        method.kind,
        "prompts",
        min(prompts, method.steps * method.batch_size),
        method.steps,
        policy.parameters,
        policy.trained,
        sampled=texts.predicted,
        sampled_most=float(method.steps * a_round * most),
        learned=method.passes * texts.predicted,
        costs={
            "sampling": Cost(drawn.tokens, drawn.operations, drawn.hours).times(method.steps),
            "scoring": parts.score(rewards, texts),
            "reading": sum(read, Cost()),
            "training": sum(learned, Cost()).times(method.passes),
            "evaluations": parts.watched(name, policy, method, _looks(method.steps, method)),
        },
        needs=(_training(parts, method, trained, frozen, tokens, precision, logits, drawn.held),),
    )


def _steerlm2(parts: Parts, name: str, method: SteerLm2) -> MethodPlan:
    policy, precision = parts.policy(name, method.lora), parts.precision(method)
    sampled = parts.sampled(name, method.start, method.samples, parts.split(parts.data.prompts)[0])
    fitting, share = sampled.asked.fitting(method.max_tokens, name)
    prompts = round(sampled.prompts * share)
    if not prompts:
        raise PlanError(f"{name}: no sample is left to train on")
    responses, levels = prompts * sampled.responses, parts.asking(name)
    texts = fitting.texts(responses)
    asked, plain = texts.everywhere, fitting.asked(-levels).texts(responses).everywhere
    steps = _steps(prompts, method.batch_size, method.epochs)
    prior, proposal = parts.read(policy.plain, plain, precision), parts.read(policy, asked, precision)
    tokens = _in_a_pass(method, fitting.longest(method.max_tokens), method.batch_size * sampled.responses)
    logits = costs.whole_logits(policy, tokens)
    mine = MethodPlan(
        name,
        method.kind,
        "prompts",
        prompts,
        steps,
        policy.parameters,
        policy.trained,
        learned=method.epochs * texts.predicted,
        costs={
            "reading": prior + proposal + parts.read(policy, asked, precision).times(method.epochs),
            "training": parts.learn(policy, asked, precision, fused=False).times(method.epochs),
            "again": parts.again(method, policy, asked, precision).times(method.epochs),
            "evaluations": parts.watched(name, policy, method, _looks(steps, method)),
        },
        needs=(_training(parts, method, [policy], parts.watching(method), tokens, precision, logits),),
    )
    return mine.beside(sampled.plan)


# ------------------------------------------------------------------------------------------------------------------------------ counts


def _steps(units: int, batch_size: int, epochs: int) -> int:
    """Optimiser steps: the last of an epoch may be smaller."""
    return -(-units // batch_size) * epochs


def _looks(steps: int, method: Tuning) -> int:
    """How often a policy is evaluated and watched: before the first step, every so many, and after the last."""
    return 1 + -(-steps // -(-steps // method.evaluations))


def _in_a_pass(method: Tuning, unit: int, batch_size: int) -> int:
    """Tokens of the largest pass. unit: of the longest that goes through whole, and alone where the budget is smaller."""
    return min(max(method.micro_batch_tokens, unit), batch_size * unit)


def _training(
    parts: Parts,
    method: Tuning,
    models: list[costs.Model],
    frozen: int,
    tokens: int,
    precision: str,
    logits: float,
    sampling: float = 0.0,
) -> Need:
    again, device = method.gradient_checkpointing, parts.machine.device
    return costs.training(models, frozen, tokens, precision, again, logits, sampling, device)


# ------------------------------------------------------------------------------------------------------------------------- the original


def data_of(profile: Profile) -> tuple[dict[str, int], str]:
    """Numbers of prompts, responses and pairs where none are given, and where they come from; none where nothing tells them.

    The original's (HelpSteer2, appendix H) where a method starts from its model, else what the profile is to collect: two responses a prompt.
    """
    wanted = alignment_of(profile)
    if _is_original(profile):
        said = "100,000 conversations of Daring Anteater, HelpSteer2's 20,324 responses and 7,221 pairs"
        return ORIGINAL, f"the original's: {said}"
    if wanted.data == COLLECTED and profile.prompts:
        n = profile.prompts.sample.prompts
        return {"prompts": n, "rows": 2 * n, "pairs": n}, "what the profile collects in one delivery, at most"
    return {}, ""


def stated(profile: Profile, plans: Sequence[MethodPlan]) -> dict[str, tuple[float, float]]:
    """By kind of method the node-hours that the original states, and those of the plans; none for a profile of another model."""
    if not _is_original(profile):
        return {}
    hours = {kind: sum(p.node_hours for p in plans if p.kind == kind) for kind in dict.fromkeys(p.kind for p in plans)}
    return {kind: (NODE_HOURS[kind], planned) for kind, planned in hours.items() if kind in NODE_HOURS}


def _is_original(profile: Profile) -> bool:
    wanted = alignment_of(profile)
    hubs = {profile.checkpoints[wanted.base_of(name)].hub for name in wanted.methods}
    return any(hub in model.hubs for hub in hubs for model in published())


def reported(plans: Sequence[MethodPlan], data: Data, machine: Machine, profile: Profile) -> dict[str, Any]:
    """All figures as one JSON object: operations, bytes and hours, unrounded."""
    return {
        "device": asdict(machine.device),
        "share_of_peak": machine.share,
        "share_of_bandwidth": machine.bandwidth_share,
        "headroom": HEADROOM,
        "data": {"from": data.said, "prompts": data.prompts, "responses": data.rows, "pairs": data.pairs},
        "methods": [_row(p) for p in plans],
        "total": asdict(sum((p.total for p in plans), Cost())),
        "stated_node_hours": {kind: hours for kind, (hours, _) in stated(profile, plans).items()},
    }


def _row(p: MethodPlan) -> dict[str, Any]:
    needs = [
        {"process": n.process, **asdict(n.memory), "logits": n.logits, "sampling": n.sampling, "total": n.memory.total}
        for n in p.needs
    ]
    works = {work: asdict(p.costs[work]) for work in WORK if work in p.costs}
    return asdict(p) | {"costs": works, "needs": needs, "total": asdict(p.total), "node_hours": p.node_hours}
