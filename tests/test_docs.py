"""The pages that people read: their links lead somewhere, their commands are understood, their study is one."""

import functools
import importlib
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from qstudy import cli
from qstudy.sweep.config import load_study

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "reports/README.md")]
PAGES += sorted((ROOT / "docs").glob("*.md"))
BLOCK = re.compile(r"^```\w*\n(.*?)^```", re.DOTALL | re.MULTILINE)
OF_ITS_OWN = re.compile(r"my_\w+\.\w+")
"""A class of the user's own; other tests run these commands, with the file beside them."""


def named(page: Path) -> str:
    return str(page.relative_to(ROOT))


def anchors(page: Path) -> set[str]:
    """Of its headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def commands(page: Path) -> Iterator[str]:
    """Lines of blocks and spans of code that call `qstudy`, without remarks, but for patterns (`...`)."""
    text = page.read_text(encoding="utf-8")
    spans = re.findall(r"`(qstudy [^`]*)`", BLOCK.sub("", text))
    for line in [*"\n".join(BLOCK.findall(text)).split("\n"), *spans]:
        if line.startswith("qstudy ") and "..." not in line and not OF_ITS_OWN.search(line):
            yield line


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_links_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\((?!https?:)([^)\s]+)\)", page.read_text(encoding="utf-8"))
    for path, _, anchor in (target.partition("#") for target in targets):
        found = (page.parent / path).resolve() if path else page
        assert found.exists(), path
        assert not anchor or anchor in anchors(found), f"{path}#{anchor}"


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_commands_are_understood(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every printed command reaches its function, with options that it has and configurations that can be read."""
    monkeypatch.chdir(ROOT)
    for line in commands(page):
        _, *arguments = shlex.split(line, comments=True)
        name = " ".join(arguments[:2]) if arguments[0] == "data" else arguments[0]
        if arguments in (["data"], [name]) or arguments[-1] == "--help":
            continue  # a word about it
        assert name in cli.COMMANDS, line
        module, _, attribute = cli.COMMANDS[name].function.partition(":")
        called: list[Any] = []

        @functools.wraps(getattr(importlib.import_module(module), attribute))
        def function(called: list[Any] = called, **values: Any) -> None:
            called.append(values)

        with monkeypatch.context() as patched:
            patched.setattr(f"{module}.{attribute}", function)
            cli.main(arguments)
        assert called, line


def test_all_commands_are_printed_somewhere() -> None:
    printed = " ".join(line for page in PAGES for line in commands(page))
    missing = {name for name in cli.COMMANDS if f"qstudy {name} " not in f"{printed} " and not name.startswith("data ")}
    assert missing == set()


def test_the_readmes_study(tmp_path: Path) -> None:
    [study] = re.findall(r"```yaml\n(# my_study\.yaml\n.*?)```", PAGES[0].read_text(encoding="utf-8"), re.DOTALL)
    (tmp_path / "my_study.yaml").write_text(study)
    (tmp_path / "sweeps").symlink_to(ROOT / "sweeps")
    config = load_study(tmp_path / "my_study.yaml")
    assert (config.study, config.trials, config.objectives) == ("my_study", 12, ("wer", "size_bytes"))
    policies = [config.run_of(changes).policy["name"] for changes in config.combinations.changes]
    assert policies == ["fake_qat", "fake_qat"]
    assert config.base_run.start == "sweeps/base/commands.qst"
