"""Prompts that a server has cut without a word, told by the number of tokens that it says it has read.

A server whose context is shorter than a conversation may drop its beginning and answer what is left (Ollama does, beyond its `num_ctx`).
Two signs tell it, and both are of counts from LEAST tokens on, since no server cuts to fewer, and some report nothing of use:

* A prompt has more words of two letters or more than it had tokens. Tokenizers split texts at spaces and punctuation first, so that each such
  word takes a token at least. A cut that leaves more tokens than words (up to a quarter of an English text) is not seen by this.
* The most tokens of any prompt so far were counted for ALIKE prompts of different lengths, the shortest and the longest of which differ by
  more than a tenth: where all are cut to the same number. A server that drops whole messages leaves different numbers.

Servers that report only a part of what they read (without what they had in a cache, say) are taken for such that cut, and so are those whose
tokenizer has tokens of several words.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace

from pipeline.engines.requests import REFUSED, Answer, Request
from pipeline.worker import Log

LEAST = 256
"""Tokens of the shortest context that a server may have."""
ALIKE = 3
"""Longest prompts of one number of tokens that can't be chance where their lengths differ: two may be."""
HELD = 64
"""Most answers that are held back: more than any prompt has candidates."""
CUT = "the server has cut the prompt"
_WORD = re.compile(r"[^\W\d_]{2,}")


def uncut(answers: Iterator[Answer], requests: Sequence[Request], log: Log) -> Iterator[Answer]:
    """Pass answers on; those to prompts that were cut are refused, and the log says so once.

    Answers to the longest prompts so far are held back until a longer one is answered, or all are: one or two, unless prompts are cut.
    """
    asked = {request.key: request for request in requests}
    held, lengths, most, said = list[Answer](), set[int](), LEAST, False
    for answer in answers:
        text = " ".join(message["content"] for message in asked[answer.request_key].messages)
        if answer.prompt_tokens > most:
            yield from held
            held, lengths, most = [], set(), answer.prompt_tokens
        longest = answer.prompt_tokens == most
        if longest:
            held.append(answer)
            lengths.add(len(text))
        found = list[Answer]()
        if longest and len(lengths) >= ALIKE and max(lengths) > 1.1 * min(lengths):
            found, held = held, []
        elif LEAST <= answer.prompt_tokens < sum(1 for _ in _WORD.finditer(text)):
            found = [answer]
            if longest:
                held.remove(answer)
        elif not longest:
            yield answer
        elif len(held) > HELD:
            yield held.pop(0)
        for cut in found:
            yield replace(
                cut,
                text="",
                finish_reason=REFUSED,
                detail=f"{CUT}: it says that it has read {cut.prompt_tokens} tokens",
            )
        if found and not said:
            said = True
            log(
                f"{CUT} and answered what was left: of {len(text)} characters, it says that it has read {answer.prompt_tokens} tokens. "
                "Such answers are refused; give the server a longer context"
            )
    yield from held
