"""What `import qstudy` offers: every name lies where it is said to be, its example runs, and nothing comes early."""

import ast
import doctest
import inspect
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import qstudy
from qstudy.errors import UserError

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


@pytest.mark.parametrize(
    ("audio", "said"),
    [
        (torch.zeros(16000, dtype=torch.int16), r"torch.int16 of shape \(16000,\).* divided by 32768"),
        (torch.zeros(2, 16000), r"shape \(2, 16000\); give one channel"),
        (torch.full((16000,), torch.nan), "not finite"),
        ([0.0] * 16000, "list is neither a file nor a tensor"),
    ],
    ids=["integers", "stereo", "NaN", "a list"],
)
def test_samples_that_are_none_are_refused(audio: Any, said: str) -> None:
    with pytest.raises(UserError, match=f"audio: .*{said}"):
        qstudy.transcribe(ROOT / "sweeps/base/commands.qst", audio)


def test_a_file_of_another_kind_is_not_said_to_be_damaged(tmp_path: Path) -> None:
    """Nor that it be removed."""
    file = tmp_path / "model.bin"
    file.write_bytes((ROOT / "sweeps/base/commands.qst").read_bytes())
    with pytest.raises(UserError, match=r"is not a checkpoint of a run.*name a .ckpt file, a packed model \(.qst\)"):
        qstudy.simulate(file)
