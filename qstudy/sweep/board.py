"""A study in W&B beside its trials: a run of its own, its float baseline, and the candidates that were not trained."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optuna.trial import FrozenTrial, TrialState

from qstudy.errors import UserError
from qstudy.sweep.config import StudyConfig
from qstudy.sweep.queue import Queue
from qstudy.sweep.summary import pareto
from qstudy.sweep.trials import FREE, OUTCOME, dev_wer, is_trained
from qstudy.training.config import config_from_dict
from qstudy.training.record import RECORD_FILE, Record, read_record
from qstudy.training.tracking import ID_FILE, Entry, entry_of, mirror, start_tracking

if TYPE_CHECKING:  # Lightning takes seconds to import
    from qstudy.training.wandb_run import Tracker

CHART_S = 10.0
"""The chart is a file each time; not more often."""
COLUMNS = ("trial", "run", "bits", "seed", "size_bytes", "latency_ms", "dev_wer", "test_wer", "front")


class Board:
    """Shows in W&B where a study stands, within a `with` block; harmless when W&B is away or nothing is tracked."""

    def __init__(self, queue: Queue) -> None:
        """Args: the study's trials."""
        self._queue, self._folder, self._charted = queue, queue.folder, 0.0
        self._seen: set[int] = set()
        tracked = queue.config.base_run.track and queue.unfinished()
        self._tracker = start_tracking(_entry(queue.config, queue.folder)) if tracked else None

    def show(self, whole: bool = False) -> None:
        """Show the trials that have ended by now; `whole`: with the chart, which is spared now and then."""
        if self._tracker is None:
            return
        ended = self._queue.trials(TrialState.COMPLETE, TrialState.PRUNED)
        self._mirror([trial for trial in ended if trial.number not in self._seen])
        self._seen |= {trial.number for trial in ended}
        self._tracker.log_metrics(_numbers(ended), len(ended))
        if whole or time.monotonic() - self._charted > CHART_S:
            self._charted = time.monotonic()
            self._chart(self._tracker, ended)

    def tell(self, line: str) -> None:
        """Print a line about a trial that has ended, and show it."""
        print(line)
        self.show()

    def __enter__(self) -> "Board":
        """Show a study while it is worked on."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, *_: object) -> None:
        """Close the study's run, after the last look if nothing is in its way."""
        if self._tracker is None:
            return
        if kind is None:
            self.show(whole=True)
            self._tracker.close()
        else:
            self._tracker.__exit__(kind, error)

    def _chart(self, tracker: "Tracker", ended: Sequence[FrozenTrial]) -> None:
        trained = [trial for trial in ended if is_trained(trial)]
        front = pareto(trained)
        rows = [[_told(trial, trial in front).get(name) for name in COLUMNS] for trial in trained]
        # W&B's terminal draws every logged number, a table's width too, unless its name begins with an underscore
        tracker.log_scatter("_pareto", COLUMNS, rows, ("size_bytes", "dev_wer"), len(ended))

    def _mirror(self, ended: Sequence[FrozenTrial]) -> None:
        """Enter the runs that no worker tracks, once."""
        for trial in ended:
            folder = self._folder / "runs" / str(trial.user_attrs.get("run"))
            if is_trained(trial):
                for run in (folder, *folder.parent.glob(f"{folder.name}-seed*")):
                    self._mirror_baseline(run)
            elif trial.user_attrs.get(OUTCOME) in FREE and (record := _record(folder)) and record.config:
                entry = entry_of(
                    config_from_dict(record.config), folder, record.bit_map or {}, record.study, trial.number
                )
                self._once(replace(entry, job="candidate", tags=(*entry.tags, trial.user_attrs[OUTCOME])), record)

    def _mirror_baseline(self, folder: Path) -> None:
        """The float model that a trained run started from, as its record describes it."""
        run = _record(folder)
        if run is None or not run.baseline or not run.config:
            return
        told: Any = run.baseline
        known = {name: told.get(name) for name in ("metrics", "size_bytes", "latency")}
        record = Record(run=str(told["id"]), state="complete", policy="float", study=run.study, **known)
        own = self._folder / "baselines" / record.run
        config = config_from_dict({**run.config, "policy": {"name": "float"}})
        entry = replace(entry_of(config, own, {}, run.study), job="baseline")
        self._once(entry, record)

    def _once(self, entry: Entry, record: Record) -> None:
        if not (entry.folder / ID_FILE).exists():
            mirror(entry, record)


def _entry(config: StudyConfig, folder: Path) -> Entry:
    whole = {name: value for name, value in config.to_dict().items() if name != "study"}
    tags = (config.sampler.name, *config.objectives)
    return Entry(
        folder=folder, place=folder, name=config.study, config=whole, study=config.study, job="study", tags=tags
    )


def _numbers(ended: Sequence[FrozenTrial]) -> Mapping[str, float]:
    """How many trials came to which end; the lowest dev WER so far, and what is new about it."""
    kinds = [str(trial.user_attrs.get(OUTCOME, "ended")) for trial in ended]
    found: dict[str, float] = {f"trials/{kind}": kinds.count(kind) for kind in dict.fromkeys(kinds)}
    if trained := [trial for trial in ended if is_trained(trial)]:
        best, last = min(trained, key=dev_wer), max(trained, key=lambda trial: trial.datetime_complete or 0)
        found |= {"best/dev_wer": dev_wer(best), "best/size_bytes": best.user_attrs["size_bytes"]}
        found |= {"last/dev_wer": dev_wer(last), "last/size_bytes": last.user_attrs["size_bytes"]}
        found["trials/on_front"] = len(pareto(trained))
    return found


def _told(trial: FrozenTrial, on_front: bool) -> dict[str, Any]:
    return {**trial.user_attrs, "trial": trial.number, "dev_wer": dev_wer(trial), "front": on_front}


def _record(folder: Path) -> Record | None:
    """None: the trial ran elsewhere."""
    try:
        return read_record(folder / RECORD_FILE)
    except UserError:
        return None
