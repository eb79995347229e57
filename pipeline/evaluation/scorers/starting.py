"""What scores a response: a model's weights here, a server that has them, or a baseline that needs none."""

from pipeline.evaluation.scorers.baseline import Baseline
from pipeline.evaluation.scorers.scorer import Scorer
from pipeline.evaluation.scorers.specs import BaselineSpec, EndpointSpec, ModelSpec
from pipeline.worker import Log


def scorer_of(spec: ModelSpec | EndpointSpec | BaselineSpec, log: Log) -> Scorer:
    """The scorer of a specification. A model's weights are found and named here, and loaded at the first score.

    Raises ValueError, or RuntimeError for what can't be reached, with what to do.
    """
    match spec:
        case ModelSpec():
            from pipeline.evaluation.scorers.model import LocalModel

            return LocalModel(spec, log)
        case EndpointSpec():
            from pipeline.evaluation.scorers.endpoint import Endpoint

            return Endpoint(spec, log)
        case BaselineSpec():
            return Baseline(spec)
