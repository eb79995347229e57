import pytest

from pipeline.engines.vllm import render, template_of
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
