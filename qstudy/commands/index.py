"""The command `qstudy index`."""

from pathlib import Path

from analysis.folder import write_report
from analysis.index import index_contents
from analysis.text import counted


def index(reports: Path = Path("reports")) -> None:
    """Make one page over all reports: papers' claims beside our records, and one front over all studies of a task.

    Behind each of its points are a run's configuration and command.

    Args:
        reports: The folder of the reports; `index.html` is written there, of `papers.yaml` and the folders beside it.
    """
    contents = index_contents(reports)
    write_report(reports, contents)
    pictures = sum(name.endswith(".svg") for name in contents)
    print(f"Open {reports / 'index.html'}; {counted(pictures, 'picture')}, tables in {reports}/*.csv, *.md, *.tex.")
