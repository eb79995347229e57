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
    model: str = Field(description="folder in Hugging Face format, or hub id, which may end with @REVISION")
    max_tokens: int | None = Field(
        None,
        ge=32,
        description="largest number of tokens of a conversation; longer ones lose their oldest turns, then the middle of their texts; null: as "
        "many as the model's tokenizer says that it reads",
    )
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        "float32",
        description="floating-point type; auto: bfloat16 where the device has it. In float32 no score depends on its batch",
    )
    tokens_a_batch: int = Field(
        4096, ge=32, description="tokens in a forward pass, padding counted; a longer conversation goes alone"
    )
    outputs: tuple[str, ...] | None = Field(
        None, description="names of the model's outputs in their order; `-` leaves an output out"
    )


class EndpointSpec(Section):
    """A server that has a sequence classifier, as vLLM's `/classify` and `/pooling`."""

    kind: Literal["endpoint"] = "endpoint"
    url: str = Field(pattern=r"^https?://", description="address of the server, or of its path /classify or /pooling")
    served_model: str | None = Field(
        None, description="name of the model at the server; needed where the server has several"
    )
    key_env: str | None = Field(
        None, pattern=r"^[A-Z][A-Z0-9_]*$", description="environment variable that holds the API key"
    )
    concurrency: int = Field(32, ge=1, description="largest number of requests in flight")
    timeout_s: float = Field(300, gt=0, description="seconds that one answer may take")
    patience_s: float = Field(600, gt=0, description="seconds during which a request is tried again")
    max_tokens: int = Field(
        4096, ge=32, description="largest number of tokens of a conversation; longer ones lose their beginning"
    )
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
            f"{text}: is neither a folder, nor an address, nor a hub id (organisation/name), nor a baseline ({' or '.join(BASELINES)})"
        )
    if foreign := sorted(set(given) - set(wanted.model_fields)):
        raise ValueError(f"{text}: a scorer of kind {kind} takes no {', '.join(foreign)}")
    try:
        return wanted.model_validate(fields | given)
    except ValidationError as error:
        raise ValueError(f"{text}: {faults(error)}") from None


def _is_hub_id(model: str) -> bool:
    name, _, _ = model.partition("@")
    return name.count("/") == 1 and all(name.split("/")) and not name.startswith((".", "~"))
