"""The reward of policies: a reward model's outputs by the attribute weights, standardised over the data set's responses; best and worst samples.

HelpSteer2 takes (goodness - mean) / sd over the data set's responses as PPO's reward, and the best and the worst of ten samples as a pair
of iterative DPO (section 4, appendix H).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.alignment.schema import PAIRS
from pipeline.evaluation.scorers.scorer import Conversation, Scorer
from pipeline.evaluation.scoring import factors_of

Floats = npt.NDArray[np.float64]
Rows = npt.NDArray[np.int64]
ROUNDING = 1e-7
"""What float32 numbers of a size differ by, as a share of it, where they are the same but for rounding."""


@dataclass(frozen=True)
class Standard:
    """Mean and standard deviation of goodness over the data set's responses, by which rewards are standardised: fixed, as NeMo-Aligner has them.

    Raises ValueError where either is not finite, or the deviation is 0 or no more than rounding of the mean.
    """

    mean: float
    sd: float

    def __post_init__(self) -> None:
        if not (np.isfinite([self.mean, self.sd]).all() and self.sd > ROUNDING * abs(self.mean)):
            raise ValueError(
                f"rewards can't be standardised by the mean {self.mean:g} and the standard deviation {self.sd:g} of the data set's responses: both "
                "must be finite, and the responses must differ; see whether the reward model tells them apart"
            )

    def of(self, goodness: Floats) -> Floats:
        """The standardised goodness: of the data set's responses, mean 0 and standard deviation 1."""
        return (goodness - self.mean) / self.sd


def standard_of(goodness: Floats) -> Standard:
    """The standard that the data set's responses set: their mean and (population) standard deviation; what is NaN was not scored, and is left out.

    Raises ValueError as `Standard` does.
    """
    scored = goodness[~np.isnan(goodness)]
    with np.errstate(invalid="ignore"):  # infinite values are refused below
        return Standard(float(scored.mean()), float(scored.std())) if len(scored) else Standard(np.nan, np.nan)


class Reward:
    """The standardised goodness of responses as they are sampled. Raises ValueError for weights that don't fit the scorer."""

    def __init__(self, scorer: Scorer, weights: Mapping[str, float] | None, standard: Standard) -> None:
        """weights: of the scorer's outputs (`attribute_weights`); a scorer of one output needs none."""
        self._scorer, self._standard = scorer, standard
        self._factors = factors_of(scorer.outputs, weights, scorer.name)

    def __call__(self, conversations: Sequence[Conversation]) -> Floats:
        """Rewards of conversations, in order; NaN where the scorer would not take one."""
        outputs = np.full((len(conversations), len(self._factors)), np.nan)
        for scored in self._scorer.score(conversations):
            outputs[scored.rows] = scored.outputs
        return self._standard.of(outputs @ self._factors)


class Pairs(NamedTuple):
    """Pairs in the schema PAIRS, and how many prompts have none, by the reason."""

    table: pa.Table
    left_out: dict[str, int]


def best_and_worst(scored: pa.Table) -> Pairs:
    """Of each prompt the sample with the highest goodness beside that with the lowest, in the order in which prompts come.

    scored: schema SCORED. Of equals the sample with the lowest number; one that isn't scored is neither, and one that was cut off never the
    best: a policy is not to learn to go on without an end. A prompt without a best, or whose two are equal in goodness or text, has no pair.
    """
    goodness, ended, texts = _goodness(scored), np.asarray(scored["ended"]), scored["response"]
    can_be_best = np.isfinite(goodness) & ended
    best, worst = _first(scored, ~can_be_best, -goodness), _first(scored, ~np.isfinite(goodness), goodness)
    there = can_be_best[best]
    tied = there & (goodness[best] <= goodness[worst])
    same = there & ~tied & np.asarray(pc.equal(texts.take(best), texts.take(worst)))
    kept = there & ~tied & ~same
    reasons = {"no scored sample that ends": ~there, "equal goodness": tied, "equal texts": same}
    left_out = {reason: int(which.sum()) for reason, which in reasons.items() if which.any()}
    return Pairs(_pairs(scored.take(best[kept]), scored.take(worst[kept])), left_out)


def best_of(scored: pa.Table) -> pa.Table:
    """Of each prompt the sample with the highest goodness (schema SCORED), in the order in which prompts come.

    A sample that ends comes before any that was cut off; of equals the one with the lowest number. A prompt none of whose samples is scored
    has none.
    """
    goodness = _goodness(scored)
    known = np.isfinite(goodness)
    best = _first(scored, ~known, ~np.asarray(scored["ended"]), -goodness)
    return scored.take(best[known[best]])


def _goodness(scored: pa.Table) -> Floats:
    return np.asarray(scored["goodness"], dtype=np.float64)


def _first(scored: pa.Table, *keys: npt.NDArray[Any]) -> Rows:
    """Row of each prompt with the least keys, the first of which counts most, then the least number of sample; prompts as they come."""
    prompts = np.asarray(scored["prompt_id"].combine_chunks().dictionary_encode().indices)
    order = np.lexsort((np.asarray(scored["sample"]), *keys[::-1], prompts))
    return order[np.unique(prompts[order], return_index=True)[1]]


def _pairs(best: pa.Table, worst: pa.Table) -> pa.Table:
    columns = {name: best[name] for name in ("prompt_id", "messages")}
    columns |= {"chosen": best["response"], "rejected": worst["response"], "rejected_ended": worst["ended"]}
    for side, table in (("chosen", best), ("rejected", worst)):
        columns |= {f"{side}_{name}": table[name] for name in ("sample", "goodness")}
    return pa.table({name: columns[name] for name in PAIRS.names}, schema=PAIRS)
