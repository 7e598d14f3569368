"""Parts chosen by name in YAML: short names, import paths, and what is said when neither fits."""

import sys
from pathlib import Path
from typing import Any

import pytest

from qstudy.errors import UserError
from qstudy.named import build


def box(size: int, color: str = "red") -> tuple[int, str]:
    return size, color


def test_options_and_given_arguments() -> None:
    assert build({"name": "box", "size": 2}, {"box": box}, "part") == (2, "red")
    assert build({"name": "box", "color": "blue"}, {"box": box}, "part", 3) == (3, "blue")


@pytest.mark.parametrize(
    ("config", "named"),
    [
        ({"name": "bag"}, ["part", "'bag'", "box", "import path"]),
        ({}, ["part", "None", "box"]),
        ({"name": 3}, ["part", "3", "box"]),
        ({"name": "box"}, ["part", "'box'", "size", "color"]),
        ({"name": "box", "size": 1, "colour": "red"}, ["part", "'box'", "colour", "size, color"]),
        ({"name": "nowhere_at_all.Box"}, ["part", "'nowhere_at_all.Box'", "box"]),
        ({"name": "pathlib.Box"}, ["part", "'pathlib.Box'", "box"]),
    ],
    ids=str,
)
def test_errors_name_field_and_choices(config: dict[str, Any], named: list[str]) -> None:
    with pytest.raises(UserError) as error:
        build(config, {"box": box}, "part")
    assert all(word in str(error.value) for word in named)


def test_a_class_in_the_users_own_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_boxes.py").write_text(
        "class Round:\n    def __init__(self, size, lid=True):\n        self.size = size\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    assert build({"name": "my_boxes.Round", "size": 4}, {"box": box}, "part").size == 4
    with pytest.raises(UserError, match="size, lid"):
        build({"name": "my_boxes.Round", "width": 4}, {"box": box}, "part")


def test_the_given_arguments_are_no_options() -> None:
    with pytest.raises(UserError, match=r"its options are color\.$"):
        build({"name": "box", "lid": 1}, {"box": box}, "part", 3)
