"""`qstudy status`."""

import json as json_format
from pathlib import Path

from qstudy.files import safe_name


def status(study: str, storage: str | None = None, root: Path = Path("studies"), json: bool = False) -> None:
    """Tell where a study stands: trials done, running, over budget and failed, the best so far, the time left.

    A look changes nothing. The best is one within the budgets: what is over budget is not trained.

    Args:
        study: Its name, or its folder.
        storage: URL of its database; by default the environment variable QSTUDY_STORAGE (better: process lists show a
            command's arguments to everyone on the machine), or the SQLite file in the study's folder.
        root: Folder of all studies.
        json: Print JSON, with every trial on the Pareto front.
    """
    from qstudy.sweep.status import print_status, read_status

    folder = Path(study) if Path(study).is_dir() else root / safe_name(study, "study")
    found = read_status(folder.resolve().name, folder, storage)
    if json:
        print(json_format.dumps(found.to_dict(), indent=2))
    else:
        print_status(found)
