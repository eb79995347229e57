"""Settings of models: where a checkpoint comes from, what it costs, how it decodes."""

from typing import Annotated, Literal, Self, get_args

from pydantic import Field, JsonValue, StringConstraints, model_validator

from pipeline.settings.section import ENGINE_POOL, Section

Parameter = Literal[
    "temperature", "top_p", "top_k", "repetition_penalty", "max_tokens", "stop", "seed", "response_format"
]
"""What a request to a server says beside the model and the messages, by the names of OpenAI's interface and of vLLM's additions to it."""

FieldName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]*$")]


class Server(Section):
    """A server with OpenAI's chat-completions interface (vLLM's own, among others) that has the model."""

    base_url: str = Field(pattern=r"^https?://", description="base URL of the server, including /v1")
    model: str = Field(description="name of the model at the server")
    revision: str = Field(
        "served",
        description="name of the weights that the server has now; change it when they change, and everything is asked anew",
    )
    key_env: str | None = Field(
        None, pattern=r"^[A-Z][A-Z0-9_]*$", description="environment variable that holds the API key"
    )
    concurrency: int = Field(32, ge=1, description="largest number of requests in flight")
    requests_per_minute: float | None = Field(
        None, gt=0, description="largest number of requests sent in a minute; null: no limit"
    )
    timeout_s: float = Field(300, gt=0, description="seconds that one answer may take")
    patience_s: float = Field(
        600, gt=0, description="seconds during which a request is tried again before it counts as failed"
    )
    parameters: dict[Parameter, FieldName | None] = Field(
        default_factory=dict,
        description="names that the server has for parameters of a request, `max_tokens: max_completion_tokens`; null leaves one out",
    )
    extra_body: dict[FieldName, JsonValue] = Field(
        default_factory=dict, description="further fields of a request's body, as they are: `reasoning_effort: low`"
    )
    begins_thought: bool = Field(
        False,
        description="whether the server's chat template begins the thought (`<think>`), so that answers have its end alone; "
        "one without the end is then a thought that was cut off",
    )

    @model_validator(mode="after")
    def _one_value_a_field(self) -> Self:
        own = ["model", "messages", "stream", "chat_template_kwargs"]
        own += [name for parameter in get_args(Parameter) if (name := self.name_of(parameter))]
        if twice := sorted({name for name in own if own.count(name) > 1}):
            raise ValueError(f"parameters: {', '.join(twice)}: is the name of two fields of a request")
        if taken := sorted(self.extra_body.keys() & set(own)):
            raise ValueError(f"extra_body: {', '.join(taken)}: is set by the pipeline; leave it out of `extra_body`")
        return self

    def name_of(self, parameter: Parameter) -> str | None:
        """The server's name for a parameter; None where it isn't sent."""
        return self.parameters.get(parameter, parameter)


class Recording(Section):
    """Answers that exist already: a JSONL, CSV or Parquet file of `messages` (or `prompt`) and `response`."""

    path: str = Field(description="the file of answers")


class Price(Section):
    """What answers cost. The costs are added up in the metadata of each generator."""

    currency: str = "USD"
    device_hour: float = Field(
        0, ge=0, description="price of an accelerator for an hour; a checkpoint holds `tensor_parallel` of them"
    )
    input_million: float = Field(0, ge=0, description="price of a million prompt tokens")
    output_million: float = Field(0, ge=0, description="price of a million output tokens")


class Checkpoint(Section):
    """Where a model comes from, and how an engine loads it. Exactly one of `hub`, `folder`, `gguf`, `server`, `recording` names it."""

    hub: str | None = Field(None, description="id on the Hugging Face hub, organisation/name")
    revision: str | None = Field(None, description="commit of the model on the hub; pin it")
    folder: str | None = Field(None, description="folder of a model in Hugging Face format (safetensors)")
    gguf: tuple[str, ...] = Field(
        (), description="parts of one GGUF file in installed packages, each as package/file, joined in this order"
    )
    server: Server | None = None
    recording: Recording | None = None
    licence: str
    price: Price = Price()
    terms: str | None = Field(
        None,
        description="name of the terms of use, which must be accepted in the environment variable HELPSTEER_ACCEPT_TERMS",
    )
    chat_template: Literal["tokenizer", "plain"] = Field(
        "tokenizer", description="chat template of the model's tokenizer, or a plain one for a model without its own"
    )
    chat_template_kwargs: dict[str, JsonValue] = Field(
        default_factory=dict,
        description="variables of the chat template, which say how a model thinks: `enable_thinking: false`, `reasoning_effort: low`",
    )
    max_context: int = Field(2048, ge=128, description="tokens of prompt and answer together that the engine takes")
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = Field(
        "auto",
        description="floating-point type that it answers in; auto: bfloat16 where the device has it (AVX512-BF16, AMX, a GPU), else float32",
    )
    tensor_parallel: int = Field(1, ge=1, description="accelerators that one engine is split over")
    replicas: int = Field(
        1, ge=1, description="number of engines that answer side by side; several need compute: {kind: ray}"
    )
    accelerator: str | None = Field(
        None,
        pattern=r"^[A-Za-z0-9-]{1,40}$",
        description="type of accelerator that the model needs, in Ray's words (H100, L4, ...); its steps have a pool of their own, `engine_h100`",
    )

    @model_validator(mode="after")
    def _one_origin(self) -> Self:
        if sum(map(bool, (self.hub, self.folder, self.gguf, self.server, self.recording))) != 1:
            raise ValueError("a checkpoint must have exactly one of: hub, folder, gguf, server, recording")
        if self.recording and self.chat_template_kwargs:
            raise ValueError("chat_template_kwargs: a recording has no chat template")
        return self

    @property
    def weights(self) -> bool:
        """Whether its weights can be loaded here, to train from or to answer."""
        return not (self.server or self.recording)

    @property
    def core(self) -> "Checkpoint":
        """The checkpoint as far as results depend on it: without its price, and without how many engines answer on what."""
        return self.model_copy(update={"price": Price(), "replicas": 1, "accelerator": None})

    @property
    def pool(self) -> str:
        """Dagster's pool of its steps: `engine`, or that of its accelerator."""
        return f"{ENGINE_POOL}_{self.accelerator.lower().replace('-', '_')}" if self.accelerator else ENGINE_POOL


class Sampling(Section):
    """Decoding settings of one request, with vLLM's names and meanings."""

    temperature: float = Field(1.0, ge=0, le=2)
    top_p: float = Field(1.0, gt=0, le=1)
    top_k: int = Field(0, ge=0, description="number of likeliest tokens that are drawn from; 0: all tokens")
    repetition_penalty: float = Field(1.0, gt=0, le=2)
    max_tokens: int = Field(512, ge=1)
    stop: tuple[str, ...] = ()
