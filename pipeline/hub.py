"""Files of the Hugging Face hub."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal


class HubError(RuntimeError):
    """Files that can't be had from the hub; the message says which, and why."""


def fetch(
    repo: str, revision: str | None, patterns: Sequence[str], kind: Literal["model", "dataset"] = "model"
) -> Path:
    """The folder of a repository's files that match patterns, at a revision (without one, the newest): downloaded, or kept from before.

    Raises HubError.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(repo, repo_type=kind, revision=revision, allow_patterns=list(patterns)))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        what = repo if kind == "model" else f"the data set {repo}"
        raise HubError(f"{what} (revision {revision or 'newest'}) can't be downloaded: {error}") from error
