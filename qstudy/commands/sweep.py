"""`qstudy sweep`."""

from pathlib import Path

from qstudy.errors import UserError


def sweep(
    study: Path,
    workers: int | None = None,
    storage: str | None = None,
    trials: int | None = None,
    root: Path = Path("studies"),
    fresh: bool = False,
) -> None:
    """Run a study, or go on with an interrupted one.

    Candidates over budget are told so and cost no training. The study ends when as many trials as it asks for were
    trained; a larger --trials goes on from there, a smaller one ends it earlier.
    A database that is away is waited for, for a minute; workers that crash are replaced, and all end with this command.
    Exit code 3: trials were given up, because their process died again and again, or all failed.

    Args:
        study: YAML file of the study, e.g. sweeps/quickstart.yaml.
        workers: processes on this machine, each with a GPU of its own where there are any; cores are divided among
            them. By default one per GPU, or one.
        storage: URL of a database that several machines share, e.g. postgresql://user:password@host/name; by default
            the environment variable QSTUDY_STORAGE, or SQLite in the study's folder.
        trials: trials to train; by default what the file says.
        root: folder of all studies.
        fresh: train the float baseline, instead of starting from the model file that the study names (`start`).
    """
    if workers is not None and workers < 1:
        raise UserError(f"workers: {workers} must be 1 or more.")
    from qstudy.sweep.config import load_study
    from qstudy.sweep.study import check, run_study

    config = load_study(study, trials, fresh)
    check(config)
    run_study(config, root / config.study, workers, storage)
