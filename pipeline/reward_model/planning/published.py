"""What HelpSteer2 states of the cost of its reward models, and the devices that a plan knows."""

from dataclasses import dataclass

from pipeline.reward_model.planning.shapes import CONFIGS, Shape

CHARACTERS_A_TOKEN = 3.94
"""English text under Llama 3's tokenizer (arXiv 2407.21783, section 3.2)."""

GPUS_A_NODE = 8


@dataclass(frozen=True)
class Device:
    """An accelerator: dense peak in operations a second, by precision, bytes of memory, and bytes that it reads of it in a second."""

    name: str
    bfloat16: float
    float32: float
    memory: float
    bandwidth: float | None = None
    """None: not known. Training doesn't depend on it, sampling does."""


DEVICES = {
    "A100": Device("A100 80GB SXM", 312e12, 19.5e12, 80e9, 2.039e12),
    "H100": Device("H100 SXM", 989e12, 67e12, 80e9, 3.35e12),
    "H200": Device("H200 SXM", 989e12, 67e12, 141e9, 4.8e12),
    "L4": Device("L4", 121e12, 30.3e12, 24e9, 0.3e12),
}
"""NVIDIA's data sheets "A100 Tensor Core GPU", "H100 Tensor Core GPU", "H200 Tensor Core GPU", "L4 Tensor Core GPU": bfloat16 on tensor cores
without sparsity (the H100, H200 and L4 sheets print twice as much, with it), and float32 off them: torch doesn't use TF32 unless told."""


@dataclass(frozen=True)
class Published:
    """A training of the original, its stated cost, and what share of an H100's peak that would be.

    training, padded: operations of two epochs over 20,324 rows, of their mean length, and all padded to 4,096 tokens.
    """

    model: str
    hubs: tuple[str, ...]
    node_hours: float
    training: float
    padded: float

    @property
    def gpu_hours(self) -> float:
        """Hours of one GPU: a node has eight."""
        return self.node_hours * GPUS_A_NODE

    @property
    def share(self) -> float:
        """Share of peak, if nothing but the two epochs ran, and no token was padding."""
        return self.training / (self.gpu_hours * 3600 * DEVICES["H100"].bfloat16)

    @property
    def padded_share(self) -> float:
        """Share of peak, if every row was padded to 4,096 tokens."""
        return self.padded / (self.gpu_hours * 3600 * DEVICES["H100"].bfloat16)


PROMPT_CHARACTERS, RESPONSE_CHARACTERS = 712.6, 1492.6
"""Mean characters of HelpSteer2's prompts and responses (arXiv 2406.08673, sections 2 and 3, table 2)."""
ROWS, EPOCHS, CHARACTERS, SEQUENCE = 20_324, 2, PROMPT_CHARACTERS + RESPONSE_CHARACTERS, 4096
"""HelpSteer2's train split, epochs, mean characters of a prompt with its response, and the sequence length of NeMo-Aligner's recipe."""


def published() -> tuple[Published, ...]:
    """The original's two reward models on HelpSteer2: stated node-hours (arXiv 2406.08673, appendix on compute; A100 hours are divided by 3).

    The 340B's shape: 331.6 billion parameters that aren't embeddings, 96 layers, width 18,432 (arXiv 2406.11704, section 2.1). Its
    tokenizer is another than Llama's, and is taken to make as many tokens.
    """
    llama = Shape.of(CONFIGS["meta-llama/Meta-Llama-3-70B"], "meta-llama/Meta-Llama-3-70B")
    models = (
        ("Llama 3 70B", ("meta-llama/Meta-Llama-3-70B",), 64.0, llama.multiplying(5), llama.layers * llama.attention),
        ("Nemotron-4 340B", (), 256.0, 331.6e9, 96 * 18_432),
    )
    mean, found = CHARACTERS / CHARACTERS_A_TOKEN, []
    for model, hubs, hours, weights, attention in models:
        costs = [EPOCHS * ROWS * length * (6 * weights + 12 * attention * length) for length in (mean, SEQUENCE)]
        found.append(Published(model, hubs, hours, *costs))
    return tuple(found)
