"""The stage's worker: trains the policy of one method.

Writes a model folder in Hugging Face form (weights, configuration, tokenizer, card) with `curve.parquet`.
"""

import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.alignment.card import card_of
from pipeline.alignment.schema import SCORED, TUNED_ON
from pipeline.alignment.spec import TuningSpec
from pipeline.models.checkpoints import identity, pinned, resolve
from pipeline.reward_model.schema import PREFERRED
from pipeline.settings import Dpo, IterativeDpo, Sft, SteerLm, SteerLm2, digest
from pipeline.store import local_path, read_table, write_table
from pipeline.vocabulary import ATTRIBUTES
from pipeline.worker import Figures, Log, remove_others, run_worker


class Trained(NamedTuple):
    """What a method did: its curve, the rows that it had, those that fitted and were trained on, and further counts."""

    curve: list[dict[str, Any]]
    rows: int
    fitting: int
    counts: dict[str, int]


def work(spec: TuningSpec, log: Log) -> Figures:
    """Train; see the module's description."""
    import torch
    from transformers import AutoTokenizer
    from transformers.utils.logging import disable_progress_bar, set_verbosity_error

    from pipeline.alignment.encoding import end_of_turn
    from pipeline.alignment.policies import load_policy, save_policy
    from pipeline.alignment.tuning import plain, with_adapters

    disable_progress_bar()
    set_verbosity_error()
    start = pinned(spec.start)
    folder, begun = resolve(start, spec.cache), time.monotonic()
    place = spec.work / digest([spec.method, start, identity(start), spec.data_version, spec.seed])
    remove_others(place)
    torch.manual_seed(spec.seed)
    tokenizer, model = AutoTokenizer.from_pretrained(folder), load_policy(folder)
    lora = getattr(spec.method, "lora", None)
    model = with_adapters(model, lora) if lora else model
    trained = _train(spec, model, tokenizer, place, log)
    policy, out = plain(model), local_path(spec.out)
    finite = all(bool(torch.isfinite(p).all()) for p in policy.parameters())
    save_policy(policy, tokenizer, end_of_turn(tokenizer), out)
    write_table(pa.Table.from_pylist(trained.curve), spec.out / "curve.parquet")
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


def _train(spec: TuningSpec, model: Any, tokenizer: Any, place: Path, log: Log) -> Trained:
    from pipeline.reward_model.tracking import TensorBoard

    def train(tracker: Any) -> Trained:
        match spec.method:
            case Sft() as method:
                return _sft(spec, method, model, tokenizer, place, log, tracker)
            case SteerLm() as method:
                return _steerlm(spec, method, model, tokenizer, place, log, tracker)
            case Dpo() | IterativeDpo() as method:
                return _dpo(spec, method, model, tokenizer, place, log, tracker)
            case SteerLm2() as method:
                return _steerlm2(spec, method, model, tokenizer, place, log, tracker)
        raise ValueError(f"{spec.name}: the method {spec.method.kind} trains nothing")

    if spec.tracking is None:
        return train(None)
    with TensorBoard(spec.tracking, spec.name) as tracker:
        return train(tracker)


def _learned(spec: TuningSpec) -> tuple[pa.Table, pa.Table]:
    """The responses to learn, of the train split and of the held-out one, with what the reward model predicts of them where it is asked."""
    table = read_table(spec.responses, TUNED_ON.names)
    if spec.scored:
        scored = read_table(spec.scored)
        for name in ATTRIBUTES:
            table = table.append_column(name, scored[name])
    best = table.filter(table["best"])
    train, held_out = (best.filter(pc.equal(best["split"], split)) for split in ("train", "held_out"))
    return train, held_out


def _conversations(table: pa.Table) -> list[list[dict[str, str]]]:
    rows = zip(table["messages"].to_pylist(), table["response"].to_pylist(), strict=True)
    return [[*messages, {"role": "assistant", "content": response}] for messages, response in rows]


def _sft(spec: TuningSpec, method: Sft, model: Any, tokenizer: Any, place: Path, log: Log, tracker: Any) -> Trained:
    from pipeline.alignment import sft
    from pipeline.alignment.encoding import encode_each

    tables = _learned(spec)
    train, held_out = (encode_each(tokenizer, _conversations(t), method.max_tokens) for t in tables)
    _say_left_out(log, train.too_long, method.max_tokens, train.refused)
    examples, others = (list(e.examples.values()) for e in (train, held_out))
    curve = sft.train(model, tokenizer, examples, others, method, spec.seed, place, log, tracker)
    return Trained(
        curve, len(tables[0]), len(examples), {"too_long": train.too_long, "turns_not_trained": train.not_all_turns}
    )


def _steerlm(
    spec: TuningSpec, method: SteerLm, model: Any, tokenizer: Any, place: Path, log: Log, tracker: Any
) -> Trained:
    from pipeline.alignment import sft
    from pipeline.alignment.encoding import encode_each
    from pipeline.alignment.steerlm import conditioned_each, last_alone

    both, unscored = [], 0
    for table in _learned(spec):
        predictions = np.stack([np.asarray(table[a], dtype=np.float64) for a in spec.levels], axis=1)
        known = np.isfinite(predictions).all(axis=1)
        unscored += int((~known).sum())
        asked = conditioned_each(_conversations(table.filter(pa.array(known))), predictions[known], list(spec.levels))
        both.append((len(table), encode_each(tokenizer, asked, method.max_tokens)))
    (rows, train), (_, held_out) = both
    _say_left_out(log, train.too_long, method.max_tokens, train.refused)
    examples, others = ([last_alone(example) for example in e.examples.values()] for e in (train, held_out))
    curve = sft.train(model, tokenizer, examples, others, method, spec.seed, place, log, tracker)
    return Trained(curve, rows, len(examples), {"too_long": train.too_long, "unscored": unscored})


def _dpo(
    spec: TuningSpec, method: Dpo | IterativeDpo, model: Any, tokenizer: Any, place: Path, log: Log, tracker: Any
) -> Trained:
    from pipeline.alignment import dpo
    from pipeline.alignment.goodness import best_and_worst

    pairs, counts = read_table(spec.pairs, PREFERRED.names), dict[str, int]()
    train, held_out = (pairs.filter(pc.equal(pairs["split"], split)) for split in ("train", "held_out"))
    if spec.samples:
        train, left_out = best_and_worst(read_table(spec.samples, SCORED.names))
        counts = {f"no_pair: {reason}": n for reason, n in left_out.items()}
    encoded, others = (dpo.pairs_of(table, tokenizer, method.max_tokens) for table in (train, held_out))
    _say_left_out(log, encoded.too_long, method.max_tokens, encoded.refused)
    mine, development = list(encoded.pairs.values()), list(others.pairs.values())
    curve = dpo.train(model, tokenizer, mine, development, method, spec.seed, place, log, tracker)
    left = {"too_long": encoded.too_long, "equal_texts": encoded.equal}
    return Trained(curve, len(train), len(mine), counts | left)


def _steerlm2(
    spec: TuningSpec, method: SteerLm2, model: Any, tokenizer: Any, place: Path, log: Log, tracker: Any
) -> Trained:
    from pipeline.alignment import steerlm2
    from pipeline.alignment.policies import load_policy
    from pipeline.models.classifier import device
    from pipeline.models.precision import precision_of

    if spec.samples is None or spec.unconditional is None:
        raise ValueError(f"{spec.name}: SteerLM 2.0 needs scored samples and the unconditional policy")
    samples, precision = read_table(spec.samples, SCORED.names), precision_of(method.precision, device())
    conditioned = steerlm2.encode_samples(samples, tokenizer, spec.levels, method.max_tokens)
    plain = steerlm2.encode_samples(samples, tokenizer, {}, method.max_tokens)
    prior = steerlm2.response_log_probs(load_policy(spec.unconditional), plain, precision)
    proposal = steerlm2.response_log_probs(model, conditioned, precision)
    groups = steerlm2.groups_of(samples, spec.levels, method.concentration, conditioned, prior, proposal)
    curve = steerlm2.train(model, groups, [], method, spec.seed, place, log, tracker)
    weighed = sum(len(group.examples) for group in groups)
    return Trained(curve, len(samples), weighed, {"prompts": len(groups)})


def _say_left_out(log: Log, too_long: int, max_tokens: int, refused: dict[str, int]) -> None:
    if too_long:
        log(f"{too_long} conversations have more than max_tokens ({max_tokens}) and are left out")
    for reason, count in refused.items():
        log(f"{count} conversations are left out, because the model's chat template refuses them: {reason}")


if __name__ == "__main__":
    run_worker(work, TuningSpec)
