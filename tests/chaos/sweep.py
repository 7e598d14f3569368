"""A small real study under `qstudy sweep --workers 2`, which is begun again whenever it has ended early."""

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml
from optuna.trial import FrozenTrial, TrialState

from qstudy.secrets import STORAGE_VARIABLE
from qstudy.sweep.queue import Queue
from qstudy.sweep.storage import DEFINITION, load, open_storage
from tests.processes import everything, works_in
from tests.sweep_helpers import small_study

ROOT = Path(__file__).parents[2]
WORKERS = 2
PATIENCE_S = 600.0  # until the next trial ends, on a machine that has other work
WIDTHS = [2, 3, 4, 5, 6, 8]
SPACE = {
    "policy": {
        "name": ["ptq", "fake_qat"],
        "layers": {"encoder.*": {"weight": WIDTHS}, "predictor.*": {"weight": WIDTHS}, "joiner.*": {"weight": WIDTHS}},
    }
}


class Sweep:
    """The study and the process that runs it."""

    def __init__(self, corpus: Path, folder: Path, url: str, trials: int, seed: int) -> None:
        """Write the study; some of its candidates are over its budget."""
        file = small_study(
            corpus,
            folder,
            grid=[],
            space=SPACE,
            trials=trials,
            budgets={"size_bytes": 5_000},
            sampler={"name": "random", "seed": seed},
        )
        self.study: dict[str, Any] = yaml.safe_load(file.read_text())
        self.folder, self.trials = folder, trials
        self.codes = Counter[int]()
        """How often it ended with each exit code."""
        self.seen: dict[int, tuple[TrialState, list[float]]] = {}
        """State and values of the trials that have ended, as they were first seen."""
        self._url = url
        self._queue: Queue | None = None
        self.process = self._started()

    @property
    def pid(self) -> int:
        """Of `qstudy sweep`."""
        return self.process.pid

    def go_on(self) -> bool:
        """Begin again with the same command if it ended early; False: the study has ended."""
        code = self.process.poll()
        if code is None:
            return True
        self.codes[code] += 1
        if code == 0:
            return False
        self.process = self._started()
        return True

    def until_another_ends(self) -> bool:
        """Wait until trials have ended that had not before; False: the study has."""
        before, deadline = len(self.seen), time.monotonic() + PATIENCE_S
        while len(self.seen) == before:
            if not self.go_on():
                return False
            assert time.monotonic() < deadline, f"nothing moves; see {self.folder / 'output.txt'}"
            time.sleep(0.5)
            self.look()
        return True

    def look(self) -> list[FrozenTrial]:
        """The trials that have ended; what has ended once must stay as it is."""
        if not (queue := self.queue()):
            return []
        ended = queue.trials(TrialState.COMPLETE, TrialState.PRUNED)
        for trial in ended:
            now = (trial.state, list(trial.values or []))
            assert self.seen.setdefault(trial.number, now) == now, f"trial {trial.number} changed after its end"
        return ended

    def queue(self) -> Queue | None:
        """The study's queue, as anybody sees it; None: it is not planned yet."""
        if self._queue is None:
            folder = self.folder / "studies" / "small"
            storage = open_storage(self._url, folder, patient=True)
            if any(DEFINITION in study.user_attrs for study in storage.get_all_studies()):
                config, study = load(storage, "small")
                self._queue = Queue(study, storage, config, folder)
        return self._queue

    def stop(self) -> None:
        """End all processes that are left."""
        with suppress(ProcessLookupError):
            self.process.kill()
        self.process.wait()
        for pid in self.alive():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def alive(self) -> list[int]:
        """Processes that work in the study's folder."""
        return [pid for pid in everything() if works_in(pid, self.folder)]

    def _started(self) -> "subprocess.Popen[bytes]":
        command = [sys.executable, "-m", "qstudy", "sweep", "study.yaml", "--workers", str(WORKERS)]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", STORAGE_VARIABLE: self._url}
        with (self.folder / "output.txt").open("ab") as output:
            return subprocess.Popen(command, cwd=self.folder, env=environment, stdout=output, stderr=output)
