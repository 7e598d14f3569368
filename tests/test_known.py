"""Studies that take records of trials from a report, or from the same study elsewhere."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from sweep_helpers import small_study

from qstudy.commands.report import report
from qstudy.commands.status import status
from qstudy.commands.sweep import sweep
from qstudy.errors import UserError
from qstudy.locks import try_lock
from qstudy.sweep.known import require_same_run
from qstudy.sweep.queue import SWEEP_LOCK
from qstudy.training.config import config_from_dict
from qstudy.training.record import Record, read_records

GRID = {"policy": {"name": "fake_qat", "layers": {"*": {"weight": [8, 4]}}}}


@pytest.fixture(scope="module")
def trained(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a study of two trials, in a folder with its file."""
    folder = tmp_path_factory.mktemp("trained")
    sweep(small_study(corpus, folder, grid=GRID), root=folder)
    report([folder / "small"], out=folder / "report")
    return folder


def elsewhere(study: Path, folder: Path, **changes: Any) -> Path:
    """The study's file in another folder, with some fields of it changed."""
    values = yaml.safe_load(study.read_text())
    values["base"] = {**values["base"], **changes.pop("base", {})}
    (folder / "study.yaml").write_text(yaml.safe_dump({**values, **changes}))
    return folder / "study.yaml"


def made(record: Record) -> Any:
    return record.created


def test_what_a_report_knows_is_not_trained_again(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    grid = {"policy": {"name": "fake_qat", "layers": {"*": {"weight": [2, 8]}}}}
    study = elsewhere(trained / "study.yaml", tmp_path, grid=grid)
    sweep(study, root=tmp_path, known=[trained / "report"])
    printed = capsys.readouterr().out
    assert "Trials that are among 2 in" in printed
    assert "2 of up to 4 steps, 1 known" in printed
    of_two, of_eight = read_records(tmp_path / "small")
    before = {made(record): record for record in read_records(trained / "small")}
    assert made(of_two) not in before
    same = before[made(of_eight)]
    assert (of_eight.metrics, of_eight.commit) == (same.metrics, same.commit)
    assert (of_eight.run, of_eight.trial) == ("trial-0001-fake_qat", 1) != (same.run, same.trial)
    models = [(tmp_path / "small" / "runs" / record.run / "model.qst").exists() for record in (of_two, of_eight)]
    assert models == [True, False]
    status("small", root=tmp_path, json=True)
    assert json.loads(capsys.readouterr().out)["outcomes"] == {"trained": 2}


def test_the_study_itself_is_known_too_and_needs_no_baseline(trained: Path, tmp_path: Path) -> None:
    study = elsewhere(trained / "study.yaml", tmp_path, base={"cache": str(tmp_path / "cache")})
    sweep(study, root=tmp_path, known=[trained / "small"])
    assert [*map(made, read_records(tmp_path / "small"))] == [*map(made, read_records(trained / "small"))]
    assert not (tmp_path / "cache" / "baselines").exists()


@pytest.mark.parametrize(
    "base", [{"seed": 1}, {"finetune": {"steps": 3, "batch_size": 8}}, {"training": {"steps": 3, "batch_size": 8}}]
)
def test_other_runs_are_trained(trained: Path, tmp_path: Path, base: dict[str, Any]) -> None:
    sweep(elsewhere(trained / "study.yaml", tmp_path, base=base), root=tmp_path, known=[trained / "report"], trials=1)
    (record,) = read_records(tmp_path / "small")
    assert made(record) not in map(made, read_records(trained / "small"))


def test_a_known_trial_costs_what_the_others_do(trained: Path, tmp_path: Path) -> None:
    """Whatever the accelerator was when it was trained."""
    lines = [json.loads(line) for line in (trained / "report" / "records.jsonl").read_text().splitlines()]
    for values in lines:
        values["latency"] = {name: {**totals, "latency_ms": 999.0} for name, totals in values["latency"].items()}
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "records.jsonl").write_text("".join(f"{json.dumps(values)}\n" for values in lines))
    sweep(elsewhere(trained / "study.yaml", tmp_path), root=tmp_path, known=[tmp_path / "old"], trials=1)
    (record,), (before, *_) = read_records(tmp_path / "small"), read_records(trained / "small")
    assert made(record) == made(before)
    assert record.latency == before.latency


def test_the_file_that_a_known_trial_started_from_may_be_gone(trained: Path, tmp_path: Path) -> None:
    """As that of a run which was known itself."""
    float_model, *_ = (trained / "cache" / "baselines").glob("*/model.qst")
    (tmp_path / "start.qst").write_bytes(float_model.read_bytes())
    start = {"start": str(tmp_path / "start.qst")}
    (tmp_path / "first").mkdir()
    sweep(elsewhere(trained / "study.yaml", tmp_path / "first", base=start), root=tmp_path / "first", trials=1)
    (tmp_path / "start.qst").unlink()
    (tmp_path / "second").mkdir()
    study = yaml.safe_load((trained / "study.yaml").read_text())
    policy = {"policy": {"name": "fake_qat", "layers": {"*": {"weight": 8}}}, **start}
    study |= {"grid": policy, "base": {**study["base"]}}
    (tmp_path / "second" / "study.yaml").write_text(yaml.safe_dump(study))
    sweep(tmp_path / "second" / "study.yaml", root=tmp_path / "second", known=[tmp_path / "first" / "small"])
    (record,), (before,) = read_records(tmp_path / "second" / "small"), read_records(tmp_path / "first" / "small")
    assert made(record) == made(before)


def test_another_test_set_is_not_known(trained: Path, corpus: Path, tmp_path: Path) -> None:
    data = {name: str(corpus / f"{name}.jsonl") for name in ("train", "dev")}
    data["test"] = {"more": str(corpus / "dev.jsonl")}  # type: ignore[assignment]
    study = elsewhere(trained / "study.yaml", tmp_path, base={"data": data})
    sweep(study, root=tmp_path, known=[trained / "report"], trials=1)
    assert list(read_records(tmp_path / "small")[0].metrics or {}) == ["dev", "more"]


def test_another_set_of_the_same_name_is_not_known(trained: Path, corpus: Path, tmp_path: Path) -> None:
    data = {name: str(corpus / f"{name}.jsonl") for name in ("train", "dev")}
    sets = [{**data, "test": {"same": str(corpus / f"{name}.jsonl")}} for name in ("test", "dev")]
    for number, tested in enumerate(sets):
        (tmp_path / str(number)).mkdir()
        study = elsewhere(trained / "study.yaml", tmp_path / str(number), base={"data": tested})
        sweep(study, root=tmp_path / str(number), known=[tmp_path / "0" / "small"] if number else (), trials=1)
    first, second = (read_records(tmp_path / str(number) / "small")[0] for number in (0, 1))
    assert made(first) != made(second)
    assert (second.metrics or {})["same"]["words"] == (first.metrics or {})["dev"]["words"]


def test_what_was_not_asked_for_stays_behind(trained: Path, corpus: Path, tmp_path: Path) -> None:
    """Other sets and accelerators of a record; the first of each stands for a run."""
    data = {name: str(corpus / f"{name}.jsonl") for name in ("train", "dev")}
    data["test"] = {"one": str(corpus / "test.jsonl"), "two": str(corpus / "dev.jsonl")}  # type: ignore[assignment]
    (tmp_path / "wide").mkdir()
    sweep(elsewhere(trained / "study.yaml", tmp_path / "wide", base={"data": data}), root=tmp_path / "wide", trials=1)
    asked = {**data, "test": {"two": str(corpus / "dev.jsonl")}}
    study = elsewhere(trained / "study.yaml", tmp_path, base={"data": asked})
    sweep(study, root=tmp_path, known=[tmp_path / "wide" / "small"], trials=1)
    (record,), (before,) = read_records(tmp_path / "small"), read_records(tmp_path / "wide" / "small")
    assert made(record) == made(before)
    assert [*(record.metrics or {})] == [*(record.utterances or {})] == ["dev", "two"]
    assert record.headline["wer"] == (before.metrics or {})["two"]["wer"]


def test_other_orders_of_patterns_are_not_known(trained: Path, tmp_path: Path) -> None:
    widths = {"encoder.*": {"weight": 4}, "*": {"weight": 8}}
    for number, layers in enumerate((widths, dict(reversed(widths.items())))):
        (tmp_path / str(number)).mkdir()
        grid = {"policy": {"name": "fake_qat", "layers": layers}}
        study = yaml.safe_load((trained / "study.yaml").read_text()) | {"grid": grid}
        (tmp_path / str(number) / "study.yaml").write_text(yaml.safe_dump(study, sort_keys=False))
        known = [tmp_path / "0" / "small"] if number else ()
        sweep(tmp_path / str(number) / "study.yaml", root=tmp_path / str(number), known=known)
    first, second = (read_records(tmp_path / str(number) / "small")[0] for number in (0, 1))
    assert made(first) != made(second)
    assert first.size_bytes != second.size_bytes


def test_what_is_known_is_kept_beside_what_comes_along_later(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = elsewhere(trained / "study.yaml", tmp_path)
    sweep(study, root=tmp_path, known=[trained / "report"], trials=1)
    before = (tmp_path / "small" / "known.jsonl").read_bytes()
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="--known: no trained model's record lies there"):
        sweep(study, root=tmp_path, known=[tmp_path / "empty"])
    sweep(study, root=tmp_path, known=[trained / "report"])
    assert (tmp_path / "small" / "known.jsonl").read_bytes() == before


def test_a_sweep_that_is_refused_changes_nothing_of_what_is_known(trained: Path, tmp_path: Path) -> None:
    """As the study runs already, or is another of the same name."""
    study = elsewhere(trained / "study.yaml", tmp_path)
    running = try_lock(tmp_path / "small" / SWEEP_LOCK)
    assert running
    with running, pytest.raises(UserError, match="is already running here"):
        sweep(study, root=tmp_path, known=[trained / "report"])
    assert not (tmp_path / "small" / "known.jsonl").exists()
    sweep(study, root=tmp_path, trials=1)
    other = elsewhere(trained / "study.yaml", tmp_path, base={"seed": 7})
    with pytest.raises(UserError, match="was begun with"):
        sweep(other, root=tmp_path, known=[trained / "report"])
    assert not (tmp_path / "small" / "known.jsonl").exists()


def test_a_finished_run_is_not_written_over_by_another(trained: Path, tmp_path: Path) -> None:
    """Though it left no checkpoint, as one that did not train."""
    record, *_ = read_records(trained / "small")
    for file in (trained / "small" / "runs" / record.run).iterdir():
        if file.suffix != ".ckpt" and file.is_file():
            (tmp_path / file.name).write_bytes(file.read_bytes())
    config = config_from_dict(dict(record.config or {}))
    require_same_run(tmp_path, config)
    require_same_run(tmp_path / "nothing yet", config)
    with pytest.raises(UserError, match=r"finished run with another policy, seed.*; name another folder"):
        require_same_run(tmp_path, replace(config, policy={"name": "float"}, seed=config.seed + 1))
