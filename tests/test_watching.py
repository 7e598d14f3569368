"""Watching a study: `qstudy status`, the study's own run in W&B, and trials of several seeds, from YAML to report."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from optuna.trial import TrialState
from sweep_helpers import make_config, measure, open_queue, small_study, start_victim
from test_tracking import charts, entered, inspect, quiet, records_of, runs  # noqa: F401  (a fixture)

from analysis.study import load_studies
from qstudy.cli import main
from qstudy.commands.sweep import sweep
from qstudy.errors import UserError
from qstudy.sweep.config import load_study
from qstudy.sweep.worker import work
from qstudy.training.record import read_records

ROOT = Path(__file__).parents[1]
BASE = {
    "model": {
        "encoder": {"name": "lstm", "hidden": 8, "layers": 1},
        "predictor": {"name": "lstm", "embedding": 8, "hidden": 8},
        "joiner": {"hidden": 8},
    },
    "track": True,
}
GRID = {"policy": {"name": ["ptq", "fake_qat"], "layers": {"*": [{"weight": 4, "activation": 8}, {"weight": 16}]}}}


def status_of(folder: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    capsys.readouterr()
    main(["status", str(folder), "--json"])
    return dict(json.loads(capsys.readouterr().out))


def test_a_study_of_two_seeds_from_yaml_to_report(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = small_study(corpus, tmp_path, base=BASE, grid=GRID, seeds=2, budgets={"size_bytes": 6000})
    sweep(file, root=tmp_path / "studies")
    folder = tmp_path / "studies" / "small"
    said = capsys.readouterr().out
    records = {record.run: record for record in read_records(folder)}
    trained = ["trial-0000-ptq", "trial-0000-ptq-seed1", "trial-0002-fake_qat", "trial-0002-fake_qat-seed1"]
    assert [name for name, record in records.items() if record.state == "complete"] == trained
    assert [records[name].seed for name in trained] == [0, 1, 0, 1]
    assert records[trained[0]].baseline["id"] != records[trained[1]].baseline["id"], "each seed has its own"  # type: ignore[index]

    # the sampler's value is the mean, and so are the tables'
    rates = {name: records[name].metrics["dev"]["wer"] for name in trained}  # type: ignore[index]
    found = status_of(folder, capsys)
    assert (found["done"], found["wanted"], found["outcomes"]) == (2, 4, {"trained": 2, "over_budget": 2})
    by_trial = {one["trial"]: one for one in [found["best"], *found["front"]]}
    best = by_trial[found["best"]["trial"]]
    mine = [rates[name] for name in trained if name.startswith(best["run"])]
    assert best["dev_wer"] == pytest.approx(sum(mine) / 2)
    assert (best["seed"], best["seeds"], best["bits"]) == (0, 2, "W4 A8")
    assert re.search(r"│ +0 +│ ptq +│ W4 A8 +│ +0–1 │ +\d+\.\d\d% ± \d+\.\d\d \(2 seeds\)", said)
    (study,) = load_studies(folder)
    assert list(study.settings.n) == [2, 2]
    assert study.settings.spread.notna().all()
    assert list(study.settings.choice) == pytest.approx([sum(list(rates.values())[i : i + 2]) / 2 for i in (0, 2)])

    # W&B: every run, the two baselines, the candidates, and the study, in one group
    jobs: dict[str, list[Path]] = {}
    for run in runs(folder):
        told = entered(records_of(run))
        assert told["run_group"] == "small"
        jobs.setdefault(told["job_type"], []).append(run)
    assert {job: len(some) for job, some in jobs.items()} == {"trial": 4, "baseline": 2, "candidate": 2, "study": 1}
    seen = [json.loads(inspect(run, "--summary")) for run in jobs["candidate"]]
    assert {one["name"] for one in seen} == {"small/trial-0001-ptq", "small/trial-0003-fake_qat"}
    assert all(one["summary"]["reason"].startswith("over budget") for one in seen)
    assert all(one["config"]["bits.joiner.output.weight"] == 16 for one in seen)
    (own,) = jobs["study"]
    drawn = charts(records_of(own))
    assert {"best/dev_wer", "trials/trained", "trials/over_budget"} <= set(drawn)
    assert not [name for name in drawn if "table" in name or "ncols" in name], "no charts of a table's shape"
    summary = json.loads(inspect(own, "--summary"))["summary"]
    assert summary["trials/trained"] == 2
    (table,) = sorted((own / "files").glob("media/table/_pareto*.json"), key=os.path.getmtime)[-1:]
    shown = json.loads(table.read_text())
    assert [row[shown["columns"].index("run")] for row in shown["data"]] == [trained[0], trained[2]]


def test_a_look_at_a_study_needs_no_torch_and_changes_nothing(tmp_path: Path) -> None:
    queue = open_queue(tmp_path / "studies", make_config(trials=3, base={"data": {"train": "t", "dev": "d"}}))
    work(queue, measure)
    before = [(trial.state, trial.user_attrs) for trial in queue.trials()]
    program = "import sys; from qstudy.cli import main; main(['status', 'toy']); assert 'torch' not in sys.modules"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=tmp_path, env=environment, check=True, capture_output=True, text=True)
    first, outcomes, best = done.stdout.splitlines()
    assert first == "Study toy: 3 of 3 trials done."
    assert "3 trained" in outcomes
    assert "best so far: trial-" in best
    assert [(trial.state, trial.user_attrs) for trial in queue.trials()] == before


def test_running_and_interrupted_trials_and_the_time_left(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    queue = open_queue(tmp_path, make_config(trials=2))
    with start_victim(tmp_path) as (victim, number):
        found = status_of(tmp_path / "toy", capsys)
        assert [one["trial"] for one in found["running"]] == [number]
        assert (found["at_work"], found["seconds_left"]) == (True, None)
        assert found["outcomes"] == {"running": 1, "waiting": 1}
        victim.kill()
        victim.wait()
    found = status_of(tmp_path / "toy", capsys)
    assert (found["running"], found["at_work"], found["outcomes"]["interrupted"]) == ([], False, 1)
    main(["status", str(tmp_path / "toy")])
    assert "Nobody works on it; `qstudy sweep` with its file goes on." in capsys.readouterr().out
    first = queue.claim()
    assert first is not None
    outcome = measure(queue, first.trial)
    queue.finish(first, "trained", None, outcome.values or (0.5,))
    second = queue.claim()
    assert second is not None
    found = status_of(tmp_path / "toy", capsys)
    assert found["done"] == 1
    assert 0 <= found["seconds_left"] < 60
    queue.put_back(second)


def test_a_study_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as exit:
        main(["status", "nothing", "--root", str(tmp_path)])
    assert exit.value.code == 2


def test_seeds_are_said_once(tmp_path: Path) -> None:
    base = {"data": {"train": "t.jsonl", "dev": "d.jsonl"}}
    study = {"study": "twice", "base": base, "grid": {"policy": {"name": "ptq"}, "seed": [0, 1]}, "seeds": 2}
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(study))
    with pytest.raises(UserError, match="seeds: the grid or the space sets `seed`"):
        load_study(tmp_path / "study.yaml")


def test_a_killed_trial_goes_on_with_the_seed_it_was_at(tmp_path: Path) -> None:
    """Seeds are numbered from the base's on, and wrap where numbers of seeds end."""
    config = make_config(base={"data": {"train": "t", "dev": "d"}, "seed": 2**32 - 1}, seeds=3)
    assert [run.seed for run in config.repeats(config.base_run)] == [2**32 - 1, 0, 1]
    assert not open_queue(tmp_path, config).trials(TrialState.RUNNING)
