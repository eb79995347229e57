"""What policies are asked, their samples, and what reward models say of responses."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.alignment.goodness import Standard, standard_of
from pipeline.alignment.schema import REWARDS, SAMPLES, SCORED, SCORED_DATA, STEERED
from pipeline.alignment.steerlm import LEVELS, conditioned
from pipeline.benchmarks.schema import ITEMS
from pipeline.draws import seeds, uniforms
from pipeline.responses.schema import REQUESTS
from pipeline.settings import Origin, Samples
from pipeline.vocabulary import MESSAGES, Attribute


def of_origins(tuned_on: pa.Table, *origins: Origin) -> pa.Table:
    """The rows of TUNED_ON or SCORED_DATA that are of some origins."""
    return tuned_on.filter(pc.is_in(tuned_on["origin"], pa.array(origins, pa.string())))


def prompts_of(tuned_on: pa.Table, split: str, samples: Samples, seed: int, origin: Origin = "data") -> pa.Table:
    """prompt_id and messages of the prompts of a split that are sampled, drawn by the seed and their ids; each as often as responses are wanted.

    tuned_on: schema TUNED_ON. Raises ValueError where the split has none of that origin.
    """
    there = of_origins(tuned_on, origin)
    mine = there.filter(pc.equal(there["split"], split)).select(["prompt_id", "messages"])
    ids = mine["prompt_id"].to_pylist()
    if not ids:
        raise ValueError(
            f"there is no prompt of the {origin} in the split {split}; bring more, or change alignment.held_out_share"
        )
    first = {prompt: n for n, prompt in reversed(list(enumerate(ids)))}
    drawn = uniforms(list(first), f"{seed}/policy samples")[:, 0]
    places = np.array(list(first.values()))[np.argsort(drawn, kind="stable")][: samples.prompts]
    return mine.take(pa.array(np.repeat(places, samples.responses)))


def requests_of(
    prompts: pa.Table, method: str, samples: Samples, seed: int, levels: Mapping[Attribute, int]
) -> pa.Table:
    """What a policy is asked, in the schema REQUESTS: a row a row of `prompts_of`, each with another seed.

    levels: of attributes that the policy is asked for; none for one that wasn't tuned to any.
    """
    ids = prompts["prompt_id"].to_pylist()
    asked = [conditioned(messages, levels) for messages in prompts["messages"].to_pylist()]
    return pa.table(
        {
            "prompt_id": ids,
            "generator": [method] * len(ids),
            "messages": pa.array(asked, MESSAGES),
            "sampling": [samples.sampling.model_dump_json()] * len(ids),
            "seed": seeds([f"{i}/{n}" for i, n in zip(ids, _numbers(ids), strict=True)], f"{seed}/{method}"),
        },
        schema=REQUESTS,
    )


class Steered(NamedTuple):
    """Held-out prompts, each once an attribute and level, what was asked (columns attribute and asked), and the requests (schema REQUESTS)."""

    prompts: pa.Table
    asked: pa.Table
    requests: pa.Table


def steered(
    tuned_on: pa.Table,
    method: str,
    samples: Samples,
    seed: int,
    levels: Mapping[Attribute, int],
    attributes: Sequence[Attribute],
) -> Steered:
    """What shows whether a policy does what it is asked: of each attribute every level is asked for, the others as in use, of the same prompts.

    The draws of a prompt's response are the same at every level. attributes: those of `levels` among them are taken.
    """
    once = prompts_of(tuned_on, "held_out", samples.model_copy(update={"responses": 1}), seed)
    wanted = [(attribute, level) for attribute in attributes if attribute in levels for level in range(LEVELS)]
    requests = [requests_of(once, method, samples, seed, {**levels, name: level}) for name, level in wanted]
    return Steered(
        pa.concat_tables([once] * len(wanted)) if wanted else once.slice(0, 0),
        pa.table(
            {
                "attribute": pa.array([name for name, _ in wanted for _ in range(len(once))], pa.string()),
                "asked": pa.array([level for _, level in wanted for _ in range(len(once))], pa.int8()),
            }
        ),
        pa.concat_tables(requests) if requests else REQUESTS.empty_table(),
    )


def measured(asked: pa.Table, samples: pa.Table, scores: pa.Table) -> pa.Table:
    """What the reward model measures of steered samples: schema STEERED.

    asked: columns attribute and asked; samples: schema SAMPLES; scores: schema SCORES of the samples; all in the same order.
    """
    names = asked["attribute"].to_pylist()
    values = {name: scores[name].to_pylist() for name in set(names)}
    found = [values[name][n] for n, name in enumerate(names)]
    columns = {
        "attribute": asked["attribute"],
        "asked": asked["asked"],
        "measured": pa.array(found, pa.float64()),
        "characters": pc.utf8_length(samples["response"]).cast(pa.int64()),
        **{name: samples[name] for name in ("prompt_id", "messages", "response", "ended", "tokens")},
    }
    return pa.table({name: columns[name] for name in STEERED.names}, schema=STEERED)


def _numbers(ids: list[str]) -> list[int]:
    """Number of each row among those of its prompt, from 0."""
    seen, found = dict[str, int](), list[int]()
    for prompt in ids:
        found.append(seen.get(prompt, 0))
        seen[prompt] = found[-1] + 1
    return found


def samples_of(prompts: pa.Table, answers: pa.Table) -> tuple[pa.Table, int]:
    """Samples in the schema SAMPLES, of `prompts_of` beside their ANSWERS (same rows, same order), and how many were refused and left out."""
    columns = {
        "prompt_id": prompts["prompt_id"],
        "sample": pa.array(_numbers(prompts["prompt_id"].to_pylist()), pa.int32()),
        "messages": prompts["messages"],
        "response": answers["text"],
        "ended": pc.equal(answers["finish_reason"], "stop"),
        "tokens": answers["output_tokens"].cast(pa.int32()),
    }
    there = pc.not_equal(answers["finish_reason"], "refused")
    table = pa.table({name: columns[name] for name in SAMPLES.names}).cast(SAMPLES).filter(there)
    return table, len(answers) - len(table)


def items_of(rows: pa.Table) -> pa.Table:
    """Responses as items that a scorer takes (schema ITEMS), one a row, in order. rows: messages and response."""
    count = len(rows)
    columns = {
        "benchmark": pa.array(["responses"] * count, pa.string()),
        "subset": pa.array(["responses"] * count, pa.string()),
        "item_id": pa.array([str(n) for n in range(count)], pa.string()),
        "messages": rows["messages"],
        "responses": pa.array([[text] for text in rows["response"].to_pylist()], pa.list_(pa.string())),
        "good": pa.array([[True]] * count, pa.list_(pa.bool_())),  # nothing is held to be right: scores alone are read
        "cluster": pa.nulls(count, pa.string()),
    }
    return pa.table(columns, schema=ITEMS)


def scored_data(tuned_on: pa.Table, scores: pa.Table) -> tuple[pa.Table, Standard]:
    """Responses in the schema SCORED_DATA, and by what rewards are standardised: those of the data's train split, without conversations.

    tuned_on: schema TUNED_ON; scores: schema SCORES of its `items_of`, in its order. Raises ValueError where nothing can be standardised by them.
    """
    goodness = np.asarray(scores["goodness"], dtype=np.float64)
    by = pc.and_(pc.equal(tuned_on["split"], "train"), pc.equal(tuned_on["origin"], "data"))
    standard = standard_of(goodness[np.asarray(by)])
    return _with_scores(tuned_on, scores, standard, SCORED_DATA), standard


def with_scores(samples: pa.Table, scores: pa.Table, standard: Standard) -> pa.Table:
    """Samples in the schema SCORED. scores: schema SCORES of their `items_of`, in order."""
    return _with_scores(samples, scores, standard, SCORED)


def rewards(
    samples: pa.Table, mine: pa.Table, second: pa.Table | None, standard: Standard, log_probs: pa.Table
) -> pa.Table:
    """Samples in the schema REWARDS.

    mine, second: scores of the recipe's reward model, and of the one that watches (None: nobody does); log_probs: columns policy and, where
    it started from another, before.
    """
    nothing = pa.nulls(len(samples), pa.float64())
    more = {
        "second_goodness": nothing if second is None else second["goodness"],
        "log_prob": log_probs["policy"],
        "log_prob_before": log_probs["before"] if "before" in log_probs.column_names else nothing,
    }
    known = _with_scores(samples, mine, standard, SCORED)
    return pa.table({name: more[name] if name in more else known[name] for name in REWARDS.names}, schema=REWARDS)


def _with_scores(rows: pa.Table, scores: pa.Table, standard: Standard, schema: pa.Schema) -> pa.Table:
    found = {name: scores[name] for name in scores.column_names}
    found["standardised"] = pa.array(standard.of(np.asarray(scores["goodness"], dtype=np.float64)))
    columns = {name: rows[name] if name in rows.column_names else found[name] for name in schema.names}
    return pa.table(columns, schema=schema)
