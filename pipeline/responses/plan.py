"""Which two generators answer each prompt, and what each is asked."""

import hashlib
from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.draws import seeds, uniforms
from pipeline.models.conditions import system_message
from pipeline.responses.schema import PLAN, REQUESTS, RESPONSE_PAIRS, RESPONSES
from pipeline.settings import Generator
from pipeline.vocabulary import MESSAGES

OF_A_PAIR = [
    *(name for name in RESPONSE_PAIRS.names if name not in ("position", "messages")),
    "detail",
]
"""Columns of RESPONSES that pairs are made of."""
PART = 4096
"""Requests that are written out at a time."""


def assign_generators(prompt_ids: pa.ChunkedArray | pa.Array, shares: Mapping[str, float], seed: int) -> pa.Table:
    """Give every prompt two different generators, each in proportion to its share: a table in the schema PLAN, two rows a prompt.

    Systematic sampling of two out of the generators laid end to end in an order of the prompt's own (Madow 1949, On the theory of
    systematic sampling II): a generator is drawn with a probability of exactly twice its share, and never twice. The draw depends on
    seed, prompt and shares only, so other prompts can come and go. Shares are relative; none may exceed half of their sum.
    """
    names = sorted(shares)
    weights = np.array([shares[name] for name in names], dtype=np.float64)
    weights *= 2 / weights.sum()
    if weights.max() > 1 + 1e-9:
        raise ValueError(
            f"{names[int(weights.argmax())]} has more than half of all shares, so it would answer a prompt twice"
        )
    ids = prompt_ids.to_pylist()
    orders = np.stack([uniforms(ids, f"{seed}/order/{name}")[:, 0] for name in names], axis=1).argsort(axis=1)
    ends = weights[orders].cumsum(axis=1)
    start = uniforms(ids, f"{seed}/start")
    # the sums run to 2 but for rounding: the last generator ends exactly there, so that both points fall on one
    ends[:, -1] = 2.0
    points = np.concatenate([start, start + 1], axis=1)
    drawn = np.take_along_axis(orders, (ends[:, :, None] <= points[:, None, :]).sum(axis=1), axis=1)
    flip = uniforms(ids, f"{seed}/position")[:, 0] < 0.5
    drawn[flip] = drawn[flip, ::-1]
    generators = np.array(names, dtype=object)[drawn.ravel()]
    doubled = [prompt_id for prompt_id in ids for _ in (1, 2)]
    plan = pa.table(
        {
            "prompt_id": doubled,
            "position": pa.array(np.tile(np.array([1, 2], dtype=np.int8), len(ids))),
            "generator": pa.array(generators, pa.string()),
            "seed": seeds([f"{p}/{g}" for p, g in zip(doubled, generators, strict=True)], f"{seed}/request"),
        },
        schema=PLAN,
    )
    return plan.sort_by([("prompt_id", "ascending"), ("position", "ascending")])


def requests_of(plan: pa.Table, contexts: pa.Table, generators: Mapping[str, Generator]) -> pa.Table:
    """What the named generators are asked, in the schema REQUESTS: their system prompt, the context, their decoding settings.

    Rows in the plan's order; generators that are not named are left out.
    """
    mine = plan.filter(pc.is_in(plan["generator"], pa.array(list(generators), pa.string())))
    found = pc.index_in(mine["prompt_id"], contexts["prompt_id"])
    if found.null_count:
        missing = mine["prompt_id"].filter(pc.is_null(found))[0]
        raise ValueError(
            f"{found.null_count} planned prompts have no context (the first is {missing}), so contexts and plan don't belong together"
        )
    names = mine["generator"].to_pylist()
    systems = {
        n: [{"role": "system", "content": text}] if (text := system_of(g)) else [] for n, g in generators.items()
    }
    sampling = {n: g.sampling.model_dump_json() for n, g in generators.items()}
    messages = [pa.array([], MESSAGES)]
    for start in range(0, len(names), PART):  # as Python objects, texts take several times the room
        contents = contexts["messages"].take(found.slice(start, PART)).to_pylist()
        part = zip(names[start : start + PART], contents, strict=True)
        messages.append(pa.array([systems[name] + content for name, content in part], MESSAGES))
    return pa.table(
        {
            "prompt_id": mine["prompt_id"],
            "generator": mine["generator"],
            "messages": pa.chunked_array(messages),
            "sampling": [sampling[name] for name in names],
            "seed": mine["seed"],
        },
        schema=REQUESTS,
    )


def system_of(generator: Generator) -> str:
    """A generator's system message: its prompt, and the attribute values that it is asked for."""
    return system_message(generator.system_prompt, generator.attributes)


def pair_responses(plan: pa.Table, contexts: pa.Table, responses: pa.Table) -> tuple[pa.Table, pa.Table]:
    """Both responses of every prompt, in the schema RESPONSE_PAIRS, and the prompts left out with the reason.

    A prompt is left out where a response is missing, was refused, or is blank: people can't compare it.
    """
    joined = plan.select(["prompt_id", "position", "generator"]).join(
        responses.select(OF_A_PAIR),
        ["prompt_id", "generator"],
        join_type="left outer",
    )
    blank = pc.equal(pc.utf8_length(pc.utf8_trim_whitespace(joined["response"])), 0)
    reason = pc.if_else(
        pc.is_null(joined["response_id"]),
        "no response from its generator",
        pc.if_else(
            pc.equal(joined["finish_reason"], "refused"),
            joined["detail"],
            pc.if_else(blank, "blank response", pa.scalar(None, pa.string())),
        ),
    )
    joined = joined.append_column("reason", reason)
    bad = joined.filter(pc.is_valid(joined["reason"]))
    good = joined.filter(pc.invert(pc.is_in(joined["prompt_id"], pc.unique(bad["prompt_id"]))))
    found = pc.index_in(good["prompt_id"], contexts["prompt_id"])
    pairs = good.append_column("messages", contexts["messages"].take(found)).select(RESPONSE_PAIRS.names)
    order = [("prompt_id", "ascending"), ("position", "ascending")]
    return pairs.cast(RESPONSE_PAIRS).sort_by(order), bad.select(["prompt_id", "generator", "reason"]).sort_by(
        [("prompt_id", "ascending"), ("generator", "ascending")]
    )


def responses_of(requests: pa.Table, answers: pa.Table, figures: Mapping[str, object], licence: str) -> pa.Table:
    """REQUESTS beside their ANSWERS (same rows, same order) in the schema RESPONSES; figures name model and model_revision."""
    if len(requests) != len(answers):
        raise ValueError(f"{len(answers)} answers for {len(requests)} requests")
    ids = [
        hashlib.sha256(f"{prompt}/{generator}/{key}".encode()).hexdigest()[:32]
        for prompt, generator, key in zip(
            *(c.to_pylist() for c in (requests["prompt_id"], requests["generator"], answers["request_key"])),
            strict=True,
        )
    ]
    constants = {"model": figures["model"], "model_revision": figures["model_revision"], "licence": licence}
    columns = {"response_id": pa.array(ids, pa.string())}
    columns |= {name: requests[name] for name in ("prompt_id", "generator", "sampling", "seed")}
    columns |= {name: pa.array([value] * len(ids), pa.string()) for name, value in constants.items()}
    columns |= {name: answers[name] for name in answers.column_names} | {"response": answers["text"]}
    return pa.table({name: columns[name] for name in RESPONSES.names}, schema=RESPONSES)
