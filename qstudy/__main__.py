"""The command `qstudy`, as `python -m qstudy` or by this file's path."""

import sys


def _order_path() -> None:
    """Take the project's packages from here, all else from where it is installed, and last from the working folder.

    Python puts the working folder first, where a `yaml.py` would stand in for what the program needs.
    """
    first = [] if sys.flags.safe_path else [sys.path.pop(0)]
    from pathlib import Path

    sys.path.insert(0, str(Path(__file__).parents[1]))
    import analysis  # noqa: F401
    import qstudy  # noqa: F401

    sys.path[:] = [*sys.path[1:], *first]


if __name__ == "__main__":
    _order_path()
    from qstudy.cli import main

    main()
