"""A seeded panel of simulated annotators, so that everything runs without people.

They rate what can be measured of a text: function words (which gibberish lacks), repetition, words shared with the prompt, an answer cut
off in the middle, length, word length. Each has a bias and noise, and some are careless. Their ratings show that the pipeline works;
they say nothing about what people would think. Every row says `simulated`.
"""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.annotations.tasks import drawn, texts_of
from pipeline.draws import uniforms
from pipeline.forms.rows import ANNOTATIONS
from pipeline.settings import SimulatedDesk
from pipeline.vocabulary import ATTRIBUTES

FUNCTION_WORDS = frozenset(
    """the of and to a in is that it for on as with was be by this are at from or an but not you we they he she his her their its can
    will have has had do does which what when how who there if so more about into than then them these those your our i my me""".split()
)
_WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)?")
CARELESS_NOISE = 2.0
"""Standard deviation, in rating levels, of a careless annotator's error."""


def rate(tasks: pa.Table, wanted: pa.Table, round_: int, desk: SimulatedDesk, seed: int) -> pa.Table:
    """Ratings for WANTED by the panel, in the schema ANNOTATIONS, sorted by prompt, annotator, response.

    Who rates a task is drawn by `tasks.drawn`. A rating depends on seed, annotator, response and its text alone.
    """
    panel = [f"sim-{n:03d}" for n in range(desk.annotators)]
    texts = {response: (text, messages[-1]["content"]) for response, (text, messages) in texts_of(tasks).items()}
    pairs = drawn(wanted, panel, seed)
    latent = qualities([texts[r][0] for _, r, _ in pairs], [texts[r][1] for _, r, _ in pairs])
    ratings = _rated(
        latent, [f"{panel[n]}/{r}" for _, r, n in pairs], np.array([n for _, _, n in pairs], dtype=np.int64), desk, seed
    )
    n_words = np.array([len(_WORD.findall(texts[r][0])) for _, r, _ in pairs])
    columns: dict[str, Any] = {
        "prompt_id": [p for p, _, _ in pairs],
        "response_id": [r for _, r, _ in pairs],
        "annotator_id": [panel[n] for _, _, n in pairs],
        "round": [round_] * len(pairs),
        **{attribute: pa.array(ratings[:, n], pa.int8()) for n, attribute in enumerate(ATTRIBUTES)},
        "safe": [True] * len(pairs),
        "confidence": [2] * len(pairs),
        "flags": [[]] * len(pairs),
        "comment": [None] * len(pairs),
        "lead_time_s": pa.array(20 + 0.35 * n_words, pa.float32()),
        "annotated_at": [None] * len(pairs),
        "desk": ["simulated"] * len(pairs),
        "simulated": [True] * len(pairs),
    }
    return pa.table(columns, schema=ANNOTATIONS).sort_by(
        [(c, "ascending") for c in ("prompt_id", "annotator_id", "response_id")]
    )


def qualities(responses: Sequence[str], prompts: Sequence[str]) -> npt.NDArray[np.float64]:
    """What a perfect simulated annotator would say, before rounding: shape (responses, five attributes), 0 to 4."""
    rows = np.array([_measures(r, p) for r, p in zip(responses, prompts, strict=True)], dtype=np.float64).reshape(-1, 6)
    words, function, repeated, shared, ended, word_length = rows.T
    coherence = (
        4 - 3.2 * np.clip((0.36 - function) / 0.22, 0, 1) - 2.5 * np.clip(repeated - 0.05, 0, 1) - 0.7 * (1 - ended)
    )
    correctness = 0.2 + 0.55 * coherence + 2.4 * np.clip(shared / 0.6, 0, 1) - 0.5 * (words < 8)
    helpfulness = 0.75 * correctness + 0.25 * coherence + 0.5 * np.clip(np.log2(np.maximum(words, 1) / 20), -2, 1) - 0.1
    complexity = (word_length - 3.4) / 0.75
    verbosity = np.log2(np.maximum(words, 1) / 8)
    return np.clip(np.stack([helpfulness, correctness, coherence, complexity, verbosity], axis=1), 0, 4)


def _measures(response: str, prompt: str) -> tuple[float, ...]:
    """Words, share of function words, share of repeated word triples, share of the prompt's content words used, ends whole, word length."""
    words = [w.lower() for w in _WORD.findall(response)]
    triples = list(zip(words, words[1:], words[2:], strict=False))
    asked = {w.lower() for w in _WORD.findall(prompt)} - FUNCTION_WORDS
    n = max(len(words), 1)
    return (
        len(words),
        sum(w in FUNCTION_WORDS for w in words) / n,
        1 - len(set(triples)) / len(triples) if triples else 0.0,
        len(asked & set(words)) / max(min(len(asked), 12), 1),
        float(response.rstrip().endswith((".", "!", "?", '"', ")", ":", "`", "”"))),
        sum(map(len, words)) / n,
    )


def _rated(
    latent: npt.NDArray[np.float64],
    keys: Sequence[str],
    annotators: npt.NDArray[np.int64],
    desk: SimulatedDesk,
    seed: int,
) -> npt.NDArray[np.int8]:
    """Ratings 0 to 4: latent quality plus the annotator's bias and noise; half of the noise is common to a response's five attributes."""
    everyone = [str(n) for n in range(desk.annotators)]
    bias = desk.bias * _normal(uniforms(everyone, f"{seed}/bias", 5))
    careless = uniforms(everyone, f"{seed}/careless")[:, 0] < desk.careless_share
    noise = _normal(uniforms(keys, f"{seed}/noise", 6)) if len(keys) else np.zeros((0, 6))
    scale = np.where(careless, CARELESS_NOISE, desk.noise)[annotators]
    error = scale[:, None] * (noise[:, :5] + noise[:, [5]]) / np.sqrt(2)
    ratings: npt.NDArray[np.int8] = np.clip(np.floor(latent + bias[annotators] + error + 0.5), 0, 4).astype(np.int8)
    return ratings


def _normal(uniform: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Standard normal numbers from uniform ones."""
    from scipy.special import ndtri

    values: npt.NDArray[np.float64] = ndtri(np.clip(uniform, 2.0**-53, 1 - 2.0**-53))
    return values
