"""What `import qstudy` offers: every name lies where it is said to be, its example runs, and nothing comes early."""

import ast
import doctest
import inspect
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import qstudy

ROOT = Path(qstudy.__file__).parents[1]
FUNCTIONS = [name for name in qstudy.HOMES if name.islower()]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_example_of_each_runs(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    function = getattr(qstudy, name)
    names = {"qstudy": qstudy, "torch": torch}
    (example,) = doctest.DocTestFinder(recurse=False).find(inspect.unwrap(function), name, globs=names)
    assert example.examples
    said: list[str] = []
    doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(example, out=said.append)
    assert not said, "".join(said)


def test_type_checkers_see_the_same_names() -> None:
    tree = ast.parse(Path(qstudy.__file__).read_text())
    (block,) = (each for each in tree.body if isinstance(each, ast.If) and isinstance(each.test, ast.Name))
    imports = [each for each in block.body if isinstance(each, ast.ImportFrom)]
    assert {alias.asname: each.module for each in imports for alias in each.names} == qstudy.HOMES
    assert (Path(qstudy.__file__).parent / "py.typed").exists()


def test_names_are_listed_and_others_refused() -> None:
    assert set(qstudy.HOMES) < set(dir(qstudy))
    with pytest.raises(AttributeError, match="no attribute 'quantise'"):
        _ = qstudy.quantise  # type: ignore[attr-defined]


def test_importing_the_package_imports_little() -> None:
    script = "import sys, qstudy; print(sorted({'torch', 'numpy', 'pydantic', 'yaml', 'pandas'} & set(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT)
    assert run.stdout.strip() == "[]"
