"""The stage's worker: trains the policy of one method.

Writes a model folder in Hugging Face form (weights, configuration, tokenizer, card) with `curve.parquet`, and `watched.parquet`: what the
policy wrote at its evaluations.
"""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.alignment.card import card_of
from pipeline.alignment.goodness import Reward, Standard, best_and_worst
from pipeline.alignment.samples import of_origins
from pipeline.alignment.schema import SCORED, TUNED_ON
from pipeline.alignment.spec import Rewarding, TuningSpec
from pipeline.evaluation.scorers.scorer import Conversation
from pipeline.evaluation.scorers.specs import ModelSpec
from pipeline.models.checkpoints import identity, pinned, resolve
from pipeline.reward_model.schema import PREFERRED
from pipeline.settings import Dpo, IterativeDpo, Origin, Ppo, Rloo, Sft, SteerLm, SteerLm2, digest
from pipeline.store import local_path, read_table, write_table
from pipeline.vocabulary import ATTRIBUTES
from pipeline.worker import Figures, Log, remove_others, run_worker


class Trained(NamedTuple):
    """What a method did: its curve, the rows that it had, those that fitted and were trained on, and further counts."""

    curve: list[dict[str, Any]]
    rows: int
    fitting: int
    counts: Mapping[str, float]


def work(spec: TuningSpec, log: Log) -> Figures:
    """Train; see the module's description."""
    import torch
    from transformers import AutoTokenizer
    from transformers.utils.logging import disable_progress_bar, set_verbosity_error

    from pipeline.alignment.encoding import end_of_turn, take_template
    from pipeline.alignment.policies import load_policy, save_policy
    from pipeline.alignment.resuming import table_of
    from pipeline.alignment.tuning import plain, with_adapters

    disable_progress_bar()
    set_verbosity_error()
    start = pinned(spec.start)
    folder, begun = resolve(start, spec.cache), time.monotonic()
    place = spec.work / digest([spec.method, start, identity(start), spec.data_version, spec.seed])
    remove_others(place)
    torch.manual_seed(spec.seed)
    tokenizer, model = AutoTokenizer.from_pretrained(folder), load_policy(folder)
    take_template(tokenizer, getattr(spec.method, "template", "tokenizer"))
    lora = getattr(spec.method, "lora", None)
    model = with_adapters(model, lora) if lora else model
    reward = _reward(spec.reward, log) if spec.reward else None
    watch = _watch_of(spec, tokenizer, reward, place)
    trained = _train(spec, Training(model, tokenizer, reward, spec.seed, place, log, watch))
    model.gradient_checkpointing_disable()
    policy, out = plain(model), local_path(spec.out)
    finite = all(bool(torch.isfinite(p).all()) for p in policy.parameters())
    save_policy(policy, tokenizer, end_of_turn(tokenizer), out)
    write_table(table_of(trained.curve), spec.out / "curve.parquet")
    write_table(watch.table(), spec.out / "watched.parquet")
    steps = max((row["step"] for row in trained.curve if row["part"] == "train"), default=0)
    figures: Figures = {
        "kind": spec.method.kind,
        "finite": finite,
        "steps": steps,
        "rows": trained.fitting,
        "fitting_share": trained.fitting / trained.rows if trained.rows else 0.0,
        "seconds": round(time.monotonic() - begun, 1),
        **trained.counts,
    }
    (out / "README.md").write_text(card_of(spec, identity(start), figures), encoding="utf-8")
    return figures


class Training(NamedTuple):
    """What a method trains with, and where. reward: of texts, see `Reward`; None where the method has none."""

    model: Any
    tokenizer: Any
    reward: Any
    seed: int
    place: Path
    log: Log
    watch: Any
    tracker: Any = None

    @property
    def rest(self) -> tuple[int, Path, Log, Any, Any]:
        """What all methods take after their settings: seed, folder of checkpoints, log, tracker, watch."""
        return self.seed, self.place, self.log, self.tracker, self.watch


def _train(spec: TuningSpec, given: Training) -> Trained:
    from pipeline.reward_model.tracking import TensorBoard

    if spec.tracking is None:
        return _by_method(spec, given)
    with TensorBoard(spec.tracking, spec.name) as tracker:
        return _by_method(spec, given._replace(tracker=tracker))


def _by_method(spec: TuningSpec, given: Training) -> Trained:
    match spec.method:
        case Sft() as method:
            return _sft(spec, method, given)
        case SteerLm() as method:
            return _steerlm(spec, method, given)
        case Dpo() | IterativeDpo() as method:
            return _dpo(spec, method, given)
        case Ppo() as method:
            return _ppo(spec, method, given)
        case Rloo() as method:
            return _rloo(spec, method, given)
        case SteerLm2() as method:
            return _steerlm2(spec, method, given)
    raise ValueError(f"{spec.name}: the method {spec.method.kind} trains nothing")


def _learned(spec: TuningSpec) -> tuple[pa.Table, pa.Table]:
    """The responses to learn, of the train split and of the held-out one, with what the reward model predicts of them where it is asked.

    Raises ValueError where it predicted others.
    """
    table = of_origins(read_table(spec.responses, TUNED_ON.names), spec.origin)
    if spec.scored:
        scored = of_origins(read_table(spec.scored), spec.origin)
        if not scored["response_id"].equals(table["response_id"]):
            raise ValueError(
                f"{spec.name}: the reward model has not predicted the {spec.origin} as they are; make `scored_data` again"
            )
        for name in ATTRIBUTES:
            table = table.append_column(name, scored[name])
    # beside the levels that it has, a response teaches whatever it is worth; without them, a prompt's best alone
    learned = table if spec.scored else table.filter(table["best"])
    train, held_out = (learned.filter(pc.equal(learned["split"], split)) for split in ("train", "held_out"))
    return train, held_out


def _conversations(table: pa.Table) -> list[list[dict[str, str]]]:
    rows = zip(table["messages"].to_pylist(), table["response"].to_pylist(), strict=True)
    return [[*messages, {"role": "assistant", "content": response}] for messages, response in rows]


def _sft(spec: TuningSpec, method: Sft, given: Training) -> Trained:
    from pipeline.alignment import sft
    from pipeline.alignment.encoding import encode_each

    tables = _learned(spec)
    train, held_out = (encode_each(given.tokenizer, _conversations(t), method.max_tokens) for t in tables)
    _say_left_out(given.log, train.too_long, method.max_tokens, train.refused)
    examples, others = (list(e.examples.values()) for e in (train, held_out))
    curve = sft.train(given.model, given.tokenizer, examples, others, method, *given.rest)
    return Trained(
        curve, len(tables[0]), len(examples), {"too_long": train.too_long, "turns_not_trained": train.not_all_turns}
    )


def _steerlm(spec: TuningSpec, method: SteerLm, given: Training) -> Trained:
    from pipeline.alignment import sft
    from pipeline.alignment.encoding import encode_each
    from pipeline.alignment.steerlm import conditioned_each, last_alone

    both, unscored = [], 0
    for table in _learned(spec):
        predictions = np.stack([np.asarray(table[a], dtype=np.float64) for a in spec.levels], axis=1)
        known = np.isfinite(predictions).all(axis=1)
        unscored += int((~known).sum())
        asked = conditioned_each(_conversations(table.filter(pa.array(known))), predictions[known], list(spec.levels))
        both.append((len(table), encode_each(given.tokenizer, asked, method.max_tokens)))
    (rows, train), (_, held_out) = both
    _say_left_out(given.log, train.too_long, method.max_tokens, train.refused)
    examples, others = ([last_alone(example) for example in e.examples.values()] for e in (train, held_out))
    curve = sft.train(given.model, given.tokenizer, examples, others, method, *given.rest)
    return Trained(curve, rows, len(examples), {"too_long": train.too_long, "unscored": unscored})


def _dpo(spec: TuningSpec, method: Dpo | IterativeDpo, given: Training) -> Trained:
    from pipeline.alignment import dpo

    pairs, counts = read_table(spec.pairs, PREFERRED.names), dict[str, int]()
    train, held_out = (pairs.filter(pc.equal(pairs["split"], split)) for split in ("train", "held_out"))
    if spec.samples:
        train, left_out = best_and_worst(read_table(spec.samples, SCORED.names))
        counts = {f"no_pair: {reason}": n for reason, n in left_out.items()}
    encoded, others = (dpo.pairs_of(table, given.tokenizer, method.max_tokens) for table in (train, held_out))
    _say_left_out(given.log, encoded.too_long, method.max_tokens, encoded.refused)
    mine, development = list(encoded.pairs.values()), list(others.pairs.values())
    curve = dpo.train(given.model, given.tokenizer, mine, development, method, *given.rest)
    left = {"too_long": encoded.too_long, "equal_texts": encoded.equal}
    lengths = {  # a response's length can be what is learned of it
        f"{which}_tokens": round(sum(len(getattr(pair, which)) for pair in mine) / len(mine), 1)
        for which in ("chosen", "rejected")
    }
    return Trained(curve, len(train), len(mine), counts | left | lengths)


def _steerlm2(spec: TuningSpec, method: SteerLm2, given: Training) -> Trained:
    from pipeline.alignment import steerlm2
    from pipeline.alignment.policies import load_policy
    from pipeline.models.classifier import device
    from pipeline.models.precision import precision_of

    if spec.samples is None or spec.unconditional is None:
        raise ValueError(f"{spec.name}: SteerLM 2.0 needs scored samples and the unconditional policy")
    samples, precision = read_table(spec.samples, SCORED.names), precision_of(method.precision, device())
    conditioned = steerlm2.encode_samples(samples, given.tokenizer, spec.levels, method.max_tokens)
    plain = steerlm2.encode_samples(samples, given.tokenizer, {}, method.max_tokens)
    prior = steerlm2.response_log_probs(load_policy(spec.unconditional), plain, precision)
    proposal = steerlm2.response_log_probs(given.model, conditioned, precision)
    groups = steerlm2.groups_of(samples, spec.levels, method.concentration, conditioned, prior, proposal)
    curve = steerlm2.train(given.model, groups, [], method, *given.rest)
    weighed = sum(len(group.examples) for group in groups)
    return Trained(curve, len(samples), weighed, {"prompts": len(groups)})


def _ppo(spec: TuningSpec, method: Ppo, given: Training) -> Trained:
    from transformers import AutoTokenizer

    from pipeline.alignment import ppo
    from pipeline.models.loading import load_scorer

    by = _needed(spec)
    ppo.refuse_other_tokens(given.tokenizer, AutoTokenizer.from_pretrained(by.model))
    values = ppo.Values(load_scorer(by.model), by.weights, Standard(by.mean, by.sd))
    prompts, reference = _prompts(spec, "train", spec.origin), _reference(spec, method)
    curve = ppo.train(given.model, reference, values, given.tokenizer, prompts, given.reward, method, *given.rest)
    return _of_prompts(given.tokenizer, prompts, method, curve)


def _rloo(spec: TuningSpec, method: Rloo, given: Training) -> Trained:
    from pipeline.alignment import rloo

    _needed(spec)
    prompts, reference = _prompts(spec, "train", spec.origin), _reference(spec, method)
    curve = rloo.train(given.model, reference, given.tokenizer, prompts, given.reward, method, *given.rest)
    return _of_prompts(given.tokenizer, prompts, method, curve)


def _needed(spec: TuningSpec) -> Rewarding:
    if spec.reward is None:
        raise ValueError(f"{spec.name}: the method {spec.method.kind} needs a reward model; give `reward`")
    return spec.reward


def _reward(by: Rewarding, log: Log) -> Any:
    """Standardised rewards of texts, by a reward model that is loaded with the first of them."""
    from pipeline.evaluation.scorers.model import LocalModel

    reward = Reward(LocalModel(ModelSpec(model=str(by.model)), log), by.weights, Standard(by.mean, by.sd))
    return lambda asked, texts: reward([Conversation(*pair) for pair in zip(asked, texts, strict=True)])


def _reference(spec: TuningSpec, method: Ppo | Rloo) -> Any:
    """The policy that it starts from, a second time; None where adapters are trained, without which the policy is that."""
    from pipeline.alignment.policies import load_policy

    return None if method.lora else load_policy(resolve(pinned(spec.start), spec.cache))


def _prompts(spec: TuningSpec, split: str, origin: Origin) -> list[list[dict[str, str]]]:
    """The prompts of a split and an origin, each once, in the order in which they come."""
    table = of_origins(read_table(spec.responses, ["split", "origin", "prompt_id", "messages"]), origin)
    table = table.filter(pc.equal(table["split"], split))
    first = np.unique(np.asarray(table["prompt_id"].combine_chunks().dictionary_encode().indices), return_index=True)[1]
    return list(table["messages"].take(pa.array(first)).to_pylist())


def _of_prompts(tokenizer: Any, prompts: Sequence[Any], method: Ppo | Rloo, curve: list[dict[str, Any]]) -> Trained:
    from pipeline.alignment.ppo import fitting

    there = len(fitting(tokenizer, prompts, method.max_tokens - method.max_new_tokens, lambda _: None))
    drawn = min(there, method.steps * method.batch_size)
    return Trained(curve, len(prompts), there, {"prompts": drawn})


def _watch_of(spec: TuningSpec, tokenizer: Any, reward: Any, place: Path) -> Any:
    """What looks at the policy while it trains: at held-out prompts of the data, the same for every method, with rewards where it has them."""
    from pipeline.alignment.steerlm import conditioned
    from pipeline.alignment.watching import WATCHED_PROMPTS, Watch
    from pipeline.models.classifier import device
    from pipeline.models.precision import precision_of

    asked = [conditioned(messages, spec.levels) for messages in _prompts(spec, "held_out", "data")[:WATCHED_PROMPTS]]
    precision = getattr(spec.method, "precision", "float32")
    return Watch(tokenizer, asked, reward, spec.seed, place, precision_of(precision, device()))


def _say_left_out(log: Log, too_long: int, max_tokens: int, refused: dict[str, int]) -> None:
    if too_long:
        log(f"{too_long} conversations have more than max_tokens ({max_tokens}) and are left out")
    for reason, count in refused.items():
        log(f"{count} conversations are left out, because the model's chat template refuses them: {reason}")


if __name__ == "__main__":
    run_worker(work, TuningSpec)
