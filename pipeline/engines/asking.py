"""An engine asked: questions get their keys, what is not finished is answered and kept, outcomes come in the order of the questions."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Self

import pyarrow as pa

from pipeline.engines.finished import FinishedRequests, Tally, finish, outcomes
from pipeline.engines.requests import Message, Request, request_key
from pipeline.engines.spec import AskingSpec
from pipeline.engines.starting import LazyEngine, engine_of
from pipeline.settings import Sampling
from pipeline.worker import Figures, Log


@dataclass(frozen=True)
class Question:
    """A conversation to be continued: how, and with which seed."""

    messages: Sequence[Message]
    sampling: Sampling
    seed: int


class Asked(NamedTuple):
    """Outcomes of questions, in their order (schema ANSWERS), and what was done for them."""

    outcomes: pa.Table
    tally: Tally


@dataclass(frozen=True)
class Asking:
    """One engine, which starts at the first question that is not answered yet, and the store of what it has answered."""

    engine: LazyEngine
    finished: FinishedRequests
    log: Log

    @classmethod
    def of(cls, spec: AskingSpec, log: Log) -> Self:
        """The engine and the store of a worker's spec."""
        return cls(engine_of(spec.engine, log), FinishedRequests(spec.work), log)

    @property
    def model(self) -> Figures:
        """Who answers, for a worker's figures."""
        return {
            "model": self.engine.model,
            "model_revision": self.engine.revision,
            "precision": self.engine.precision,
        }

    def ask(self, questions: Iterable[Question], form: str = "") -> Asked:
        """Ask, and keep what is answered. form: a JSON schema that answers must have. Errors: see `finish`."""
        requests = [self._request(question, form) for question in questions]
        keys = [request.key for request in requests]
        tally = finish(requests, self.engine, self.finished, self.log)
        del requests  # their texts make room for the answers
        return Asked(outcomes(keys, self.finished, tally.refused), tally)

    def _request(self, asked: Question, form: str) -> Request:
        engine = self.engine
        key = request_key(
            asked.messages, engine.model, engine.revision, engine.template, asked.sampling, asked.seed, form
        )
        return Request(key, asked.messages, asked.sampling, asked.seed, form)
