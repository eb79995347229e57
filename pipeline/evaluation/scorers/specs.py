"""Specifications of scorers, as a command line or a worker's spec has them."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError

from pipeline.settings import Section
from pipeline.worker import faults

BASELINES = ("longest", "random")


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


def spec_of(text: str, **settings: object) -> ModelSpec | EndpointSpec | BaselineSpec:
    """The specification that a command line's MODEL, `text`, means: a baseline, an address, a folder, or a hub id.

    settings: of the kind that it is; those of other kinds must not be there, or be None. Raises ValueError for a MODEL that can't be any.
    """
    given = {name: value for name, value in settings.items() if value is not None}
    wanted: type[ModelSpec] | type[EndpointSpec] | type[BaselineSpec]
    if text in BASELINES:
        kind, wanted, fields = "baseline", BaselineSpec, {"kind": text}
    elif text.startswith(("http://", "https://")):
        kind, wanted, fields = "endpoint", EndpointSpec, {"url": text}
    elif Path(text).expanduser().is_dir() or _is_hub_id(text):
        kind, wanted, fields = "model", ModelSpec, {"model": text}
    else:
        raise ValueError(
            f"{text}: no folder, no address and no hub id (organisation/name); baselines are {' and '.join(BASELINES)}"
        )
    if foreign := sorted(set(given) - set(wanted.model_fields)):
        raise ValueError(f"{text}: a {kind} has no {', '.join(foreign)}")
    try:
        return wanted.model_validate(fields | given)
    except ValidationError as error:
        raise ValueError(f"{text}: {faults(error)}") from None


def _is_hub_id(model: str) -> bool:
    name, _, _ = model.partition("@")
    return name.count("/") == 1 and all(name.split("/")) and not name.startswith((".", "~"))
