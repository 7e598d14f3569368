"""For all tests: hypothesis without deadlines, long ones first, a tiny corpus, and a folder that all workers share."""

import fcntl
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from qstudy import runtime

os.environ.pop("QSTUDY_STORAGE", None)  # the user's own database: studies of tests would stay in it
runtime.tune()  # before torch is imported, as the program does
import torch  # noqa: E402
from hypothesis import settings  # noqa: E402

settings.register_profile("qstudy", deadline=None, max_examples=50)  # a busy machine is not a failure
settings.load_profile("qstudy")

# The even ones to the first of two processes, the odd ones to the second. Fuzzing compiles nearly every loop, in one
# process and once for all: before chaos and Ray, whose several processes would each compile the same at once.
LONG = (
    "test_types.py",
    "test_fuzz.py",
    "test_sweep_kill.py",
    "test_devices.py",
    "test_chaos.py",
    "test_processors.py",
    "test_slurm_cluster.py",
    "test_ray.py",
    "test_training.py",
    "test_bit_exact_encoders.py",
    "test_watching.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long files first, lest one process ends alone with them: `--dist worksteal` begins with an even cut of the list,
    so each process finds every n-th of them at the beginning of its piece."""
    processes = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    short = [item for item in items if item.path.name not in LONG]
    size = len(items) // processes
    ordered: list[pytest.Item] = []
    for first in range(processes):
        own = [item for name in LONG[first::processes] for item in items if item.path.name == name]
        rest = max(0, size - len(own))
        ordered += own + short[:rest]
        del short[:rest]
    items[:] = ordered + short


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """One folder for all of pytest-xdist's workers; gone with the next sessions."""
    own = tmp_path_factory.getbasetemp()
    folder = (own if worker_id == "master" else own.parent) / "shared"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def corpus(shared_folder: Path) -> Path:
    """Synthesized commands: 24 utterances to train on, 6 each to test on; manifests `train`, `dev`, `test`."""
    from qstudy.data.corpora.commands import commands

    folder = shared_folder / "corpus"
    with (shared_folder / "corpus.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        commands(folder, train=24, dev=6, test=6, processes=1)
    return folder


@pytest.fixture(scope="session")
def written(shared_folder: Path) -> Path:
    """The report of a made-up study with trials of every kind; tests read it."""
    import analysis_study as made

    from qstudy.commands.report import report

    folder = shared_folder / "made"
    with (shared_folder / "made.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            report([made.write(folder / "study", made.records())], folder / "out")
    return folder / "out"


@pytest.fixture(params=["cpu", "cuda"])
def device(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> torch.device:
    """Every device that torch has here; cuDNN's LSTM multiplies in full float32, unlike its default."""
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("needs a GPU")
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    return torch.device(request.param)


@pytest.fixture
def threads() -> Iterator[Callable[[int], None]]:
    """Sets the number of torch's threads, for one test."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.fixture
def one_thread(threads: Callable[[int], None]) -> None:
    """Sums in one order, as in a subprocess with OMP_NUM_THREADS=1."""
    threads(1)
