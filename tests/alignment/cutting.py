"""A training that is cut off after a step, as a test does it."""


class CutOffError(Exception):
    """What cuts a training off."""


class Tracker:
    """Keeps the names of figures, and cuts a training off after a step."""

    def __init__(self, after: int | None = None) -> None:
        self.after, self.names = after, set[str]()

    def add(self, figures: dict[str, float], step: int) -> None:
        """Take a step's figures."""
        self.names |= set(figures)
        if step == self.after:
            raise CutOffError
