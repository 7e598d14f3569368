"""What must be true of a study, whatever happened to it."""

import time
from collections import Counter
from pathlib import Path

from optuna.trial import FrozenTrial, TrialState

from qstudy.quant.packed.model import PackedModel
from qstudy.sweep.trials import FREE, OUTCOME
from qstudy.training.record import Record, read_record

from .sweep import Sweep

LAST_S = 30.0


def check(sweep: Sweep) -> str:
    """Every trial that ended is counted once, none is left over, no record is half written; what came out, in words."""
    queue = sweep.queue()
    assert queue is not None
    sweep.look()
    trials = queue.trials()
    assert [trial.number for trial in trials] == list(range(len(trials)))
    assert {trial.state for trial in trials} <= {TrialState.COMPLETE, TrialState.PRUNED}, "a zombie"
    kinds = Counter(trial.user_attrs[OUTCOME] for trial in trials)
    assert sum(kinds[kind] for kind in kinds if kind not in FREE) == sweep.trials == queue.done(), kinds
    assert set(kinds) <= {"trained", *FREE}, kinds
    folders = sorted((sweep.folder / "studies" / "small" / "runs").iterdir())
    records = [read_record(folder / "record.json") for folder in folders]
    assert sorted(record.trial for record in records) == [trial.number for trial in trials], "one record for each trial"
    for folder, record in zip(folders, records, strict=True):
        _compare(trials[record.trial], record, folder)
    deadline = time.monotonic() + LAST_S
    while sweep.alive() and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not sweep.alive(), "processes are left"
    return ", ".join(f"{kind} {count}" for kind, count in kinds.items())


def _compare(trial: FrozenTrial, record: Record, folder: Path) -> None:
    if trial.user_attrs[OUTCOME] != "trained":
        assert (record.state, record.reason) == ("pruned", trial.user_attrs["reason"])
        return
    assert record.state == "complete"
    assert trial.values == [record.metrics["dev"]["wer"]]
    assert PackedModel.load(folder / "model.qst").header["policy"], folder
