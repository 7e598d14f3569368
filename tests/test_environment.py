"""Where records come from: versions, machine and commit, without names of machines or passwords."""

import json
import os
import platform
import subprocess
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

from qstudy.training.environment import command, environment


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
    for part in ("errors.py", "training/environment.py"):
        copy = tmp_path / "qstudy" / part
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text((source / part).read_text())
    spec = spec_from_file_location("copied", copy)  # in this process: another would import torch for seconds
    assert spec is not None
    assert spec.loader is not None
    copied = module_from_spec(spec)
    spec.loader.exec_module(copied)

    def commit() -> str | None:
        return copied.environment()["commit"]

    git = ["git", "-c", "user.name=t", "-c", "user.email=t@example.org"]
    subprocess.run([*git, "init", "-q"], cwd=tmp_path, check=True)
    assert commit() is None
    subprocess.run([*git, "add", "."], cwd=tmp_path, check=True)
    subprocess.run([*git, "commit", "-qm", "x"], cwd=tmp_path, check=True)
    head = subprocess.run([*git, "rev-parse", "HEAD"], cwd=tmp_path, check=True, capture_output=True, text=True).stdout
    assert commit()
    assert head.startswith(commit())
    (tmp_path / "qstudy" / "errors.py").open("a").write("# changed\n")
    assert commit().endswith("-dirty")
