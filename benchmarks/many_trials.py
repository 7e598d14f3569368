"""Rows: a study of 100,000 trials looked at, and reported, in processes of their own; beside it what Optuna takes.

`python -m benchmarks.many_trials SIDE FOLDER` measures one side: its milliseconds and its peak memory in bytes.
"""

import contextlib
import io
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import optuna
from sqlalchemy import MetaData, Table, create_engine, func, insert, select, text

from benchmarks import report
from benchmarks.row import Row
from qstudy.commands.status import status
from qstudy.sweep.config import StudyConfig, study_from_dict
from qstudy.sweep.storage import open_storage, open_study
from qstudy.sweep.trials import OUTCOME

TRIALS, BY_OPTUNA = 100_000, 250
MEBIBYTE = 2**20
WIDTHS = [2, 3, 4, 6, 8]


def rows() -> Iterable[Row]:
    """Time and memory of `qstudy status` (one peer reads the same trials, the other makes a table of them), and of
    `qstudy report` where all were trained (the floor reads every record and keeps none)."""
    with tempfile.TemporaryDirectory() as folder:
        made_up(Path(folder) / "many", TRIALS)
        figures = {side: measured(side, folder) for side in SIDES}
    times, peaks = ({side: figure[place] for side, figure in figures.items()} for place in (0, 1))
    for peer in PEERS:
        yield Row(f"status of {TRIALS:,} trials", "ms", peer, times["ours"], times[peer])
    for peer in PEERS:
        yield Row(f"status of {TRIALS:,} trials, memory", "MiB", peer, peaks["ours"], peaks[peer])
    with tempfile.TemporaryDirectory() as folder:
        size = report.made_up(Path(folder), TRIALS).stat().st_size / MEBIBYTE
        ours, least = (report.measured(side, folder) for side in ("ours", "floor"))
    what, why = f"report of {TRIALS:,} runs, {size:.0f} MiB of records", "see that of 5,000 runs"
    yield Row(what, "ms", "pandas.read_json", ours[0], reference_is="json.loads", reference=least[0], skipped=why)
    what = f"report of {TRIALS:,} runs, memory"
    yield Row(what, "MiB", "pandas.read_json", ours[1], reference_is="the records", reference=size, skipped=why)


def made_up(folder: Path, trials: int) -> StudyConfig:
    """A study in `folder`, half of whose trials were over budget: some told to Optuna, the others copies of these."""
    layers = {f"{part}.*": {"weight": WIDTHS} for part in ("encoder", "predictor", "joiner")}
    base = {"data": {"train": "train.jsonl", "dev": "dev.jsonl"}, "track": False}
    space = {"policy": {"name": "mixed", "layers": layers}}
    config = study_from_dict({"study": folder.name, "base": base, "space": space, "trials": 10_000})
    folder.mkdir(parents=True)
    open_study(open_storage(None, folder), config, folder)
    study = _loaded(folder)
    study.sampler = optuna.samplers.RandomSampler(seed=0)
    for number in range(min(BY_OPTUNA, trials)):
        _tell(study, number)
    _multiply(folder / "study.db", trials)
    return config


def _tell(study: optuna.Study, number: int) -> None:
    trial = study.ask()
    widths = [trial.suggest_categorical(f"policy/layers/{part}/weight", WIDTHS) for part in ("a", "b", "c")]
    over = sum(widths) > 15
    known = {"run": f"trial-{number:04d}-mixed", "bits": "W4", "seed": 0, "size_bytes": 10_000 * sum(widths)}
    for name, value in {**known, "feasible": not over, OUTCOME: "over_budget" if over else "trained"}.items():
        trial.set_user_attr(name, value)
    state = optuna.trial.TrialState.PRUNED if over else optuna.trial.TrialState.COMPLETE
    study.tell(trial, None if over else 1 / sum(widths), state=state)


def _multiply(file: Path, trials: int) -> None:
    """Copy the trials, with all that belongs to them, until there are so many; Optuna takes minutes to add them."""
    engine, tables = create_engine(f"sqlite:///{file}"), MetaData()
    tables.reflect(engine)
    mine = [table for table in tables.sorted_tables if "trial_id" in table.columns]
    with engine.begin() as connection:
        connection.execute(text("PRAGMA foreign_keys=OFF"))
        there = connection.execute(select(func.count()).select_from(tables.tables["trials"])).scalar_one()
        for shift in range(there, trials, there):
            for table in mine:
                connection.execute(_copies(table, there, shift))


def _copies(table: Table, of: int, shift: int) -> Any:
    """The rows of the first `of` trials again, for the trial so many further on."""
    moved = {"trial_id": shift, "number": shift}
    keys = [column for column in table.primary_key if column.name != "trial_id"]
    columns = [column for column in table.columns if column not in keys]
    values = [column + moved[column.name] if column.name in moved else column for column in columns]
    return insert(table).from_select(columns, select(*values).where(table.c.trial_id <= of))


def measured(side: str, folder: str) -> tuple[float, float]:
    """Milliseconds and MiB of one side, in a fresh process."""
    command = [sys.executable, "-m", "benchmarks.many_trials", side, folder]
    told = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1]
    milliseconds, peak = map(float, told.split())
    return milliseconds, peak / MEBIBYTE


def _loaded(folder: Path) -> optuna.Study:
    return optuna.load_study(study_name=folder.name, storage=f"sqlite:///{folder / 'study.db'}")


PEERS: dict[str, Callable[[Path], object]] = {
    "Optuna get_trials": lambda folder: _loaded(folder / "many").get_trials(deepcopy=False),
    "Optuna trials_dataframe": lambda folder: _loaded(folder / "many").trials_dataframe(),
}
SIDES: dict[str, Callable[[Path], object]] = {"ours": lambda folder: status("many", root=folder), **PEERS}


def main(side: str, folder: str) -> None:
    """Measure one side."""
    begin = time.perf_counter()
    with contextlib.redirect_stdout(io.StringIO()):
        SIDES[side](Path(folder))
    seconds = time.perf_counter() - begin
    print(1e3 * seconds, 1024 * int(re.findall(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())[0]))


if __name__ == "__main__":
    main(*sys.argv[1:])
