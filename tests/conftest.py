"""What tests of several stages share: the machine's cores, real data, a real model's weights."""

import gc
import os
from collections import defaultdict
from pathlib import Path

import pytest
from filelock import FileLock
from hypothesis import HealthCheck, settings

# nothing fails for being slow on a machine that is busy
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")


def pytest_configure(config: pytest.Config) -> None:
    """Give each of the processes that run tests side by side its share of the cores, before one of them imports torch or NumPy.

    What a test starts inherits it. Engines bind to no core: each would take the first one.
    """
    side_by_side = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    share = max(1, len(os.sched_getaffinity(0)) // side_by_side)
    threads = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
    os.environ.update(dict.fromkeys(threads, str(share)), VLLM_CPU_OMP_THREADS_BIND="nobind")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deal modules whose tests share something costly (a chain, a cluster, a server, an engine) among the processes, to be run first.

    Each process is given an equal part of the list, in order, and one that is done takes over from another's end: single tests.
    """
    processes = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    if processes == 1:
        return
    modules: dict[str, list[pytest.Item]] = defaultdict(list)
    for item in items:
        modules[item.nodeid.partition("::")[0]].append(item)
    costly = [
        tests
        for tests in modules.values()
        if any(t.get_closest_marker(m) for t in tests for m in ("engine", "together"))
    ]
    others = [test for tests in modules.values() if tests not in costly for test in tests]
    dealt = list[pytest.Item]()
    for n in range(processes):
        part = [test for tests in costly[n::processes] for test in tests]
        more = max(0, (len(items) - len(dealt)) // (processes - n) - len(part))
        dealt += part + others[:more]
        del others[:more]
    items[:] = dealt


def pytest_collection_finish() -> None:
    """Take what all modules have imported out of garbage collection, which training asks for often."""
    gc.freeze()


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real data beside the checkout; tests that need it skip where it is absent."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("real data not found: expected a folder shared/data beside the checkout")
    return folder


@pytest.fixture(scope="session")
def checkpoint_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store's cache with the de-quantised SmolLM2 (about 20 seconds), made once for all processes of a session."""
    from pipeline.models.checkpoints import resolve
    from pipeline.settings import load_profile

    own = tmp_path_factory.getbasetemp()
    cache = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "checkpoints"
    with FileLock(f"{cache}.lock"):
        resolve(load_profile("tiny").checkpoints["smollm2_135m_instruct"], cache)
    return cache
