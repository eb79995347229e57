import pytest
from tokenizers import AddedToken

from pipeline.engines.content import HARMONY, parted
from pipeline.engines.vllm import Decoding, begun_thought, render, template_of
from pipeline.settings import Checkpoint
from tests.reward_model.small import small_tokenizer

MESSAGES = [{"role": "system", "content": "one"}, {"role": "user", "content": "two"}]


@pytest.mark.parametrize("adds_bos", [True, False])
@pytest.mark.parametrize("template", ["plain", "tokenizer"])
def test_a_conversation_has_its_beginning_token_once(adds_bos: bool, template: str) -> None:
    tokenizer = small_tokenizer(adds_bos)
    checkpoint = Checkpoint(folder="x", licence="x", chat_template=template)
    ids = render(tokenizer, MESSAGES, checkpoint)
    if template == "plain" or adds_bos:
        assert ids[0] == tokenizer.bos_token_id
    if template == "plain":
        assert ids.count(tokenizer.bos_token_id) == 1
    if adds_bos:
        assert ids[1] != tokenizer.bos_token_id


def test_the_plain_template_is_a_transcript_that_the_assistant_goes_on_with() -> None:
    checkpoint = Checkpoint(folder="x", licence="x", chat_template="plain")
    tokenizer = small_tokenizer()
    text = tokenizer.apply_chat_template(
        MESSAGES, chat_template=template_of(tokenizer, checkpoint), tokenize=False, add_generation_prompt=True
    )
    assert text == "<|im_start|>one\n\nUser: two\n\nAssistant:"


def test_a_base_model_without_a_template_is_told_what_to_set() -> None:
    tokenizer = small_tokenizer()
    tokenizer.chat_template = None
    with pytest.raises(ValueError, match="chat_template: plain"):
        template_of(tokenizer, Checkpoint(folder="x", licence="x"))


THINKING = "{% for m in messages %}{{ m.content }} {% endfor %}<think>{% if not enable_thinking %}</think>{% endif %}"


@pytest.mark.parametrize(("thinks", "begins"), [(True, "<think>"), (False, "")])
def test_a_checkpoint_says_how_its_model_thinks_and_the_prompt_whether_it_has_begun_to(
    thinks: bool, begins: str
) -> None:
    tokenizer = small_tokenizer()
    tokenizer.add_tokens([AddedToken("<think>"), AddedToken("</think>")])
    tokenizer.chat_template = THINKING
    checkpoint = Checkpoint(folder="x", licence="x", chat_template_kwargs={"enable_thinking": thinks})
    ids = render(tokenizer, MESSAGES, checkpoint)
    assert begun_thought(tokenizer, ids) == begins
    assert parted(begins + "one</think>two") == ("one", "two")
    assert Decoding.of(tokenizer).skip_special_tokens, "no special ones: a text has them anyway"


def test_special_tokens_that_part_thought_and_response_stay_in_the_text_and_no_others_do() -> None:
    tokenizer = small_tokenizer()
    tokenizer.add_tokens([AddedToken(token, special=True) for token in ("[THINK]", "[/THINK]", "<|START_RESPONSE|>")])
    decoding = Decoding.of(tokenizer)
    assert not decoding.skip_special_tokens
    text = tokenizer.decode(tokenizer("[THINK] one [/THINK] <|START_RESPONSE|> two <|im_end|>").input_ids)
    assert parted(decoding.cleaned(text)) == ("one", "two")
    tokenizer = small_tokenizer()
    tokenizer.add_tokens([AddedToken(token, special=True) for token in HARMONY])
    assert (
        Decoding.of(tokenizer).cleaned("<|channel|>final<|message|>two<|im_end|>") == "<|channel|>final<|message|>two"
    )
    tokenizer = small_tokenizer()
    tokenizer.add_tokens([AddedToken("<|end|>", special=True)])
    assert Decoding.of(tokenizer).skip_special_tokens, "Phi's end of a turn parts nothing"
    plain = Decoding.of(small_tokenizer())
    assert plain.skip_special_tokens
    assert plain.cleaned("a text with <|im_end|> in it") == "a text with <|im_end|> in it"
