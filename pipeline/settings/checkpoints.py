"""Settings of models: where a checkpoint comes from, what it costs, how it decodes."""

from typing import Literal, Self

from pydantic import Field, model_validator

from pipeline.settings.section import ENGINE_POOL, Section


class Server(Section):
    """A server with OpenAI's chat-completions interface (vLLM's own, among others) that has the model."""

    base_url: str = Field(pattern=r"^https?://", description="up to and with /v1")
    model: str = Field(description="its name at the server")
    revision: str = Field(
        "served", description="part of each request's key: change it when the server's weights change"
    )
    key_env: str | None = Field(
        None, pattern=r"^[A-Z][A-Z0-9_]*$", description="environment variable that holds the API key"
    )
    concurrency: int = Field(32, ge=1, description="requests in flight")
    requests_per_minute: float | None = Field(None, gt=0)
    timeout_s: float = Field(300, gt=0, description="for one answer")
    patience_s: float = Field(600, gt=0, description="how long a request is tried again before it counts as failed")


class Recording(Section):
    """Answers that exist already: a JSONL, CSV or Parquet file of `messages` (or `prompt`) and `response`."""

    path: str


class Price(Section):
    """What answers cost; added up in the metadata of each generator."""

    currency: str = "USD"
    device_hour: float = Field(0, ge=0, description="of one accelerator; times tensor_parallel")
    input_million: float = Field(0, ge=0, description="of a million prompt tokens")
    output_million: float = Field(0, ge=0, description="of a million output tokens")


class Checkpoint(Section):
    """Where a model comes from, and how an engine loads it. Exactly one of `hub`, `folder`, `gguf`, `server`, `recording` names it."""

    hub: str | None = Field(None, description="Hugging Face id, organisation/name")
    revision: str | None = Field(None, description="commit of the hub model; pin it")
    folder: str | None = Field(None, description="a folder in Hugging Face format (safetensors)")
    gguf: tuple[str, ...] = Field(
        (), description="package/file parts of one GGUF file, in installed packages, joined in order"
    )
    server: Server | None = None
    recording: Recording | None = None
    licence: str
    price: Price = Price()
    terms: str | None = Field(None, description="name of terms of use that must be accepted in HELPSTEER_ACCEPT_TERMS")
    chat_template: Literal["tokenizer", "plain"] = "tokenizer"
    max_context: int = Field(2048, ge=128)
    dtype: Literal["bfloat16", "float16", "float32"] = "bfloat16"
    tensor_parallel: int = Field(1, ge=1)
    replicas: int = Field(1, ge=1, description="engines that answer side by side; several need compute: {kind: ray}")
    accelerator: str | None = Field(
        None,
        pattern=r"^[A-Za-z0-9-]{1,40}$",
        description="Ray's accelerator type (H100, L4, ...) that it needs; its steps have a pool of their own, `engine_h100`",
    )

    @model_validator(mode="after")
    def _one_origin(self) -> Self:
        if sum(map(bool, (self.hub, self.folder, self.gguf, self.server, self.recording))) != 1:
            raise ValueError("a checkpoint names exactly one of: hub, folder, gguf, server, recording")
        return self

    @property
    def weights(self) -> bool:
        """Whether its weights can be had: to train from, or to load here."""
        return not (self.server or self.recording)

    @property
    def core(self) -> "Checkpoint":
        """What results depend on: not what they cost, nor on how many machines they are made."""
        return self.model_copy(update={"price": Price(), "replicas": 1, "accelerator": None})

    @property
    def pool(self) -> str:
        """Dagster's pool of its steps: `engine`, or one of its accelerator's."""
        return f"{ENGINE_POOL}_{self.accelerator.lower().replace('-', '_')}" if self.accelerator else ENGINE_POOL


class Sampling(Section):
    """Decoding settings of one request, with vLLM's names and meanings."""

    temperature: float = Field(1.0, ge=0, le=2)
    top_p: float = Field(1.0, gt=0, le=1)
    top_k: int = Field(0, ge=0, description="0: all tokens")
    repetition_penalty: float = Field(1.0, gt=0, le=2)
    max_tokens: int = Field(512, ge=1)
    stop: tuple[str, ...] = ()
