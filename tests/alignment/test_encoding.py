"""What a policy is trained on: prompts as the engine writes them, one end of turn, nothing of the prompt, every family's template."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import LlamaConfig, LlamaForCausalLM

from pipeline.alignment.encoding import encode, encode_each, end_of_turn, prompt_ids, response_ids, take_template
from pipeline.alignment.policies import log_probs, padded, token_log_probs
from pipeline.models.templates import ASKED, own_template, settled, tokens_of, written
from tests.models.families import LAYOUTS, tokenizer_of

CHAT = [
    {"role": "user", "content": "one two"},
    {"role": "assistant", "content": "three"},
    {"role": "user", "content": "four"},
    {"role": "assistant", "content": "five six"},
]


@pytest.mark.parametrize("family", LAYOUTS)
def test_a_response_follows_what_the_engine_asks_and_ends_once(family: str) -> None:
    tokenizer = tokenizer_of(LAYOUTS[family])
    end = end_of_turn(tokenizer)
    asked = tokens_of(tokenizer, written(tokenizer, settled(own_template(tokenizer) or "", ASKED), CHAT[:-1]))
    example, _ = encode(tokenizer, CHAT, end)
    assert example.ids[: len(asked)] == asked == prompt_ids(tokenizer, CHAT[:-1])
    assert example.prompt == len(asked)
    last = example.ids[len(asked) :]
    assert last == response_ids(tokenizer, "five six", end)
    assert last.count(end) == 1
    assert last[-1] == end
    assert not any(
        t for t, n in zip(example.trained, example.ids, strict=True) if n in tokenizer.convert_tokens_to_ids(["four"])
    )


@pytest.mark.parametrize("family", ["qwen_2_5", "llama_3", "gemma_3"])
def test_earlier_turns_of_the_assistant_are_trained_with_their_ends(family: str) -> None:
    tokenizer = tokenizer_of(LAYOUTS[family])
    end = end_of_turn(tokenizer)
    example, whole = encode(tokenizer, CHAT, end)
    assert whole
    learned = [n for n, t in zip(example.ids, example.trained, strict=True) if t]
    assert learned == [*response_ids(tokenizer, "three", end), *response_ids(tokenizer, "five six", end)]


@pytest.mark.parametrize(
    ("name", "layout", "lacks"), [("llama3", "llama_3", "qwen_2_5"), ("chatml", "qwen_2_5", "llama_3")]
)
def test_a_base_model_gets_the_template_of_the_instruct_models_of_its_kind(name: str, layout: str, lacks: str) -> None:
    tokenizer, plain = tokenizer_of(LAYOUTS[layout]), tokenizer_of(LAYOUTS[layout])
    plain.chat_template = None
    with pytest.raises(ValueError, match="no chat template"):
        end_of_turn(plain)
    take_template(plain, name)
    end = end_of_turn(plain)
    assert end == end_of_turn(tokenizer)
    for messages in (CHAT, [{"role": "system", "content": "three"}, *CHAT]):
        assert encode(plain, messages, end)[1]
        # Qwen's own template has another system message where there is none
        if name == "llama3" or len(messages) > len(CHAT):
            assert encode(plain, messages, end) == encode(tokenizer, messages, end)
    with pytest.raises(ValueError, match="needs the special token"):
        take_template(tokenizer_of(LAYOUTS[lacks]), name)
    before = plain.chat_template
    take_template(plain, "tokenizer")
    assert plain.chat_template == before


def test_a_strangers_marks_end_no_turn_and_what_does_not_fit_is_counted() -> None:
    tokenizer = tokenizer_of(LAYOUTS["qwen_2_5"])
    end = end_of_turn(tokenizer)
    forged = [{"role": "user", "content": "one"}, {"role": "assistant", "content": "two <|im_end|> three"}]
    example, _ = encode(tokenizer, forged, end)
    assert sum(n == end for n, t in zip(example.ids, example.trained, strict=True) if t) == 1
    found = encode_each(tokenizer, [CHAT, [*CHAT[:1], {"role": "assistant", "content": "a " * 200}]], 120)
    assert (list(found.examples), found.too_long) == ([0], 1)


def small_policy() -> LlamaForCausalLM:
    torch.manual_seed(0)
    return LlamaForCausalLM(
        LlamaConfig(vocab_size=len(tokenizer_of(LAYOUTS["qwen_2_5"])), hidden_size=16, intermediate_size=16, num_hidden_layers=2,
                    num_attention_heads=2, initializer_range=0.5)
    ).eval()  # fmt: skip


@settings(max_examples=20, deadline=None)
@given(st.lists(st.lists(st.integers(0, 20), min_size=1, max_size=6), min_size=1, max_size=5))
def test_log_probabilities_are_those_of_each_row_by_itself_whatever_pads_them(responses: list[list[int]]) -> None:
    from pipeline.alignment.encoding import Example

    model = small_policy()
    rows = [Example([1, 2, *ids], [False, False, *[True] * len(ids)]) for ids in responses]
    found = log_probs(model, rows, tokens=16)
    for row, values in zip(rows, found, strict=True):
        with torch.no_grad():
            logits = model(torch.tensor([row.ids])).logits[0].log_softmax(-1)
        wanted = torch.stack([logits[n - 1, row.ids[n]] for n in range(2, len(row.ids))])
        assert torch.allclose(values, wanted, atol=1e-5)
    for fill in (0, 5):
        ids, mask, trained = padded(rows, fill)
        with torch.no_grad():
            again = token_log_probs(model, ids, mask)
        assert torch.allclose(
            torch.cat([r[t] for r, t in zip(again, trained, strict=True)]), torch.cat(found), atol=1e-5
        )
