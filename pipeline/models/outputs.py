"""Weights of a model's outputs, as people write them."""

from collections.abc import Sequence


def parse_weights(text: str, outputs: Sequence[str]) -> dict[str, float]:
    """Weights from `helpfulness=0.65,correctness=0.8`. Raises ValueError with what is wrong."""
    weights = {}
    for part in text.split(","):
        name, _, value = part.partition("=")
        if name.strip() not in outputs:
            raise ValueError(f"weights: {name.strip()!r} is no output of the model; it has {', '.join(outputs)}")
        try:
            weights[name.strip()] = float(value)
        except ValueError:
            raise ValueError(f"weights: {part!r} is not NAME=NUMBER") from None
    return weights
