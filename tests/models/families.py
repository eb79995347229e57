"""How the families of language models write a conversation: their special tokens and chat templates, as their documentation lays them out.

The templates are short ones of the same layout, without tools. `tokenizer_of` makes a small tokenizer of a layout: bytes, some words, and the
tokens of the family, flagged as its `tokenizer.json` flags them, few of them named in the configuration.
"""

from collections.abc import Sequence
from typing import NamedTuple

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

ALTERNATE = (
    "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}"
)
NO_SYSTEM = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
SYSTEM_APART = (
    "{% if messages[0]['role'] == 'system' %}{% set system = messages[0]['content'] %}{% set turns = messages[1:] %}"
    "{% else %}{% set system = DEFAULT %}{% set turns = messages %}{% endif %}"
)


class Layout(NamedTuple):
    """One family's layout. `special` are flagged as such, `added` are not; `end` ends a response; `bos` is the beginning-of-text token."""

    special: tuple[str, ...]
    added: tuple[str, ...]
    template: str
    end: str
    eos: str
    bos: str | None = None
    adds_bos: bool = False
    pad: str | None = None
    takes_system: bool = True
    dated: bool = False


def _chatml(before: str = "", of_assistant: str = "", of_prompt: str = "") -> str:
    return (
        before
        + "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}"
        + ("{% if message['role'] == 'assistant' %}" + of_assistant + "{% endif %}" if of_assistant else "")
        + "{{ message['content'] + '<|im_end|>\n' }}{% endfor %}"
        + "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n"
        + of_prompt
        + "' }}{% endif %}"
    )


def _llama_3(system: str) -> str:
    return (
        "{{ bos_token }}"
        + system
        + "{% for message in turns %}{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n'"
        + " + message['content'] | trim + '<|eot_id|>' }}{% endfor %}"
        + "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
    )


def _gemma(system: str) -> str:
    return (
        "{{ bos_token }}"
        + system
        + "{% for message in turns %}"
        + ALTERNATE
        + "{{ '<start_of_turn>' + ('model' if message['role'] == 'assistant' else message['role']) + '\n' }}"
        + "{{ (first if loop.first else '') + message['content'] | trim + '<end_of_turn>\n' }}{% endfor %}"
        + "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
    )


LLAMA_3 = (
    "<|begin_of_text|>",
    "<|end_of_text|>",
    "<|reserved_special_token_0|>",
    "<|reserved_special_token_1|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eot_id|>",
)
LLAMA_3_1 = (*LLAMA_3, "<|finetune_right_pad_id|>", "<|eom_id|>", "<|python_tag|>")
GEMMA = ("<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "<start_of_turn>", "<end_of_turn>")
GEMMA_ADDED = ("<unused0>", "\n\n", "\n\n\n", "<table>", "<b>", "</b>")
QWEN = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>")
QWEN_ADDED = ("<tool_call>", "</tool_call>", "<|fim_prefix|>", "<|repo_name|>")
DATED_HEAD = "Cutting Knowledge Date: December 2023\nToday Date: "

LAYOUTS = {
    "llama_3": Layout(
        LLAMA_3,
        (),
        _llama_3("{% set turns = messages %}"),
        "<|eot_id|>",
        "<|eot_id|>",
        "<|begin_of_text|>",
        adds_bos=True,
    ),
    "llama_3_1": Layout(
        LLAMA_3_1,
        (),
        _llama_3(
            "{% if not date_string is defined %}{% set date_string = '26 Jul 2024' %}{% endif %}"
            + SYSTEM_APART.replace("DEFAULT", "''")
            + "{{ '<|start_header_id|>system<|end_header_id|>\n\n"
            + DATED_HEAD
            + "' + date_string + '\n\n' + system | trim + '<|eot_id|>' }}"
        ),
        "<|eot_id|>",
        "<|eot_id|>",
        "<|begin_of_text|>",
        adds_bos=True,
    ),
    "llama_3_2": Layout(
        LLAMA_3_1,
        (),
        _llama_3(
            "{% if not date_string is defined %}{% if strftime_now is defined %}{% set date_string = strftime_now('%d %b %Y') %}"
            "{% else %}{% set date_string = '26 Jul 2024' %}{% endif %}{% endif %}"
            + SYSTEM_APART.replace("DEFAULT", "''")
            + "{{ '<|start_header_id|>system<|end_header_id|>\n\n"
            + DATED_HEAD
            + "' + date_string + '\n\n' + system | trim + '<|eot_id|>' }}"
        ),
        "<|eot_id|>",
        "<|eot_id|>",
        "<|begin_of_text|>",
        adds_bos=True,
        dated=True,
    ),
    "gemma_2": Layout(
        GEMMA,
        GEMMA_ADDED,
        _gemma(NO_SYSTEM + "{% set turns = messages %}{% set first = '' %}"),
        "<end_of_turn>",
        "<eos>",
        "<bos>",
        adds_bos=True,
        pad="<pad>",
        takes_system=False,
    ),
    "gemma_3": Layout(
        (*GEMMA, "<start_of_image>"),
        GEMMA_ADDED,
        _gemma(
            "{% if messages[0]['role'] == 'system' %}{% set first = messages[0]['content'] + '\n\n' %}{% set turns = messages[1:] %}"
            "{% else %}{% set first = '' %}{% set turns = messages %}{% endif %}"
        ),
        "<end_of_turn>",
        "<end_of_turn>",
        "<bos>",
        adds_bos=True,
        pad="<pad>",
    ),
    "phi_3": Layout(
        ("<s>", "<|endoftext|>", "<|assistant|>", "<|system|>", "<|end|>", "<|user|>", "<|placeholder1|>"),
        (),
        "{% for message in messages %}{{ '<|' + message['role'] + '|>\n' + message['content'] + '<|end|>\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% else %}{{ eos_token }}{% endif %}",
        "<|endoftext|>",
        "<|endoftext|>",
        "<s>",
        pad="<|endoftext|>",
    ),
    "phi_3_first": Layout(
        ("<s>", "<|endoftext|>", "<|assistant|>", "<|system|>", "<|end|>", "<|user|>", "<|placeholder1|>"),
        (),
        "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'user' %}"
        "{{ '<|user|>\n' + message['content'] + '<|end|>\n<|assistant|>\n' }}"
        "{% elif message['role'] == 'assistant' %}{{ message['content'] + '<|end|>\n' }}{% endif %}{% endfor %}",
        "<|end|>",
        "<|endoftext|>",
        "<s>",
        pad="<|endoftext|>",
        takes_system=False,
    ),
    "phi_4": Layout(
        ("<|endoftext|>", "<|dummy_0|>", "<|im_start|>", "<|im_sep|>", "<|im_end|>"),
        ("<|fim_prefix|>",),
        "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '<|im_sep|>' + message['content'] + '<|im_end|>' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant<|im_sep|>' }}{% endif %}",
        "<|im_end|>",
        "<|im_end|>",
        "<|endoftext|>",
        pad="<|dummy_0|>",
    ),
    "qwen_2_5": Layout(
        QWEN,
        QWEN_ADDED,
        _chatml(
            "{% if messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n' }}{% endif %}"
        ),
        "<|im_end|>",
        "<|im_end|>",
        pad="<|endoftext|>",
    ),
    "qwen_3": Layout(
        QWEN,
        (*QWEN_ADDED, "<think>", "</think>"),
        "{% for message in messages %}{% set content = message['content'] %}"
        "{% if message['role'] == 'assistant' and '</think>' in content %}{% set content = content.split('</think>')[-1].lstrip('\n') %}{% endif %}"
        "{{ '<|im_start|>' + message['role'] + '\n' }}"
        "{% if message['role'] == 'assistant' and loop.last %}{{ '<think>\n\n</think>\n\n' }}{% endif %}"
        "{{ content + '<|im_end|>\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}"
        "{% if enable_thinking is defined and enable_thinking is false %}{{ '<think>\n\n</think>\n\n' }}{% endif %}{% endif %}",
        "<|im_end|>",
        "<|im_end|>",
        pad="<|endoftext|>",
    ),
    "gpt_oss": Layout(
        (
            "<|startoftext|>",
            "<|endoftext|>",
            "<|return|>",
            "<|constrain|>",
            "<|channel|>",
            "<|start|>",
            "<|end|>",
            "<|message|>",
            "<|call|>",
        ),
        (),
        "{{ '<|start|>system<|message|>You are a large language model.\nCurrent date: ' + strftime_now('%Y-%m-%d') + '\n\n"
        "Reasoning: ' + (reasoning_effort if reasoning_effort is defined else 'medium') + '<|end|>' }}"
        + SYSTEM_APART.replace("DEFAULT", "''")
        + "{% if system %}{{ '<|start|>developer<|message|># Instructions\n\n' + system + '<|end|>' }}{% endif %}"
        "{% for message in turns %}{% if message['role'] == 'assistant' %}"
        "{{ '<|start|>assistant<|channel|>final<|message|>' + message['content'] + ('<|return|>' if loop.last else '<|end|>') }}"
        "{% else %}{{ '<|start|>user<|message|>' + message['content'] + '<|end|>' }}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|start|>assistant' }}{% endif %}",
        "<|return|>",
        "<|return|>",
        "<|startoftext|>",
        pad="<|endoftext|>",
        dated=True,
    ),
    "mistral_v1": Layout(
        ("<unk>", "<s>", "</s>"),
        (),
        "{{ bos_token }}{% for message in messages %}"
        + ALTERNATE
        + "{% if message['role'] == 'user' %}{{ ' [INST] ' + message['content'] + ' [/INST]' }}"
        "{% else %}{{ ' ' + message['content'] + eos_token }}{% endif %}{% endfor %}",
        "</s>",
        "</s>",
        "<s>",
        adds_bos=True,
        takes_system=False,
    ),
    "mistral_v3": Layout(
        ("<unk>", "<s>", "</s>", "[INST]", "[/INST]", "[TOOL_CALLS]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]"),
        (),
        "{{ bos_token }}"
        + SYSTEM_APART.replace("DEFAULT", "''")
        + "{% for message in turns %}"
        + ALTERNATE
        + "{% if message['role'] == 'user' %}"
        "{{ '[INST] ' + (system + '\n\n' if system and loop.last else '') + message['content'] + '[/INST]' }}"
        "{% else %}{{ ' ' + message['content'] + eos_token }}{% endif %}{% endfor %}",
        "</s>",
        "</s>",
        "<s>",
        adds_bos=True,
    ),
    "mistral_v7": Layout(
        ("<unk>", "<s>", "</s>", "[INST]", "[/INST]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]", "<pad>", "<SPECIAL_20>"),
        (),
        "{% set today = strftime_now('%Y-%m-%d') %}{{ bos_token }}"
        + SYSTEM_APART.replace("DEFAULT", "'You are a language model. The current date is ' + today + '.'")
        + "{{ '[SYSTEM_PROMPT]' + system + '[/SYSTEM_PROMPT]' }}{% for message in turns %}"
        "{% if message['role'] == 'user' %}{{ '[INST]' + message['content'] + '[/INST]' }}"
        "{% else %}{{ message['content'] + eos_token }}{% endif %}{% endfor %}",
        "</s>",
        "</s>",
        "<s>",
        adds_bos=True,
        dated=True,
    ),
    "granite_3_1": Layout(
        ("<|end_of_text|>", "<|start_of_role|>", "<|end_of_role|>", "<|tool_call|>", "<fim_prefix>"),
        (),
        SYSTEM_APART.replace(
            "DEFAULT",
            "\"Knowledge Cutoff Date: April 2024.\nToday's Date: \" + strftime_now('%B %d, %Y') + '.\nYou are a helpful assistant.'",
        )
        + "{{ '<|start_of_role|>system<|end_of_role|>' + system + '<|end_of_text|>\n' }}{% for message in turns %}"
        "{{ '<|start_of_role|>' + message['role'] + '<|end_of_role|>' + message['content'] + '<|end_of_text|>\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|start_of_role|>assistant<|end_of_role|>' }}{% endif %}",
        "<|end_of_text|>",
        "<|end_of_text|>",
        "<|end_of_text|>",
        pad="<|end_of_text|>",
        dated=True,
    ),
    "command_r": Layout(
        (
            "<PAD>",
            "<UNK>",
            "<BOS_TOKEN>",
            "<EOS_TOKEN>",
            "<|START_OF_TURN_TOKEN|>",
            "<|END_OF_TURN_TOKEN|>",
            "<|USER_TOKEN|>",
            "<|CHATBOT_TOKEN|>",
            "<|SYSTEM_TOKEN|>",
        ),
        (),
        "{{ bos_token }}{% for message in messages %}{{ '<|START_OF_TURN_TOKEN|>' }}"
        "{{ {'user': '<|USER_TOKEN|>', 'assistant': '<|CHATBOT_TOKEN|>', 'system': '<|SYSTEM_TOKEN|>'}[message['role']] }}"
        "{{ message['content'] | trim + '<|END_OF_TURN_TOKEN|>' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>' }}{% endif %}",
        "<|END_OF_TURN_TOKEN|>",
        "<|END_OF_TURN_TOKEN|>",
        "<BOS_TOKEN>",
        adds_bos=True,
        pad="<PAD>",
    ),
    "olmo_2": Layout(
        ("<|endoftext|>", "<|pad|>"),
        ("|||IP_ADDRESS|||", "  "),
        "{{ bos_token }}{% for message in messages %}{{ '<|' + message['role'] + '|>\n' + message['content'] }}"
        "{% if message['role'] == 'assistant' %}{{ eos_token if loop.last else eos_token + '\n' }}{% else %}{{ '\n' }}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}",
        "<|endoftext|>",
        "<|endoftext|>",
        "<|endoftext|>",
        pad="<|pad|>",
    ),
    "smollm_3": Layout(
        ("<|begin_of_text|>", "<|end_of_text|>", "<|im_start|>", "<|im_end|>", "<|reserved_special_token_0|>"),
        ("<think>", "</think>", "<tool_call>"),
        "{% set today = strftime_now('%d %B %Y') %}"
        + SYSTEM_APART.replace("DEFAULT", "'You are a helpful assistant.'")
        + "{{ '<|im_start|>system\n## Metadata\n\nToday Date: ' + today + '\nReasoning Mode: /think\n\n' + system + '<|im_end|>\n' }}"
        "{% for message in turns %}{{ '<|im_start|>' + message['role'] + '\n' }}"
        "{% if message['role'] == 'assistant' %}{{ '<think>\n\n</think>\n' }}{% endif %}{{ message['content'] + '<|im_end|>\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}",
        "<|im_end|>",
        "<|im_end|>",
        pad="<|im_end|>",
        dated=True,
    ),
    "deepseek": Layout(
        ("<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜▁pad▁｜>"),
        ("<｜User｜>", "<｜Assistant｜>", "<think>", "</think>"),
        "{{ bos_token }}{% for message in messages %}"
        "{% if message['role'] == 'user' %}{{ '<｜User｜>' + message['content'] }}"
        "{% elif message['role'] == 'assistant' %}{{ '<｜Assistant｜>' + message['content'] + '<｜end▁of▁sentence｜>' }}"
        "{% else %}{{ message['content'] }}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<｜Assistant｜>' }}{% endif %}",
        "<｜end▁of▁sentence｜>",
        "<｜end▁of▁sentence｜>",
        "<｜begin▁of▁sentence｜>",
        adds_bos=True,
        pad="<｜end▁of▁sentence｜>",
    ),
}
"""Layouts by family: `phi_3_first` is that of Phi 3 mini's first version, which leaves out a system message without a word."""


def tokenizer_of(layout: Layout, words: Sequence[str] = ()) -> PreTrainedTokenizerFast:
    """A tokenizer of a layout: a byte is a token, as are the words, wherever they stand; then come the family's tokens."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({c: n for n, c in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_tokens([AddedToken(word, special=False, normalized=False) for word in [*words, *layout.added]])
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in layout.special])
    if layout.adds_bos and layout.bos:
        at = tokenizer.token_to_id(layout.bos)
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{layout.bos} $A", special_tokens=[(layout.bos, at)]
        )
    named = {"bos_token": layout.bos, "pad_token": layout.pad}
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=layout.eos,
        chat_template=layout.template,
        **{name: token for name, token in named.items() if token},
    )
