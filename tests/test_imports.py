"""Imports point one way: no folder of the package imports, directly or not, one that imports it."""

import ast
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "qstudy"


def rooms() -> dict[str, set[str]]:
    """Folder or top-level file -> those that it imports, within functions too."""
    found: dict[str, set[str]] = {}
    for path in PACKAGE.rglob("*.py"):
        own = path.relative_to(PACKAGE).with_suffix("").parts[0]
        found.setdefault(own, set()).update(set(imported(path)) - {own})
    return found


def imported(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        yield from (name.split(".")[1] for name in names if name.startswith("qstudy.") and name != "qstudy.__version__")


def test_no_folder_imports_what_imports_it() -> None:
    order = list(TopologicalSorter(rooms()).static_order())  # a CycleError names the folders
    assert order.index("hardware") < order.index("quant") < order.index("model") < order.index("recognize")
    assert order.index("recognize") < order.index("training") < order.index("sweep") < order.index("commands")
