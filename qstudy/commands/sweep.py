"""`qstudy sweep`."""

from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Annotated, Any

from annotated_types import Ge, Le

from qstudy.errors import naming
from qstudy.fields import checked
from qstudy.files import require_other

Workers = Annotated[int, Ge(1), Le(1024)]


def sweep(
    study: Path,
    workers: int | None = None,
    storage: str | None = None,
    trials: int | None = None,
    root: Path = Path("studies"),
    fresh: bool = False,
    known: list[Path] | None = None,
    launcher: str = "local",
    address: str | None = None,
    prepare_only: bool = False,
    retry: bool = False,
) -> None:
    """Run a study, or go on with an interrupted one.

    Candidates over budget are recorded as such and cost no training. The study ends when as many trials as it asks for
    were trained; a larger --trials goes on from there, a smaller one ends it earlier.
    A database that is away is waited for, for a minute; workers that crash are replaced, and all end with this command.
    Exit code 3: trials were given up, because their process died again and again, or all failed.

    Args:
        study: YAML file of the study, e.g. sweeps/quickstart.yaml.
        workers: Processes, each with a GPU of its own where there are any; cores are divided among them. By default one
            per GPU, or one per machine.
        storage: URL of a database that several machines share, e.g. postgresql://user:password@host/name; by default
            the environment variable QSTUDY_STORAGE (better: process lists show a command's arguments to everyone on
            the machine), or SQLite in the study's folder.
        trials: Trials to train; by default what the file says.
        root: Folder of all studies.
        fresh: Train the float baseline, instead of starting from the model file that the study names (`start`).
        known: Folders of reports or of studies, e.g. '[reports/native_qat]': trials whose records are there take them,
            and are not trained again; their models stay where they are. A later call need not name them. Records name
            their sets by path: that these hold what they held is for you to know.
        launcher: Where workers run: `local`, this machine; `ray`, a Ray cluster, whose nodes have qstudy and share this
            folder; or the import path of your own (`qstudy.sweep.launchers.base.Launcher`).
        address: Of what the launcher uses; `ray`: HOST:PORT of the cluster, by default a new one on this machine alone.
        prepare_only: Plan the study and make what all trials share (corpus, feature cache, float baseline), and end;
            `qstudy worker` does the rest, on as many machines as you like.
        retry: Trials that failed or were given up wait again, to go on at their checkpoints: once what is to blame (a
            full GPU, a mistake in code of your own) is mended.
    """
    checked(Workers | None, workers, "workers")
    from qstudy.sweep.config import load_study
    from qstudy.sweep.known import of_trained
    from qstudy.sweep.launchers import build_launcher
    from qstudy.sweep.study import check, run_study
    from qstudy.yaml_file import load_yaml

    places = build_launcher(launcher, address)
    config = load_study(study, trials, fresh)
    if load_yaml(study).keys() != config.to_dict().keys():  # not the study's own copy, which has every field
        require_other(root / config.study / "study.yaml", "--root", study)
    with naming(study):
        check(config)
    records = of_trained(chain.from_iterable(map(_records, known))) if known else []
    if known:
        print(f"Trials that are among {len(records)} in {', '.join(map(str, known))} are not trained again.")
    run_study(config, root / config.study, places, workers, storage, prepare_only, retry, records)


def _records(folder: Path) -> Iterator[dict[str, Any]]:
    """The records of a study or report, of which those that cannot be used are told."""
    from analysis.records import Problem, parsed, read_folder

    problems: list[Problem] = []
    yield from (parsed(read.content) for read in read_folder(folder, problems))
    for problem in problems:
        print(f"{folder}: {problem.source} is left out: {problem.message}.")
