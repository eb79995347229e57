"""Conversations as tokens to tune a policy on: which of them are trained, and where a response ends. Needs a tokenizer, not torch.

What comes before a response has the tokens that the engine writes of it, so that a policy is trained on what it is asked. A response is
followed by the end of its turn, once, and by nothing: what a template writes after that token (ChatML's line break) is never generated.
"""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from pipeline.models.marks import control_tokens, harmless
from pipeline.models.templates import ANSWERED, ASKED, Message, own_template, settled, tokens_of, written


class Example(NamedTuple):
    """Token ids of a conversation, of which `trained` says whether each is learned: responses, and the ends of their turns."""

    ids: list[int]
    trained: list[bool]

    @property
    def prompt(self) -> int:
        """How many tokens stand before the last response."""
        return len(self.ids) - self.trained[::-1].index(False) if False in self.trained else 0


class Encoded(NamedTuple):
    """Examples by the places of their conversations, how many didn't fit, and how many of the fitting have earlier turns that are not trained.

    refused: how many the chat template refuses, by its reason.
    """

    examples: dict[int, Example]
    too_long: int
    not_all_turns: int
    refused: dict[str, int]


TEMPLATES = {
    "chatml": "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}",
    "llama3": "{{ bos_token }}{% for m in messages %}"
    "{{ '<|start_header_id|>' + m['role'] + '<|end_header_id|>\n\n' + m['content'] + '<|eot_id|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}",
}
"""Chat templates for base models: OpenAI's ChatML, and Llama 3's, in the form of their instruct models."""


def take_template(tokenizer: Any, name: str) -> None:
    """Give a tokenizer a template of TEMPLATES; `tokenizer` leaves it its own. Raises ValueError where it lacks a special token of it."""
    if name == "tokenizer":
        return
    marks = [mark for mark in MARKS[name] if len(tokenizer(mark, add_special_tokens=False).input_ids) != 1]
    if marks:
        raise ValueError(
            f"template: {name} needs the special token {marks[0]}, which the model's tokenizer doesn't have; name another template, or take "
            "another model"
        )
    tokenizer.chat_template = TEMPLATES[name]


MARKS = {"chatml": ("<|im_start|>", "<|im_end|>"), "llama3": ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")}
"""Special tokens of TEMPLATES."""


def end_of_turn(tokenizer: Any) -> int:
    """The token that ends a response: the last control token that the chat template writes after one.

    Raises ValueError where there is none, so that no policy could learn to stop.
    """
    template = _template(tokenizer, ANSWERED)
    conversation = [{"role": role, "content": "a"} for role in ANSWERED]
    ids = tokens_of(tokenizer, written(tokenizer, template, conversation))
    control = set(tokenizer.convert_tokens_to_ids(control_tokens(tokenizer)))
    after = ids[len(_prompt(tokenizer, conversation[:1])) :]
    end = next((token for token in reversed(after) if token in control), None)
    if end is None:
        raise ValueError(
            "the chat template writes no special token after a response, so that a policy can't learn to end one"
        )
    return int(end)


def prompt_ids(tokenizer: Any, messages: Sequence[Message]) -> list[int]:
    """Token ids of what a policy is asked: messages that end with the user's, and the beginning of the assistant's turn.

    Raises jinja2.TemplateError where the template refuses them.
    """
    return _prompt(tokenizer, harmless(tokenizer, messages))


def response_ids(tokenizer: Any, response: str, end: int) -> list[int]:
    """Token ids of a response with the end of its turn, once."""
    (message,) = harmless(tokenizer, [{"role": "assistant", "content": response}])
    ids = list(tokenizer(message["content"], add_special_tokens=False).input_ids)
    return [*ids, end]


def encode(tokenizer: Any, messages: Sequence[Message], end: int) -> tuple[Example, bool]:
    """A conversation that ends with the assistant's message, with every assistant's turn trained, and whether that is so.

    Where the tokens of an earlier turn are not those that it was asked with (a template that leaves out earlier thoughts, say), that turn
    is not trained.
    """
    texts = harmless(tokenizer, messages)
    ids, whole = _prompt(tokenizer, texts[:-1]), True
    trained = [False] * len(ids)
    for n, message in enumerate(texts[:-1]):
        if message["role"] != "assistant" or not n:
            continue
        before = _prompt(tokenizer, texts[:n])
        at = next((p for p in range(len(before), len(ids)) if ids[p] == end), None)
        if ids[: len(before)] == before and at is not None:
            trained[len(before) : at + 1] = [True] * (at + 1 - len(before))
        else:
            whole = False
    last = response_ids(tokenizer, texts[-1]["content"], end)
    return Example([*ids, *last], [*trained, *[True] * len(last)]), whole


def encode_each(tokenizer: Any, conversations: Iterable[Sequence[Message]], max_tokens: int) -> Encoded:
    """Conversations, each of which ends with the assistant's message, in at most `max_tokens` tokens. One that doesn't fit is left out."""
    from jinja2 import TemplateError

    end, examples = end_of_turn(tokenizer), dict[int, Example]()
    too_long, not_all, refused = 0, 0, dict[str, int]()
    for n, messages in enumerate(conversations):
        try:
            example, whole = encode(tokenizer, messages, end)
        except TemplateError as error:
            refused[str(error)] = refused.get(str(error), 0) + 1
            continue
        if len(example.ids) > max_tokens:
            too_long += 1
            continue
        not_all += not whole
        examples[n] = example
    return Encoded(examples, too_long, not_all, refused)


def _template(tokenizer: Any, shape: tuple[str, ...]) -> str:
    template = own_template(tokenizer)
    if not template:
        raise ValueError(
            "the model's tokenizer has no chat template; take an instruct model, or give the tokenizer a template"
        )
    return settled(template, shape)


def _prompt(tokenizer: Any, messages: Sequence[Message]) -> list[int]:
    return tokens_of(tokenizer, written(tokenizer, _template(tokenizer, ASKED), messages))
