"""What tests of several stages share."""

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real data beside the checkout; tests that need it skip where it is absent."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("real data not found: expected a folder shared/data beside the checkout")
    return folder


@pytest.fixture(scope="session")
def checkpoint_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where tests of one session keep the de-quantised SmolLM2 (about 20 seconds, once)."""
    return tmp_path_factory.mktemp("checkpoints")
