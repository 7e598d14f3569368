"""Studies that take records of trials from a report, or from the same study elsewhere."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from sweep_helpers import small_study

from qstudy.commands.report import report
from qstudy.commands.status import status
from qstudy.commands.sweep import sweep
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


def test_another_test_set_is_not_known(trained: Path, corpus: Path, tmp_path: Path) -> None:
    data = {name: str(corpus / f"{name}.jsonl") for name in ("train", "dev")}
    data["test"] = {"more": str(corpus / "dev.jsonl")}  # type: ignore[assignment]
    study = elsewhere(trained / "study.yaml", tmp_path, base={"data": data})
    sweep(study, root=tmp_path, known=[trained / "report"], trials=1)
    assert list(read_records(tmp_path / "small")[0].metrics or {}) == ["dev", "more"]
