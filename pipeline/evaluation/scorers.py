"""What scores a response: a model's weights here, a server that has them, or a baseline that needs none."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
from pydantic import Field, TypeAdapter, ValidationError

from pipeline.reward_model.schema import OUTPUTS
from pipeline.settings import Section
from pipeline.worker import Log

LEFT_OUT = "-"
"""Name of a model's output that is not kept."""
BASELINES = ("longest", "random")


class Conversation(NamedTuple):
    """Messages, of which the last is the user's, and the response that is scored."""

    messages: Sequence[dict[str, str]]
    response: str

    def content(self) -> bytes:
        """All of it as bytes: equal for equal conversations, different for different ones."""
        turns = [[m["role"], m["content"]] for m in self.messages]
        return json.dumps([turns, self.response], ensure_ascii=False).encode("utf-8", "surrogatepass")


@dataclass(frozen=True)
class Scored:
    """Conversations that were scored together: `rows`, their places in what was asked for, and a value for each in the others.

    outputs: shape (rows, outputs), NaN where the scorer would not take one; tokens: that the model read; cut: whether the conversation
    was too long and lost its beginning.
    """

    rows: npt.NDArray[np.int64]
    outputs: npt.NDArray[np.float64]
    tokens: npt.NDArray[np.int64]
    cut: npt.NDArray[np.bool_]


class Scorer(Protocol):
    """Something that scores.

    name: for people; version: of its weights; outputs: names, of OUTPUTS; identity: all that a score depends on beside the conversation, as
    JSON takes it.
    """

    name: str
    version: str
    outputs: tuple[str, ...]
    identity: dict[str, Any]

    @property
    def device(self) -> str | None:
        """What it runs on; None where it needs nothing."""
        ...

    def score(self, conversations: Sequence[Conversation]) -> Iterator[Scored]:
        """Score each conversation once, in any order; what is done comes at once."""
        ...


class ModelSpec(Section):
    """A sequence classifier, or a probe of this project, that is loaded here."""

    kind: Literal["model"] = "model"
    model: str = Field(description="a folder in Hugging Face format, or a hub id, which may end with @REVISION")
    max_tokens: int = Field(
        4096, ge=32, description="longer conversations lose their oldest turns, then their beginning"
    )
    precision: Literal["float32", "bfloat16"] = "float32"
    tokens_a_batch: int = Field(4096, ge=32, description="padding counted; a longer conversation goes alone")
    outputs: tuple[str, ...] | None = Field(
        None, description="names of its outputs in their order, `-` for one that isn't kept"
    )


class EndpointSpec(Section):
    """A server that has a sequence classifier, as vLLM's `/classify` and `/pooling`."""

    kind: Literal["endpoint"] = "endpoint"
    url: str = Field(pattern=r"^https?://", description="of the server, or of one of the two paths")
    served_model: str | None = Field(None, description="its name there; needed where the server has several")
    key_env: str | None = Field(
        None, pattern=r"^[A-Z][A-Z0-9_]*$", description="environment variable that holds the API key"
    )
    concurrency: int = Field(32, ge=1, description="requests in flight")
    timeout_s: float = Field(300, gt=0, description="for one answer")
    patience_s: float = Field(600, gt=0, description="how long a request is tried again")
    max_tokens: int = Field(4096, ge=32, description="longer conversations lose their beginning")
    outputs: tuple[str, ...] | None = None


class BaselineSpec(Section):
    """The longer response is better, or chance is."""

    kind: Literal["longest", "random"]
    seed: int = 0


ScorerSpec = Annotated[ModelSpec | EndpointSpec | BaselineSpec, Field(discriminator="kind")]
SPEC: TypeAdapter[ModelSpec | EndpointSpec | BaselineSpec] = TypeAdapter(ScorerSpec)


def scorer_of(spec: ModelSpec | EndpointSpec | BaselineSpec, log: Log) -> Scorer:
    """The scorer of a specification. A model's weights are found and named here, and loaded at the first score.

    Raises ValueError, or RuntimeError for what can't be reached, with what to do.
    """
    match spec:
        case ModelSpec():
            from pipeline.evaluation.scorers_model import LocalModel

            return LocalModel(spec, log)
        case EndpointSpec():
            from pipeline.evaluation.scorers_endpoint import Endpoint

            return Endpoint(spec, log)
        case BaselineSpec():
            return Baseline(spec)


class Baseline:
    """Scores that any model should beat: a response's length in characters, or a number from 0 to 1 drawn by its conversation's hash."""

    device = None
    outputs: tuple[str, ...] = ("reward",)

    def __init__(self, spec: BaselineSpec) -> None:
        self.name: str = spec.kind
        self._seed = spec.seed
        self.version = f"seed {spec.seed}" if spec.kind == "random" else "1"
        self.identity: dict[str, Any] = {"baseline": spec.kind} | ({"seed": spec.seed} if spec.kind == "random" else {})

    def score(self, conversations: Sequence[Conversation]) -> Iterator[Scored]:
        """See `Scorer.score`."""
        value = (lambda c: float(len(c.response))) if self.name == "longest" else self._drawn
        found = np.array([[value(c)] for c in conversations], dtype=np.float64).reshape(-1, 1)
        n = len(conversations)
        yield Scored(np.arange(n), found, np.zeros(n, np.int64), np.zeros(n, dtype=bool))

    def _drawn(self, conversation: Conversation) -> float:
        digest = hashlib.sha256(f"{self._seed}\0".encode() + conversation.content()).digest()
        return int.from_bytes(digest[:8]) / 2**64


def kept_outputs(names: Sequence[str], given: Sequence[str] | None, model: str) -> tuple[tuple[str, ...], list[int]]:
    """Names of the outputs that are kept, and their places among the model's, whose own names are `names`.

    given: names to use instead. A single output that has no known name is the reward. Raises ValueError for names that mean nothing here.
    """
    if given and len(given) != len(names):
        raise ValueError(
            f"{model} has {len(names)} outputs ({', '.join(names)}), and {len(given)} names were given: {', '.join(given)}"
        )
    if not given and len(names) == 1 and names[0] not in OUTPUTS:
        given = ("reward",)
    named = list(given or names)
    places = [n for n, name in enumerate(named) if name != LEFT_OUT]
    kept = tuple(named[n] for n in places)
    if unknown := [name for name in kept if name not in OUTPUTS]:
        raise ValueError(
            f"{model}: outputs {', '.join(unknown)}: not a reward model of ours, whose outputs are among {', '.join(OUTPUTS)}. If they mean these, "
            "name all of them in their order (--outputs; `-` for one to leave out)"
        )
    if not kept or len(set(kept)) < len(kept):
        raise ValueError(f"{model}: outputs {', '.join(named)}: at least one must be kept, and each name stands once")
    return kept, places


def spec_of(text: str, **settings: Any) -> ModelSpec | EndpointSpec | BaselineSpec:
    """The specification that a command line's MODEL, `text`, means: a baseline, an address, a folder, or a hub id.

    settings: of the kind that it is; those of other kinds must not be there, or be None. Raises ValueError for a MODEL that can't be any.
    """
    given: dict[str, Any] = {name: value for name, value in settings.items() if value is not None}
    if text in BASELINES:
        kind, fields = "baseline", {"kind": text}
    elif text.startswith(("http://", "https://")):
        kind, fields = "endpoint", {"kind": "endpoint", "url": text}
    elif Path(text).expanduser().is_dir() or _is_hub_id(text):
        kind, fields = "model", {"kind": "model", "model": text}
    else:
        raise ValueError(
            f"{text}: no folder, no address and no hub id (organisation/name); baselines are {' and '.join(BASELINES)}"
        )
    kinds: dict[str, type[Section]] = {"baseline": BaselineSpec, "endpoint": EndpointSpec, "model": ModelSpec}
    if foreign := sorted(set(given) - set(kinds[kind].model_fields)):
        raise ValueError(f"{text}: a {kind} has no {', '.join(foreign)}")
    try:
        return SPEC.validate_python(fields | given)
    except ValidationError as error:
        said = "; ".join(f"{'.'.join(map(str, problem['loc'][1:]))}: {problem['msg']}" for problem in error.errors())
        raise ValueError(f"{text}: {said}") from None


def _is_hub_id(model: str) -> bool:
    name, _, _ = model.partition("@")
    return name.count("/") == 1 and all(name.split("/")) and not name.startswith((".", "~"))
