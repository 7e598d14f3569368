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
        names = {name.split(".")[1] for name in imported(path) if name != "qstudy.__version__"}
        found.setdefault(own, set()).update(names - {own})
    return found


def files(folder: str) -> dict[str, set[str]]:
    """Module of a folder -> those of the same folder that it imports, within functions too."""
    paths = {module(path): path for path in (PACKAGE / folder).rglob("*.py")}

    def known(name: str) -> str:
        return name if name in paths else name.rpartition(".")[0]

    return {own: {known(name) for name in imported(path)} & set(paths) - {own} for own, path in paths.items()}


def module(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")


def imported(path: Path) -> Iterator[str]:
    """Modules of the package, and names in them."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        yield from (name for name in names if name.startswith("qstudy."))


def test_no_folder_imports_what_imports_it() -> None:
    order = list(TopologicalSorter(rooms()).static_order())  # a CycleError names the folders
    assert order.index("hardware") < order.index("quant") < order.index("model") < order.index("recognize")
    assert order.index("recognize") < order.index("training") < order.index("sweep") < order.index("commands")


def test_no_file_of_the_model_imports_what_imports_it() -> None:
    order = list(TopologicalSorter(files("model")).static_order())  # a CycleError names the files
    assert (
        order.index("qstudy.model.encoders.base") < order.index("qstudy.model.encoders") < order.index("qstudy.model")
    )
