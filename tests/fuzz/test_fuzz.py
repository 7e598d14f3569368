"""A short form of the fuzzers, `make fuzz` is the long one; and what the fuzzers must notice."""

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from .case import Attempt, Case
from .kinds import KINDS
from .runner import bench, cases, report
from .server import Outcome, Server
from .verdict import MOST_BYTES, judge

CASES, SEED = 36, 0
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the server forks, and limits what it forked")


def test_bad_files_and_options_are_refused(tmp_path: Path) -> None:
    """In one test, because the process that runs them takes seconds to start."""
    with bench(tmp_path) as ready:
        tally = ready.tally(cases(KINDS, CASES, SEED))
    assert not tally.findings, "\n" + report(tally)
    assert tally.refused.total() > CASES / 3  # they did reach what reads them


# What the fuzzers notice


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("server"), limit_s=2.0, imports=()) as ready:
        yield ready


def verdict(outcome: Outcome, folder: Path, **attempt: object) -> str | None:
    found = judge(Case("packed", 0), replace(Attempt([], "a change"), **attempt), outcome, folder)  # type: ignore[arg-type]
    return found.verdict if found else None


TRAPS = {
    "fine": None,
    "refuses": None,
    "raises": "traceback",
    "hangs": "hang",
    "crashes": "crash",
    "shell": "code run",
    "process": "code run",
    "module": "code run",
    "makes": "code run",
    "strays": "wrote outside",
}


@pytest.mark.parametrize(("trap", "expected"), TRAPS.items())
def test_traps(server: Server, trap: str, expected: str | None) -> None:
    folder = server.folder / trap / "a" / "b" / "c"
    folder.mkdir(parents=True)
    outcome = server.run(["x"], folder, f"tests.fuzz.traps:{trap}")
    assert verdict(outcome, folder) == expected, outcome
    assert not list(folder.rglob("fuzz_canary")) or trap == "makes"


def test_nothing_is_written_elsewhere(server: Server, tmp_path: Path) -> None:
    folder = server.folder / "escapes"
    folder.mkdir()
    outcome = server.run([str(tmp_path / "victim")], folder, "tests.fuzz.traps:escapes")
    assert "PermissionError" in outcome.err
    assert not list(tmp_path.iterdir())


REFUSED = Outcome(2, "", "qstudy: a.wav: rate: 0 is not above 0; mend it.\n", 0.1, 0, [], timed_out=False)


@pytest.mark.parametrize(
    ("changes", "attempt", "expected"),
    [
        ({}, {"invalid": True, "named": "a.wav"}, None),
        ({}, {"valid": True}, "false refusal"),
        ({}, {"named": "b.wav"}, "message"),
        ({"err": "qstudy: one line,\nand another.\n"}, {}, "message"),
        ({"err": "qstudy: a list follows.\n  a.wav:1: broken\n"}, {}, None),
        ({"err": "qstudy: \x1b[31mred.\n"}, {}, "message"),
        ({"err": "qstudy: set weights_only=False.\n"}, {}, "message"),
        ({"err": ""}, {}, "message"),
        ({"code": 0, "err": ""}, {"invalid": True}, "silent acceptance"),
        ({"code": 0, "err": ""}, {}, None),
        ({"code": 3}, {}, "traceback"),
        ({"grown_bytes": MOST_BYTES + 1}, {}, "memory"),
    ],
)
def test_verdicts(changes: dict[str, object], attempt: dict[str, object], expected: str | None, tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b" / "c"
    folder.mkdir(parents=True)
    assert verdict(replace(REFUSED, **changes), folder, **attempt) == expected  # type: ignore[arg-type]


MARKUP = {
    "index.html": "<p><script>fuzz_canary()</script>",
    "a.tex": r"\input{fuzz_canary}",
    "a.csv": "a,=F(fuzz_canary)",
}


@pytest.mark.parametrize(("name", "text"), MARKUP.items())
def test_markup_that_would_run(name: str, text: str, tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b" / "c"
    folder.mkdir(parents=True)
    (folder / name).write_text(text)
    assert verdict(replace(REFUSED, code=0), folder) == "code run"
