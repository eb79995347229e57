"""Data rules: what must hold of a table before it is published, as data.

A stage lists its rules in its `expectations.py`; the gate runs them with Great Expectations and shows each as an asset check.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

ROWS = "rows"
"""The view that is the table itself."""


@dataclass(frozen=True)
class Rule:
    """One expectation.

    name: of the asset check. says: the rule in words, with what to do when it fails. expectation: class name in
    `great_expectations.expectations`. arguments: its keyword arguments. gating: whether a failure keeps the table from being published.
    view: the frame that it is about: `rows`, or one that the stage derives (a row a prompt, a row a response, one row of totals).
    """

    name: str
    says: str
    expectation: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    gating: bool = True
    view: str = ROWS

    @property
    def columns(self) -> set[str]:
        """Columns that the rule reads."""
        found: set[str] = set()
        for key, value in self.arguments.items():
            if key in ("column", "column_A", "column_B"):
                found.add(value)
            elif key == "column_list":
                found.update(value)
        return found
