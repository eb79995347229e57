"""Loss, encoding and batches against plain references; the tokenizer is built here."""

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.models.batching import batches, plan_steps
from pipeline.models.encoding import SYSTEM, encode, prepare_tokenizer
from pipeline.models.scoring import pad
from pipeline.reward_model.examples import Examples
from pipeline.reward_model.figures import baseline_of, curve_of, rating_figures
from pipeline.reward_model.objectives import masked_mse, preference_losses
from pipeline.reward_model.ridge import RIDGE, ridge_head
from pipeline.reward_model.schema import CURVE, PREDICTIONS, PREFERRED, RATED
from pipeline.reward_model.sides import side_of
from pipeline.reward_model.summary import attribute_figures, best_and_worst
from pipeline.settings import Recipe
from pipeline.vocabulary import ATTRIBUTES
from tests.models.families import LAYOUTS, tokenizer_of
from tests.reward_model.small import small_tokenizer

CONVERSATION = [
    {"role": "user", "content": "one"},
    {"role": "assistant", "content": "two"},
    {"role": "user", "content": "three"},
]


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.lists(st.one_of(st.none(), st.integers(0, 4)), min_size=5, max_size=5), min_size=1, max_size=8),
    st.integers(0, 99),
)
def test_the_loss_is_the_plain_masked_mean(labels: list[list[int | None]], seed: int) -> None:
    predictions = torch.randn(len(labels), 5, generator=torch.Generator().manual_seed(seed), requires_grad=True)
    wanted = torch.tensor([[float("nan") if v is None else float(v) for v in row] for row in labels])
    loss = masked_mse(predictions, wanted)
    squares = [
        (float(predictions[i, j]) - v) ** 2 for i, row in enumerate(labels) for j, v in enumerate(row) if v is not None
    ]
    assert loss.item() == pytest.approx(sum(squares) / max(len(squares), 1), rel=1e-6, abs=1e-6)
    loss.backward()
    assert torch.isfinite(predictions.grad).all()
    assert (predictions.grad[torch.isnan(wanted)] == 0).all()


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(["bradley_terry", "margin_bt", "scaled_bt"]), st.floats(-8, 8), st.integers(1, 3))
def test_losses_of_preferences_and_their_gradients_are_those_of_the_formulas(
    objective: str, gap: float, m: int
) -> None:
    chosen, rejected = (torch.tensor([v], dtype=torch.float64, requires_grad=True) for v in (gap, 0.0))
    loss = preference_losses(objective, chosen, rejected, torch.tensor([float(m)], dtype=torch.float64)).sum()
    shift, factor = (m if objective == "margin_bt" else 0), (m if objective == "scaled_bt" else 1)
    assert loss.item() == pytest.approx(factor * np.log1p(np.exp(-(gap - shift))), abs=1e-6)
    loss.backward()
    slope = -factor / (1 + np.exp(gap - shift))
    assert chosen.grad.item() == pytest.approx(slope, abs=1e-9)
    assert rejected.grad.item() == pytest.approx(-slope, abs=1e-9)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(1, 300), min_size=1, max_size=50),
    st.integers(1, 20),
    st.integers(1, 3),
    st.integers(50, 900),
    st.integers(1, 4),
)
def test_every_epoch_sees_every_unit_once_whatever_the_budget_and_the_processes(
    lengths: list[int], batch: int, epochs: int, tokens: int, processes: int
) -> None:
    sizes = np.array(lengths)
    planned = plan_steps(sizes, batch, epochs, tokens, 7, processes)
    steps = [np.sort(np.concatenate([u for passes in step for u in passes])) for step in planned]
    an_epoch = -(-len(lengths) // batch)
    for epoch in range(epochs):
        seen = np.concatenate(steps[epoch * an_epoch : (epoch + 1) * an_epoch])
        assert sorted(seen.tolist()) == list(range(len(lengths)))
    assert all(len({len(passes) for passes in step}) == 1 for step in planned)
    passes = [u for step in planned for p in step for u in p if len(u)]
    assert all(len(u) == 1 or len(u) * sizes[u].max() <= tokens for u in passes)
    alone = plan_steps(sizes, batch, epochs, 10**6, 7)
    assert [s.tolist() for s in steps] == [np.sort(np.concatenate(step[0])).tolist() for step in alone]


def test_the_helpsteer_template_is_the_one_of_nvidias_models() -> None:
    tokenizer = small_tokenizer()
    tokenizer.chat_template = None
    prepare_tokenizer(tokenizer, "helpsteer")
    turns = [*CONVERSATION, {"role": "assistant", "content": "four"}]
    text = tokenizer.apply_chat_template(turns, tokenize=False)
    system, rest = text.split("\n<extra_id_1>", 1)
    assert system == f"<extra_id_0>System\n{SYSTEM}"
    # the published files write earlier turns in the same way into `prompt`
    flattened = "one\n<extra_id_1>Assistant\ntwo\n<extra_id_1>User\nthree"
    assert rest == f"User\n{flattened}\n<extra_id_1>Assistant\nfour\n<extra_id_2>"
    own = tokenizer.apply_chat_template([{"role": "system", "content": "good"}, *turns], tokenize=False)
    assert own.startswith("<extra_id_0>System\ngood\n<extra_id_1>User\none")
    assert encode(tokenizer, CONVERSATION, "four", 1000).ids[-1] != tokenizer.pad_token_id


def test_a_conversation_ends_with_the_end_of_turn_token_and_begins_with_one_bos() -> None:
    tokenizer = prepare_tokenizer(small_tokenizer())
    ids, dropped, cut = encode(tokenizer, CONVERSATION, "four", 100)
    assert tokenizer.convert_ids_to_tokens(ids)[-1] == "<|im_end|>"
    assert (dropped, cut) == (0, 0)
    assert tokenizer.pad_token_id != tokenizer.convert_tokens_to_ids("<|im_end|>")
    with_bos = prepare_tokenizer(small_tokenizer(adds_bos=True))
    ids, _, _ = encode(with_bos, CONVERSATION, "four", 100)
    assert ids.count(with_bos.bos_token_id) == 1
    assert ids[0] == with_bos.bos_token_id


def test_anyones_plain_template_gives_the_same_tokens() -> None:
    tokenizer = prepare_tokenizer(small_tokenizer())
    plain = tokenizer.apply_chat_template(
        [*CONVERSATION, {"role": "assistant", "content": "four"}], tokenize=True, return_dict=False
    )
    assert plain == encode(tokenizer, CONVERSATION, "four", 100).ids


def test_an_over_long_conversation_loses_its_oldest_turns_and_then_the_middle_of_its_texts() -> None:
    tokenizer = prepare_tokenizer(small_tokenizer())
    whole = len(encode(tokenizer, CONVERSATION, "four", 1000).ids)
    ids, dropped, cut = encode(tokenizer, CONVERSATION, "four", whole - 1)
    assert (dropped, cut) == (2, 0)
    assert ids == encode(tokenizer, CONVERSATION[2:], "four", 1000).ids
    last = len(ids)
    ids, dropped, cut = encode(tokenizer, CONVERSATION, "one two three four five six seven eight nine ten", last + 3)
    assert (len(ids), dropped, cut) == (last + 3, 2, 6)
    assert tokenizer.decode(ids).split()[-5:] == ["one", "two", "nine", "ten", "<|im_end|>"]
    assert tokenizer.convert_ids_to_tokens(ids)[-1] == "<|im_end|>"


def test_the_system_message_stays_when_turns_go() -> None:
    tokenizer = prepare_tokenizer(small_tokenizer())
    system = {"role": "system", "content": "good"}
    whole = len(encode(tokenizer, [system, *CONVERSATION], "four", 1000).ids)
    ids, dropped, cut = encode(tokenizer, [system, *CONVERSATION], "four", whole - 1)
    assert ids == encode(tokenizer, [system, CONVERSATION[2]], "four", 1000).ids
    assert (dropped, cut) == (2, 0)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 6), min_size=1, max_size=4), st.booleans(), st.integers(12, 90))
def test_no_more_turns_go_than_must(words: list[int], system: bool, most: int) -> None:
    tokenizer = prepare_tokenizer(small_tokenizer())
    head = [{"role": "system", "content": "good"}] if system else []
    roles = ("user", "assistant")
    turns = [{"role": roles[n % 2], "content": " ".join(["one"] * w)} for n, w in enumerate([*words, *words[:-1]])]
    ids, dropped, cut = encode(tokenizer, [*head, *turns], "four", most)
    lengths = [len(encode(tokenizer, [*head, *turns[n:]], "four", 1000).ids) for n in range(0, len(turns), 2)]
    fitting = [2 * n for n, length in enumerate(lengths) if length <= most]
    assert dropped == (fitting[0] if fitting else len(turns) - 1)
    left = encode(tokenizer, [*head, *turns[dropped:]], "four", 1000).ids
    assert cut == len(left) - len(ids)
    assert ids == left if fitting else len(ids) <= most


@pytest.mark.parametrize(
    ("template", "said"),
    [
        (None, "no chat template"),
        ("{% for m in messages %}{{ m['content'] }} {% endfor %}", "not a special token"),
    ],
)
def test_a_template_that_cannot_serve_is_refused(template: str | None, said: str) -> None:
    tokenizer = small_tokenizer()
    tokenizer.chat_template = template
    with pytest.raises(ValueError, match=said):
        prepare_tokenizer(tokenizer)


@given(st.lists(st.integers(1, 900), min_size=1, max_size=60), st.integers(100, 2000))
def test_batches_hold_every_row_once_within_their_budget(lengths: list[int], tokens: int) -> None:
    found = list(batches(lengths, tokens))
    assert sorted(int(r) for rows in found for r in rows) == list(range(len(lengths)))
    assert all(len(rows) == 1 or len(rows) * max(lengths[r] for r in rows) <= tokens for rows in found)


def test_padding_is_on_the_right() -> None:
    ids, mask = pad([[5, 6], [7]], 0)
    assert ids.tolist() == [[5, 6], [7, 0]]
    assert mask.tolist() == [[1, 1], [1, 0]]


def test_the_ridge_head_finds_a_linear_rule_and_skips_what_nobody_rated() -> None:
    generator = np.random.default_rng(0)
    states, weights = generator.normal(size=(300, 12)), generator.normal(size=(5, 12))
    labels = states @ weights.T
    labels[:, 3] = np.nan
    labels[::2, 1] = np.nan
    head = ridge_head(states, labels, np.arange(300) % 5)
    assert head[[0, 1, 2, 4]] == pytest.approx(weights[[0, 1, 2, 4]], abs=0.05)
    assert (head[3] == 0).all()


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.integers(6, 14), st.integers(1, 20))
def test_the_ridge_strength_is_the_one_that_plain_cross_validation_finds(seed: int, rows: int, width: int) -> None:
    generator = np.random.default_rng(seed)
    states, labels = generator.normal(size=(rows, width)), generator.integers(0, 5, (rows, 2)).astype(float)
    labels[generator.random((rows, 2)) < 0.2] = np.nan
    folds = np.arange(rows) % 3

    def fit(keep: np.ndarray, attribute: int, strength: float) -> np.ndarray:
        keep = keep & np.isfinite(labels[:, attribute])
        if not keep.any():
            return np.zeros(width)
        x, penalty = states[keep], strength * np.linalg.norm(states[keep], 2) ** 2
        return np.linalg.solve(x.T @ x + penalty * np.eye(width), x.T @ labels[keep, attribute])

    def left_out(strength: float) -> float:
        squares = [
            (states[folds == f] @ fit(folds != f, a, strength) - labels[folds == f, a]) ** 2
            for f in range(3)
            for a in range(2)
        ]
        return float(np.nansum(np.concatenate(squares)))

    errors = np.array([left_out(k) for k in RIDGE])
    found = ridge_head(states, labels, folds)
    everything = np.ones(rows, dtype=bool)
    # any strength whose error ties with the least will do
    tied = [k for k, e in zip(RIDGE, errors, strict=True) if e <= errors.min() * (1 + 1e-6) + 1e-9]
    best = [np.stack([fit(everything, a, k) for a in range(2)]) for k in tied]
    assert any(found == pytest.approx(weights, rel=1e-4, abs=1e-6) for weights in best)


def test_the_baseline_is_the_error_of_the_training_mean_or_of_equal_rewards() -> None:
    def examples(labels: np.ndarray) -> Examples:
        units = np.arange(len(labels))[:, None]
        return Examples([[1]] * len(labels), units, labels, np.array([[0, 1]]))

    train, labels = np.array([[0.0] * 5, [4.0] * 5]), np.array([[1.0] * 5, [2.0] * 4 + [np.nan]])
    figures = baseline_of(Recipe(base="b"), examples(train), examples(labels))
    assert figures["helpfulness_mse"] == pytest.approx(0.5)
    assert figures["verbosity_mse"] == pytest.approx(1.0)
    assert figures["loss"] == pytest.approx(5 / 9)
    assert figures["pair_accuracy"] == 0
    pairs = Examples([[1]] * 4, np.array([[0, 1], [2, 3]]), np.array([[1.0], [3.0]]), np.array([[0, 1], [2, 3]]))
    assert baseline_of(Recipe(base="b", objective="scaled_bt"), pairs, pairs)["loss"] == pytest.approx(2 * np.log(2))


def test_rating_figures_are_numpys() -> None:
    generator = np.random.default_rng(0)
    predictions, labels = generator.normal(size=(30, 5)), generator.integers(0, 5, (30, 5)).astype(float)
    labels[:10, 0] = np.nan
    figures = rating_figures(predictions, labels)
    assert figures["correctness_pearson"] == pytest.approx(np.corrcoef(predictions[:, 1], labels[:, 1])[0, 1])
    assert figures["helpfulness_mse"] == pytest.approx(np.mean((predictions[10:, 0] - labels[10:, 0]) ** 2))
    rated = np.isfinite(labels)
    assert figures["loss"] == pytest.approx(np.mean((predictions - labels)[rated] ** 2))


def test_the_curve_has_a_row_an_evaluation_with_the_loss_in_between() -> None:
    figures = {f"eval_{a}_{f}": 0.0 for a in ATTRIBUTES for f in ("mse", "pearson")} | {"eval_pair_accuracy": 0.5}
    history = [
        {"step": 0, "eval_loss": 3.0, **figures},
        {"step": 1, "loss": 2.0},
        {"step": 2, "loss": 1.0},
        {"step": 2, "eval_loss": 2.5, **figures},
    ]
    assert [(r["step"], r["train_loss"], r["development_loss"]) for r in curve_of(history)] == [
        (0, None, 3.0),
        (2, 1.5, 2.5),
    ]


def test_figures_of_attributes_are_those_of_the_chosen_checkpoint() -> None:
    rows = [
        {"step": step, "development_loss": 1.0, "chosen": step == 4}
        | {f"{a}_{f}": step / 10 for a in ATTRIBUTES for f in ("mse", "pearson")}
        for step in (0, 4, 8)
    ]
    table = attribute_figures(pa.Table.from_pylist(rows, schema=CURVE), [1, 2, 3, 4, 5.12345], [None, 0, 0, 0, 0.1])
    assert table.to_pylist()[4] == {
        "attribute": "verbosity",
        "pearson": 0.4,
        "pearson of words and surface": 0.1,
        "mse": 0.4,
        "mse of the mean": 5.123,
    }


def test_the_responses_shown_are_those_with_the_highest_and_lowest_predictions() -> None:
    rows = [{"response_id": f"r{n}", "helpfulness": n / 10, "helpfulness_label": 1.0} for n in (3, 1, 4, 0, 5)]
    data = pa.table({"response_id": [f"r{n}" for n in range(6)], "messages": [[]] * 6, "response": list("abcdef")})
    shown = best_and_worst(pa.Table.from_pylist(rows, schema=PREDICTIONS), data, each=2)
    assert shown["response"].to_pylist() == ["f", "e", "b", "a"]
    assert len(best_and_worst(pa.Table.from_pylist(rows[:1], schema=PREDICTIONS), data)) == 0


def test_rows_that_the_chat_template_refuses_are_left_out_and_counted() -> None:
    tokenizer = prepare_tokenizer(tokenizer_of(LAYOUTS["gemma_2"]))
    fine, broken = CONVERSATION, [*CONVERSATION[:1], *CONVERSATION[:1]]
    ratings = dict.fromkeys(ATTRIBUTES, 1.0)
    rated = [
        {"split": "train", "prompt_id": str(n), "response_id": "r", "position": 0, "messages": m, "response": f"a{n}"}
        | ratings
        for n, m in enumerate((broken, fine, fine))
    ]
    pairs = [
        {"split": "train", "prompt_id": str(n), "messages": m, "chosen": "a1", "rejected": f"b{n}", "strength": 1.0}
        for n, m in enumerate((fine, broken))
    ]
    tables = pa.Table.from_pylist(rated, schema=RATED), pa.Table.from_pylist(pairs, schema=PREFERRED)
    side = side_of(tokenizer, *tables, "train", 1000)
    assert side.rated["prompt_id"].to_pylist() == ["1", "2"]
    assert side.preferred["prompt_id"].to_pylist() == ["0"]
    texts = [tokenizer.decode(side.encoded[n]) for n in (*side.rated_at, *side.preferred_at[0])]
    assert [text.partition("model\n")[2].rpartition("model\n")[2] for text in texts] == [
        f"{response}<end_of_turn>" for response in ("a1", "a2", "a1", "b0")
    ]
    assert side.refused == {"Conversation roles must alternate user/assistant/user/assistant/...": 3}
