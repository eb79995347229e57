"""A small tokenizer and a small Llama with random weights: quick, and of the same classes as a real base model."""

from pathlib import Path

from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>' + '\n' }}{% endfor %}"
)
WORDS = [
    "user",
    "assistant",
    "system",
    *"one two three four five six seven eight nine ten good bad yes no a b".split(),
    "\n",
]


def small_tokenizer(adds_bos: bool = False) -> PreTrainedTokenizerFast:
    """Words, and the special tokens of ChatML; its padding token is the end-of-turn token, as SmolLM2's is."""
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|bos|>"]
    vocabulary = {token: n for n, token in enumerate([*special, *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<|endoftext|>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    if adds_bos:
        tokenizer.post_processor = processors.TemplateProcessing(single="<|bos|> $A", special_tokens=[("<|bos|>", 3)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<|bos|>" if adds_bos else "<|im_start|>",
        eos_token="<|im_end|>",
        pad_token="<|im_end|>",
        unk_token="<|endoftext|>",
        additional_special_tokens=special[:3],
        chat_template=CHATML,
    )


def save_small_model(folder: Path) -> Path:
    """A base model's folder: two layers, width 32."""
    config = LlamaConfig(
        vocab_size=32,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=128,
        pad_token_id=2,
        bos_token_id=1,
        eos_token_id=2,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    small_tokenizer().save_pretrained(folder)
    return folder
