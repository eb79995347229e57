from pathlib import Path

import pytest
from tokenizers import Tokenizer, models
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from pipeline.models.encoding import encode, encode_each, prepare_tokenizer, set_padding
from tests.models.families import LAYOUTS, tokenizer_of

FAMILIES = pytest.mark.parametrize("family", LAYOUTS)
CONVERSATION = [
    {"role": "system", "content": "be brief"},
    {"role": "user", "content": "one"},
    {"role": "assistant", "content": "two"},
    {"role": "user", "content": "three"},
]
PADS = {
    "llama_3": "<|reserved_special_token_0|>",
    "llama_3_1": "<|finetune_right_pad_id|>",
    "gemma_2": "<pad>",
    "phi_3": "<|placeholder1|>",
    "phi_3_first": "<|endoftext|>",
    "mistral_v7": "<pad>",
    "granite_3_1": "<|tool_call|>",
    "command_r": "<PAD>",
    "smollm_3": "<|reserved_special_token_0|>",
    "deepseek": "<｜▁pad▁｜>",
}


@FAMILIES
def test_a_familys_conversation_ends_with_its_end_of_turn_which_is_never_the_padding(family: str) -> None:
    layout = LAYOUTS[family]
    tokenizer = prepare_tokenizer(tokenizer_of(layout))
    ids = encode(tokenizer, CONVERSATION, "four", 10_000).ids
    assert tokenizer.convert_ids_to_tokens(ids[-1]) == layout.end
    assert tokenizer.pad_token_id not in (None, ids[-1])
    assert tokenizer.pad_token_id < len(tokenizer_of(layout))


@pytest.mark.parametrize("family", PADS)
def test_padding_is_what_is_meant_for_it_or_spare(family: str) -> None:
    assert prepare_tokenizer(tokenizer_of(LAYOUTS[family])).pad_token == PADS[family]


@FAMILIES
def test_anyones_plain_template_gives_the_same_tokens_of_every_family(family: str, tmp_path: Path) -> None:
    tokenizer = prepare_tokenizer(tokenizer_of(LAYOUTS[family]))
    tokenizer.save_pretrained(tmp_path)
    plain = AutoTokenizer.from_pretrained(tmp_path).apply_chat_template(
        [*CONVERSATION, {"role": "assistant", "content": "four"}], tokenize=True, return_dict=False
    )
    assert plain == encode(tokenizer, CONVERSATION, "four", 10_000).ids
    assert "be brief" in tokenizer.decode(plain)


def test_a_padding_token_that_the_model_has_no_vector_for_is_not_taken() -> None:
    tokenizer = tokenizer_of(LAYOUTS["llama_3_1"])
    known = len(tokenizer)
    tokenizer.add_special_tokens({"pad_token": "[PAD]"})
    assert prepare_tokenizer(tokenizer, embeddings=known).pad_token == "<|finetune_right_pad_id|>"
    # nor is one of a model that has fewer
    at = tokenizer.convert_tokens_to_ids("<|finetune_right_pad_id|>")
    tokenizer = tokenizer_of(LAYOUTS["llama_3_1"])
    assert prepare_tokenizer(tokenizer, embeddings=at).pad_token == "<|reserved_special_token_0|>"


def test_a_template_of_tokens_that_the_model_has_no_vector_for_is_refused() -> None:
    tokenizer = tokenizer_of(LAYOUTS["qwen_2_5"])
    with pytest.raises(ValueError, match=r"writes '<\|im_start\|>', token \d+, but the model knows 200 tokens"):
        prepare_tokenizer(tokenizer, embeddings=200)


def test_what_is_advised_where_nothing_is_left_to_pad_with_works(tmp_path: Path) -> None:
    inner = Tokenizer(models.WordLevel({"<e>": 0, "a": 1, "b": 2}, unk_token="a"))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="<e>")
    tokenizer.chat_template = "{% for m in messages %}{{ m['content'] + eos_token }}{% endfor %}"
    with pytest.raises(ValueError, match="no special token left to pad with"):
        prepare_tokenizer(tokenizer, embeddings=3)
    config = LlamaConfig(vocab_size=3, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1)
    model = LlamaForCausalLM(config)
    tokenizer.add_special_tokens({"pad_token": "<|pad|>"})
    model.resize_token_embeddings(len(tokenizer))
    assert prepare_tokenizer(tokenizer, embeddings=model.config.vocab_size).pad_token == "<|pad|>"


def test_a_configuration_without_padding_gets_a_token_that_the_model_knows() -> None:
    tokenizer = tokenizer_of(LAYOUTS["llama_3_1"])
    tokenizer.add_special_tokens({"pad_token": "[PAD]"})
    config = LlamaConfig(vocab_size=len(tokenizer) - 1)
    end = tokenizer.convert_tokens_to_ids("<|eot_id|>")
    set_padding(config, tokenizer, [[1, 2, end]])
    assert config.pad_token_id not in (None, end)
    assert config.pad_token_id < config.vocab_size


def test_what_the_chat_template_refuses_is_left_out_alone_with_its_reason() -> None:
    tokenizer = prepare_tokenizer(tokenizer_of(LAYOUTS["gemma_2"]))
    fine = [{"role": "user", "content": "one"}]
    twice = [*fine, *fine]
    encoded, refused = encode_each(tokenizer, [(fine, "a"), (twice, "a"), (fine, "b")], 1000)
    assert list(encoded) == [0, 2]
    assert encoded[2] == encode(tokenizer, fine, "b", 1000)
    assert refused == {"Conversation roles must alternate user/assistant/user/assistant/...": [1]}
