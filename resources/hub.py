"""The Hugging Face hub, where data sets are pushed to."""

import os
from collections.abc import Sequence
from pathlib import Path

import dagster as dg

TOKEN = "HF_TOKEN"  # noqa: S105


class Hub(dg.ConfigurableResource["Hub"]):
    """Uploads folders to the Hugging Face hub. It reads its token from HF_TOKEN when it needs it; no configuration, log or metadata has it."""

    def push(self, folder: Path, files: Sequence[str], repo: str, private: bool, message: str) -> tuple[str, str]:
        """Upload files of a folder as one data set, made where it doesn't exist yet; the commit's hash and its URL.

        Files that the repository has besides are left there. Raises `dg.Failure` without a token, or where `private` is asked for
        and the repository is public.
        """
        token = os.environ.get(TOKEN)
        if not token:
            raise dg.Failure(
                f"There is no token for the hub: set the environment variable {TOKEN} to one that may write to {repo}",
                allow_retries=False,
            )
        from huggingface_hub import HfApi

        api = HfApi(token=token)
        api.create_repo(repo, repo_type="dataset", private=private, exist_ok=True)
        if private and not api.dataset_info(repo).private:
            raise dg.Failure(
                f"{repo} is public, and dataset.push.private is true: nothing was uploaded. Make the repository private, or set "
                "dataset.push.private to false",
                allow_retries=False,
            )
        commit = api.upload_folder(
            repo_id=repo, repo_type="dataset", folder_path=folder, allow_patterns=list(files), commit_message=message
        )
        return commit.oid, commit.commit_url
