"""What words and surface say of a response without a language model: the baseline that a reward model is held against.

Ridge regression on the TF-IDF of the last user turn with the response (words and pairs of words), beside the dozen figures of SURFACE. It learns
from the conversations that the reward model learns from, and is scored on the same development conversations.
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import sparse
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import Ridge
from sklearn.preprocessing import StandardScaler

from pipeline.models.templates import Message
from pipeline.reward_model.examples import Targets
from pipeline.reward_model.sides import Side
from pipeline.settings import Recipe

Floats = npt.NDArray[np.float64]
SURFACE = (
    "characters",  # log1p of the response's characters
    "sentences",  # log1p of the full stops, exclamation and question marks that end a word
    "word_length",  # mean letters of a word
    "distinct_words",  # different words over words
    "repeated",  # share of the runs of three words that stand earlier in the response
    "list_items",  # log1p of the lines that begin as a list's item does
    "markup",  # log1p of the headings and bold passages of Markdown
    "code",  # 1 with a fence of code, otherwise 0
    "digits",  # share of the characters
    "covered",  # share of the last user turn's words of four letters or more that the response has
    "prompt_characters",  # log1p of the characters of all turns before the response
    "refuses",  # 1 with a word of REFUSAL, otherwise 0
)
"""Figures of a response, in their order.

Chosen by reason, and by cross-validation on prompts of HelpSteer2 that no figure is reported on (`measurements/surface_features.py`): no one of
them is decisive, and figures with long tails (the share of punctuation, say) did harm.
"""

WORD = re.compile(r"\w+")
SENTENCE_END = re.compile(r"[.!?]+(?=\s|$)")
LIST_ITEM = re.compile(r"^\s*(?:[-*•]|\d+[.)])\s", re.MULTILINE)
MARKUP = re.compile(r"^#+ |\*\*[^*\n]+\*\*", re.MULTILINE)
REFUSAL = re.compile(r"\b(?:sorry|cannot|can['’]t|unable|as an ai)\b", re.IGNORECASE)
TERMS = 20_000
"""Words and pairs of words that TF-IDF reads, the most frequent of the training conversations."""

SURFACE_SCALE = 0.1
"""A surface figure's standard deviation, where the TF-IDF of a conversation has length 1. Chosen as the figures were."""

STRENGTHS = 10.0 ** np.arange(1, -1.1, -0.5)
"""Ridge strengths that cross-validation over prompts chooses from, for each output its own."""

CROSS_VALIDATED = 4000
"""At most so many rows, evenly, choose a strength. What is best doesn't grow with the rows: it is the noise's variance over the weights'."""


class Text(NamedTuple):
    """A conversation and its last response."""

    messages: Sequence[Message]
    response: str


def surface(text: Text) -> list[float]:
    """The figures of SURFACE."""
    response, turns = text.response, [message["content"] for message in text.messages]
    words = WORD.findall(response.lower())
    asked = {word for word in WORD.findall(turns[-1].lower()) if len(word) > 3}
    runs = list(zip(words, words[1:], words[2:], strict=False))
    return [
        np.log1p(len(response)),
        np.log1p(len(SENTENCE_END.findall(response))),
        sum(map(len, words)) / max(len(words), 1),
        len(set(words)) / max(len(words), 1),
        1 - len(set(runs)) / max(len(runs), 1),
        np.log1p(len(LIST_ITEM.findall(response))),
        np.log1p(len(MARKUP.findall(response))),
        float("```" in response),
        sum(map(str.isdigit, response)) / max(len(response), 1),
        len(asked & set(words)) / max(len(asked), 1),
        np.log1p(sum(map(len, turns))),
        float(bool(REFUSAL.search(response))),
    ]


def features(known: Sequence[Text], new: Sequence[Text]) -> tuple[sparse.csr_matrix, sparse.csr_matrix]:
    """What is read of two sets of conversations, shape (conversations, terms + surface figures); terms and scales are those of the first."""
    words = TfidfVectorizer(ngram_range=(1, 2), max_features=TERMS, sublinear_tf=True, token_pattern=WORD.pattern)
    scale = StandardScaler()
    fitted = words.fit_transform(map(_read, known)), scale.fit_transform([surface(text) for text in known])
    others = words.transform(map(_read, new)), scale.transform([surface(text) for text in new])
    first, second = (
        sparse.hstack([of_words, SURFACE_SCALE * of_surface]).tocsr() for of_words, of_surface in (fitted, others)
    )
    return first, second


def predictions(
    known: sparse.csr_matrix,
    targets: Targets,
    folds: npt.NDArray[np.int64],
    new: sparse.csr_matrix,
    intercept: bool = True,
) -> Floats:
    """What ridge regression on the known rows gives for the new ones: shape (new rows, outputs).

    targets: shape (known rows, outputs), NaN where not known; an output that is known nowhere is 0. folds: a number a row; a prompt's rows
    must share theirs. Each output has the strength with the least squared error in cross-validation over them, or the largest where
    one fold has all rows.
    """
    found = np.zeros((new.shape[0], targets.shape[1]))
    for n, y in enumerate(targets.T):
        rows = np.isfinite(y)
        if rows.any():
            found[:, n] = _fitted(known[rows], y[rows], folds[rows], intercept).predict(new)
    return found


def _fitted(x: sparse.csr_matrix, y: Floats, folds: npt.NDArray[np.int64], intercept: bool) -> Ridge:
    few = slice(None, None, -(-len(y) // CROSS_VALIDATED))
    some_x, some_y, some = x[few], y[few], folds[few]
    splits = [(some != fold, some == fold) for fold in np.unique(some) if (some != fold).any()]

    def error(strength: float) -> float:
        model = Ridge(strength, fit_intercept=intercept)
        missed = (model.fit(some_x[fit], some_y[fit]).predict(some_x[test]) - some_y[test] for fit, test in splits)
        return sum(float((one**2).sum()) for one in missed)

    return Ridge(min(STRENGTHS, key=error), fit_intercept=intercept).fit(x, y)


def text_outputs(stage: Recipe, train: Side, development: Side) -> Floats:
    """What the baseline gives in the place of a reward model's outputs: shape (development conversations, outputs).

    For a stage that learns from preferences, the strength is regressed on what the chosen response has more than the rejected one.
    """
    known, new = features(texts_of(train), texts_of(development))
    examples = train.examples(stage)
    if stage.pairs:
        chosen, rejected = examples.units.T
        return predictions(known[chosen] - known[rejected], examples.targets, train.folds(stage), new, intercept=False)
    return predictions(known[examples.units[:, 0]], examples.targets, train.folds(stage), new)


def texts_of(side: Side) -> list[Text]:
    """The conversations of a side, in the order of its tokens."""
    chosen, rejected = side.preferred_at.T
    sides = [
        (side.rated, "response", side.rated_at),
        (side.preferred, "chosen", chosen),
        (side.preferred, "rejected", rejected),
    ]
    found = dict[int, Text]()
    for table, column, places in sides:
        texts = map(Text, table["messages"].to_pylist(), table[column].to_pylist())
        found.update(zip(places.tolist(), texts, strict=True))
    return [found[place] for place in range(len(side.encoded))]


def _read(text: Text) -> str:
    return f"{text.messages[-1]['content']}\n{text.response}"
