"""A worker: the log-probability of samples by some policies, one loaded after the other.

Writes `log_probs.parquet`, a row a sample in their order, a column a policy: the sum over the response's tokens, the end of the turn among
them where the sample ended. A sample that is too long for `max_tokens`, or that a chat template refuses, has null.
"""

from pathlib import Path

import numpy as np
import pyarrow as pa
from pydantic import Field

from pipeline.models.checkpoints import pinned, resolve
from pipeline.settings import Checkpoint, Section
from pipeline.store import read_table, write_table
from pipeline.vocabulary import Attribute
from pipeline.worker import Figures, Log, Spec, Uri, run_worker


class Asked(Section):
    """A policy, and the levels that it is asked for."""

    checkpoint: Checkpoint
    levels: dict[Attribute, int] = Field({})


class LogProbsSpec(Spec):
    """The log-probabilities of samples by policies."""

    worker = "pipeline.alignment.log_probs_worker"
    input: Uri = Field(description="table of samples, in the schema SAMPLES")
    policies: dict[str, Asked] = Field(min_length=1, description="the policies, by the name of their column")
    cache: Path = Field(description="folder of unpacked models")
    max_tokens: int = Field(4096, ge=8, description="largest number of tokens of a conversation")


def work(spec: LogProbsSpec, log: Log) -> Figures:
    """Compute; see the module's description."""
    from transformers import AutoTokenizer
    from transformers.utils.logging import disable_progress_bar, set_verbosity_error

    from pipeline.alignment.policies import load_policy
    from pipeline.alignment.steerlm2 import encode_samples, response_log_probs

    disable_progress_bar()
    set_verbosity_error()
    samples, columns = read_table(spec.input, ["messages", "response", "ended"]), dict[str, pa.Array]()
    for name, asked in spec.policies.items():
        folder = resolve(pinned(asked.checkpoint), spec.cache)
        examples = encode_samples(samples, AutoTokenizer.from_pretrained(folder), asked.levels, spec.max_tokens)
        found = response_log_probs(load_policy(folder), examples)
        columns[name] = pa.array(found, pa.float64(), from_pandas=True)
        log(f"{int(np.isfinite(found).sum())} of {len(samples)} samples have a log-probability by {name}")
    write_table(pa.table(columns), spec.out / "log_probs.parquet")
    return {"samples": len(samples)}


if __name__ == "__main__":
    run_worker(work, LogProbsSpec)
