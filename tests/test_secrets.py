"""The password in a storage's URL: in no file, no message, no list of arguments."""

import os
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from sweep_helpers import make_config
from tiny import run_config

from qstudy.cli import main
from qstudy.secrets import (
    STORAGE_VARIABLE,
    hide,
    mask_urls,
    masked,
    masked_arguments,
    print_crash,
    storage_to_environment,
)
from qstudy.sweep.launchers import process
from qstudy.sweep.launchers.local import ThisMachine
from qstudy.sweep.pool import job_of
from qstudy.training.config import to_dict

PASSWORD = "geh3im"


@pytest.fixture(autouse=True)
def storage(monkeypatch: pytest.MonkeyPatch) -> None:
    """What commands put into the environment is taken back."""
    monkeypatch.setenv(STORAGE_VARIABLE, "")


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://me:geh3im@host:5432/db", "postgresql://me:***@host:5432/db"),
        ("postgresql://me@host/db", "postgresql://me@host/db"),
        ("postgresql://host/db?user=me&password=geh3im", "postgresql://host/db?***"),
        ("sqlite:////data/study.db", "sqlite:////data/study.db"),
        ("postgresql://me:ge h3im@host/db", "postgresql://me:***@host/db"),
        # where the password ends is anyone's guess
        *(
            (url, "postgresql://***")
            for url in (
                "postgresql://me:a/geh3im@host/db",
                "postgresql://me:a@geh3im@host/db",
                "postgresql://me:a?geh3im@host/db",
                "postgresql://me:geh3im",
                "postgresql://me:geh3im/db",
                "postgresql://host/db?user=me@there&x=geh3im",
            )
        ),
        ("host=there password=geh3im", "***"),
    ],
)
def test_a_url_is_shown_without_its_secrets(url: str, shown: str) -> None:
    assert masked(url) == masked(masked(url)) == shown
    assert masked_arguments(["--storage", url, f"--storage={url}", "--workers", "2"]) == [
        "--storage",
        shown,
        f"--storage={shown}",
        "--workers",
        "2",
    ]


@pytest.mark.parametrize("said", ["a%40b+c", "a@b c", "a@b+c"])
def test_a_driver_may_quote_a_secret_in_any_form(said: str) -> None:
    url = "postgresql://me:x@host/db?sslpassword=a%40b+c"
    assert hide(f'invalid value: "{said}"', url) == 'invalid value: "***"'


@pytest.mark.parametrize(
    ("given", "rest", "url"),
    [
        (["a.yaml", "--storage", "x://y", "--trials", "3"], ["a.yaml", "--trials", "3"], "x://y"),
        (["--storage=x://y?a=b", "a.yaml"], ["a.yaml"], "x://y?a=b"),
        (["a.yaml", "--storage", "--trials"], ["a.yaml", "--storage", "--trials"], ""),  # the parser says what is wrong
        (["a.yaml", "--storage"], ["a.yaml", "--storage"], ""),
    ],
)
def test_the_option_becomes_the_variable(given: list[str], rest: list[str], url: str) -> None:
    assert storage_to_environment(given) == rest
    assert os.environ[STORAGE_VARIABLE] == url


@pytest.mark.filterwarnings("ignore:Query string argument")
@pytest.mark.parametrize("text", ["x" * 10**6, "x://" * 10**5, "x://" + "'" * 10**6, "://" * 10**5])
def test_long_texts_take_no_time(text: str) -> None:
    started = time.process_time()
    mask_urls(text)
    masked_arguments([text])
    assert time.process_time() - started < 5


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://me:geh3im@127.0.0.1:1/db",
        "postgresql://127.0.0.1:1/db?user=me&password=geh3im",
        "postgresql://127.0.0.1/db?sslmode=geh3im",
        "postgresql://me:geh3im@host:port/db",
        "mysql+nothing://me:geh3im@host/db",
        "sqlite:///nowhere/at/all.db?key=geh3im",
        "sqlite:///study.db?password=geh3im",
        "me:geh3im@host/db",
        "postgresql://joe@h:geh3im/d",
        "host=h password=geh3im",
        "postgresql://joe:my geh3im pass@h/d",
    ],
)
def test_no_message_has_the_password(
    url: str, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for option in ("--storage", "--storag", "--Storage"):
        with pytest.raises(SystemExit) as exit:
            main(["worker", "--study", "toy", option, url])
        out, err = capfd.readouterr()
        assert exit.value.code == 2
        assert err.count("\n") == 1
        assert PASSWORD not in out + err


def test_a_crash_shows_no_password(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(STORAGE_VARIABLE, f"postgresql://me:{PASSWORD}@host/db")
    try:
        raise OSError(f"no server for user=me password='{PASSWORD}'")
    except OSError as error:
        print_crash(type(error), error, error.__traceback__)
    said = capfd.readouterr().err
    assert said.startswith("Traceback")
    assert said.endswith("OSError: no server for user=me password='***'\n")


def test_workers_get_the_url_by_their_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url, started = f"sqlite:///{tmp_path}/x.db?a={PASSWORD}", list[Any]()
    monkeypatch.setattr(process, "Popen", lambda command, env, **_: started.append((command, env)))
    monkeypatch.setattr(sys, "argv", ["qstudy", "sweep", "--storage", url])
    ThisMachine().start(job_of(SimpleNamespace(config=make_config(), folder=tmp_path), url))
    ((command, environment),) = started
    assert environment.pop(STORAGE_VARIABLE) == url
    assert PASSWORD not in str((command, environment))


def test_nothing_of_a_study_has_the_password(corpus: Path, tmp_path: Path) -> None:
    """Of a whole sweep, with W&B: no file, and no argument of a process that it starts."""
    grid = {"policy": {"name": "ptq", "layers": {"*": {"weight": [4]}}}}
    base = to_dict(run_config(corpus, tmp_path, track=True, training={"steps": 2}))
    (tmp_path / "study.yaml").write_text(yaml.safe_dump({"study": "toy", "base": base, "grid": grid}))
    url = f"sqlite:///file:study.db?uri=true&password={PASSWORD}"  # SQLite ignores what it does not know
    command = [sys.executable, "-m", "qstudy", "sweep", "study.yaml", "--storage", url]
    home = dict.fromkeys(("WANDB_DATA_DIR", "WANDB_CACHE_DIR", "WANDB_CONFIG_DIR", "TMPDIR"), "home")
    (tmp_path / "home").mkdir()
    environment = {**os.environ, **home, "PYTHONPATH": str(Path(__file__).parents[1]), "OMP_NUM_THREADS": "1"}
    environment.pop("WANDB_SERVICE", None)  # of a run that an earlier test made in this process: it has its wandb-core
    arguments: set[str] = set()
    with (tmp_path / "output.txt").open("wb") as output:
        process = subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=output, stderr=output)
        while process.poll() is None:
            arguments |= arguments_below(process.pid)
            time.sleep(0.05)
    assert process.returncode == 0, (tmp_path / "output.txt").read_text()
    assert any("wandb-core" in argument for argument in arguments)
    assert not any(PASSWORD in argument for argument in arguments)
    files = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert not [path for path, content in files.items() if PASSWORD.encode() in content]
    tracked = [content for path, content in files.items() if path.suffix == ".wandb"]
    assert len(tracked) == 4  # the float baseline by itself and in the study, the trial, the study
    assert all(b"***" in content for content in tracked)
    (record,) = [content for path, content in files.items() if path.match("runs/*/record.json")]
    assert b"qstudy sweep study.yaml --storage 'sqlite:///file:study.db?***'" in record


def arguments_below(pid: int) -> set[str]:
    """Of all that a process has started, and what that has."""
    found = set[str]()
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):  # it has just ended
            for child in path.read_text().split():
                found |= set(command_line(child, str(pid)).split("\0")) | arguments_below(int(child))
    return found


def command_line(pid: str, parent: str) -> str:
    """Of a process; between its fork and the start of its program, for less than a millisecond, it is its parent's."""
    line = Path(f"/proc/{pid}/cmdline")
    if line.read_text() == Path(f"/proc/{parent}/cmdline").read_text():
        time.sleep(0.02)
    return line.read_text()
