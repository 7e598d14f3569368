"""Records: written whole, read back the same, without names of machines or passwords."""

import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from qstudy.errors import UserError
from qstudy.training.record import command, environment, headline, read_records, write_record


def made(**changes: Any) -> dict[str, Any]:
    bits = {"encoder.lstm.0": {"weight": 4, "activation": 8}}
    record = {"run": "trial-0000-ptq", "state": "complete", "policy": "ptq", "config": {}, "bit_map": bits}
    return {**record, "size_bytes": 512, **changes}


def test_records_come_back_by_name(tmp_path: Path) -> None:
    for name in ("trial-0002-ptq", "trial-0000-ptq", "trial-0001-ptq"):
        write_record(tmp_path / "runs" / name, made(run=name))
    (tmp_path / "runs" / "trial-0003-ptq").mkdir()  # has not ended
    found = read_records(tmp_path)
    assert [record["run"] for record in found] == ["trial-0000-ptq", "trial-0001-ptq", "trial-0002-ptq"]
    assert found[0] == {**made(), "schema": 1}


def test_numbers_that_json_does_not_know_become_null(tmp_path: Path) -> None:
    write_record(tmp_path, made(loss={"first": float("inf"), "last": float("nan")}, steps=(1, 2.5)))
    record = json.loads((tmp_path / "record.json").read_text(), parse_constant=pytest.fail)
    assert record["loss"] == {"first": None, "last": None}
    assert record["steps"] == [1, 2.5]


@pytest.mark.parametrize("wrong", [{"state": "running"}, {"state": None}], ids=str)
def test_a_record_has_a_state(tmp_path: Path, wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="complete"):
        write_record(tmp_path, made(**wrong))


def test_a_record_has_its_entries(tmp_path: Path) -> None:
    incomplete = made()
    del incomplete["bit_map"]
    with pytest.raises(ValueError, match="bit_map"):
        write_record(tmp_path, incomplete)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("text", ['{"schema": 1, "ru', '{"schema": 2}', "[]", '{"schema": 1}', "[" * 9999, "NaN"])
def test_a_damaged_record_is_named(tmp_path: Path, text: str) -> None:
    folder = tmp_path / "runs" / "trial-0000-ptq"
    folder.mkdir(parents=True)
    (folder / "record.json").write_text(text)
    with pytest.raises(UserError, match=r"trial-0000-ptq/record\.json"):
        read_records(tmp_path)


def test_headline_prefers_the_test_set_and_the_first_accelerator() -> None:
    latency = {"edge": {"latency_ms": 2.0, "rtf": 0.1}, "server": {"latency_ms": 1.0, "rtf": 0.05}}
    record = made(metrics={"dev": {"wer": 0.1}, "test": {"wer": 0.2}}, latency=latency)
    assert headline(record) == {"wer": 0.2, "size_bytes": 512, "latency_ms": 2.0, "rtf": 0.1}
    assert headline(made(metrics={"dev": {"wer": 0.1}})) == {"wer": 0.1, "size_bytes": 512}
    assert headline(made()) == {"size_bytes": 512}


def test_environment_says_where_a_record_comes_from() -> None:
    found = environment()
    assert found["versions"]["python"] == platform.python_version()
    assert found["versions"]["torch"].startswith("2.")
    assert found["machine"]["cores"] == os.cpu_count()
    assert found["created"].endswith("+00:00")
    assert platform.node() not in json.dumps({**found, "command": ""}).split('"')


def test_the_command_hides_passwords(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("QSTUDY_COMMAND", raising=False)
    monkeypatch.setattr(sys, "argv", ["/x/qstudy", "sweep", "a b.yaml", "--storage", "postgresql://me:s3cret@host/db"])
    assert command() == "qstudy sweep 'a b.yaml' --storage 'postgresql://me:***@host/db'"


def test_the_commit_is_that_of_the_source(tmp_path: Path) -> None:
    """In a checkout of our own: committed, then changed."""
    source = Path(__file__).parents[1] / "qstudy"
    for part in ("__init__.py", "errors.py", "files.py", "secrets.py", "training/record.py"):
        copy = tmp_path / "qstudy" / part
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text((source / part).read_text() if part != "__init__.py" else "")
    (tmp_path / "qstudy" / "training" / "__init__.py").touch()
    ask = [sys.executable, "-B", "-c", "from qstudy.training.record import environment; print(environment()['commit'])"]

    def commit() -> str:
        return subprocess.run(ask, cwd=tmp_path, check=True, capture_output=True, text=True).stdout.strip()

    git = ["git", "-c", "user.name=t", "-c", "user.email=t@example.org"]
    subprocess.run([*git, "init", "-q"], cwd=tmp_path, check=True)
    assert commit() == "None"
    subprocess.run([*git, "add", "."], cwd=tmp_path, check=True)
    subprocess.run([*git, "commit", "-qm", "x"], cwd=tmp_path, check=True)
    head = subprocess.run([*git, "rev-parse", "HEAD"], cwd=tmp_path, check=True, capture_output=True, text=True).stdout
    assert head.startswith(commit())
    (tmp_path / "qstudy" / "errors.py").open("a").write("# changed\n")
    assert commit().endswith("-dirty")
