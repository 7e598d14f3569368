"""A study without speech: layers `a`, `b`, `c` with a width each, whose size is the sum of their widths."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
import yaml

from qstudy.files import content_hash
from qstudy.sweep.config import StudyConfig, study_from_dict
from qstudy.sweep.objective import Outcome
from qstudy.sweep.optuna_internals import constrain, keep, kept
from qstudy.sweep.queue import Queue
from qstudy.sweep.space import suggest
from qstudy.sweep.storage import open_storage, open_study
from qstudy.sweep.trials import GRID, IDENTITY

WIDTHS = [2, 3, 4, 8]
SPACE = {"policy": {"name": "mixed", "layers": {layer: {"weight": WIDTHS} for layer in "abc"}}}


def make_config(**fields: Any) -> StudyConfig:
    """The study, with some fields of its YAML changed; None leaves a field out."""
    values = {
        "study": "toy",
        "base": {"data": {}},
        "space": SPACE,
        "trials": 5,
        "budgets": {"size_bytes": 12},
        **fields,
    }
    return study_from_dict({name: value for name, value in values.items() if value is not None})


def open_queue(root: Path, config: StudyConfig, url: str | None = None, **storage: Any) -> Queue:
    """The study's queue in `root/toy`, planned."""
    database = open_storage(url, root / config.study, **storage)
    queue = Queue(open_study(database, config, root / config.study), database, config, root / config.study)
    queue.plan()
    return queue


def small_study(corpus: Path, folder: Path, **fields: Any) -> Path:
    """Writes a study of real speech whose trials train for a second."""
    short = {"steps": 4, "batch_size": 8, "evaluate_every": 4}
    tiny = {"hidden": 8}  # an untrained model says a lot, label by label
    base = {
        "data": {"train": str(corpus / "train.jsonl"), "dev": str(corpus / "dev.jsonl")},
        "model": {
            "encoder": {"name": "lstm", "layers": 1, **tiny},
            "predictor": {"name": "lstm", "embedding": 8, **tiny},
            "joiner": tiny,
        },
        "training": short,
        "finetune": short,
        "cache": str(folder / "cache"),
        "track": False,
        **fields.pop("base", {}),
    }
    grid = {"policy": {"name": "fake_qat", "layers": {"*": {"weight": [8, 4, 2]}}}}
    study = {"study": "small", "base": base, "grid": grid, **fields}
    (folder / "study.yaml").write_text(yaml.safe_dump(study, sort_keys=False))
    return folder / "study.yaml"


def measure(queue: Queue, trial: optuna.Trial) -> Outcome:
    """What `qstudy.sweep.objective.evaluate` does with a trial, without training."""
    place, grid = kept(trial).get(GRID), queue.config.combinations
    changes = suggest(trial, queue.config.space) if place is None else grid.show(trial, place)
    widths = [bits["weight"] for bits in changes["policy"]["layers"].values()]
    costs = {"size_bytes": float(sum(widths))}
    for name, excess in queue.config.budgets.constraints(costs).items():
        constrain(trial, name, excess)
    trial.set_user_attr("size_bytes", sum(widths))
    keep(trial, IDENTITY, content_hash(changes))
    if reason := queue.config.budgets.excess(costs):
        return Outcome("over_budget", reason)
    return Outcome("trained", values=(1 / sum(widths),))


@contextmanager
def start_victim(root: Path, url: str | None = None) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A worker process that takes a trial, and works on it until it is killed; with the trial's number."""
    command = [sys.executable, __file__, str(root)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1]), "URL": url or ""}
    with subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as victim:
        assert victim.stdout is not None
        yield victim, int(victim.stdout.readline())


if __name__ == "__main__":
    mine = open_queue(Path(sys.argv[1]), make_config(trials=2), os.environ["URL"] or None, heartbeat_s=1, grace_s=2)
    claim = mine.claim()
    assert claim is not None
    measure(mine, claim.trial)
    print(claim.trial.number, flush=True)
    sys.stdin.read()
