"""What every section of a profile shares."""

import hashlib
import json
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

PROFILES = Path(__file__).parents[1] / "profiles"
PROJECT = Path(__file__).parents[2]

Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_]*$", max_length=60)]
"""A name that becomes an asset, a partition or a folder: lower-case letters, digits, underscores."""

Share = Annotated[float, Field(ge=0, le=1)]
"""A share of a whole, 0 to 1."""

Columns = Annotated[
    dict[str, str],
    Field(description="field of the form: the name that it has in the file; others are as they are called"),
]
"""Other names of fields in a team's file, as `pipeline.forms.renamed` takes them."""

ENGINE_POOL = "engine"
"""Pool of the steps that hold an accelerator, or all cores: one at a time by default."""


class ProfileError(ValueError):
    """A profile that can't be used; the message names file, line, place and what is allowed."""


class Section(BaseModel):
    """A part of a profile: immutable, and closed to unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def said(section: Section) -> dict[str, Any]:
    """What a section says beyond its defaults, as JSON.

    A new option with a default therefore changes the digest of nothing. A default that changes is not seen here: the versions of
    the assets that it concerns must then be raised by hand.
    """
    return section.model_dump(mode="json", exclude_defaults=True)


def digest(value: object) -> str:
    """Hash of a JSON value, which may have sections in it: 12 hex digits, independent of the order of keys. Of a section, what it has `said`."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=said).encode()).hexdigest()[:12]
