"""The commands `qstudy sweep` and `qstudy worker`."""

import sys
from pathlib import Path

import yaml

from qstudy.errors import UserError
from qstudy.files import write_text
from qstudy.locks import try_lock
from qstudy.sweep.config import StudyConfig, load_study
from qstudy.sweep.pool import run_pool
from qstudy.sweep.queue import Queue
from qstudy.sweep.space import corners, expand
from qstudy.sweep.storage import load, open_storage, open_study
from qstudy.sweep.summary import print_summary
from qstudy.sweep.worker import work
from qstudy.training.record import command
from qstudy.training.run import prepare, price

INTERRUPTED = 130  # exit code after Ctrl-C


def sweep(
    study: Path,
    workers: int = 1,
    storage: str | None = None,
    trials: int | None = None,
    root: Path = Path("studies"),
) -> None:
    """Run a study, or go on with an interrupted one.

    Candidates over budget are told so and cost no training. The study ends when as many trials as it asks for were
    trained; a larger --trials goes on from there, a smaller one ends it earlier.

    Args:
        study: YAML file of the study, e.g. sweeps/quickstart.yaml.
        workers: processes on this machine; cores are divided among them.
        storage: URL of a database that several machines share, e.g. postgresql://user:password@host/name; by default
            the environment variable QSTUDY_STORAGE, or SQLite in the study's folder.
        trials: trials to train; by default what the file says.
        root: folder of all studies.
    """
    if workers < 1:
        raise UserError(f"workers: {workers} must be 1 or more.")
    config = load_study(study, trials)
    check(config)
    folder = root / config.study
    lock = try_lock(folder / ".locks" / "sweep")
    if lock is None:
        raise UserError(
            f"The study {config.study!r} is already running here; wait for it, or add a worker to it with "
            f"`qstudy worker --study {config.study}`."
        )
    with lock:
        try:
            _sweep(config, folder, workers, storage)
        except KeyboardInterrupt as error:
            print(f"\nInterrupted; nothing is lost. Go on with: {command()}", file=sys.stderr)
            raise SystemExit(INTERRUPTED) from error


def worker(study: str, storage: str | None = None, root: Path = Path("studies"), prepare_only: bool = False) -> None:
    """Add one worker to a study that `qstudy sweep` began, on this or any other machine.

    Corpus and float baseline are looked for where the study says (`data`, `cache`), and made if they are missing: share
    those folders among machines, so that all trials start from the same baseline.

    Args:
        study: name of the study.
        storage: URL of its database; by default the environment variable QSTUDY_STORAGE, or the SQLite file in the
            study's folder.
        root: folder of all studies; the runs of this worker go to ROOT/STUDY/runs.
        prepare_only: make what all trials share (corpus, feature cache, float baseline), and end.
    """
    folder = root / study
    database = open_storage(storage, folder, create=False)
    config, handle = load(database, study)
    prepare(config.base_run)
    if prepare_only:
        return
    try:
        work(Queue(handle, database, config, folder), announce=lambda line: print(line, flush=True))
    except KeyboardInterrupt as error:
        print("Interrupted; the trial in flight waits for another worker.", file=sys.stderr)
        raise SystemExit(INTERRUPTED) from error


def check(config: StudyConfig) -> None:
    """Build and price the whole grid and some of the space, so that mistakes show before anything is trained.

    Raises:
        UserError: a field, layer pattern, policy or accelerator that does not exist.
    """
    for name, candidates in (("grid", expand(config.grid)), ("space", corners(config.space))):
        for changes in candidates:
            try:
                config.budgets.costs(price(config.run_of(changes)))
            except UserError as error:
                raise UserError(f"{name}: {changes}: {error}") from error


def _sweep(config: StudyConfig, folder: Path, workers: int, storage: str | None) -> None:
    database = open_storage(storage, folder)
    queue = Queue(open_study(database, config, folder), database, config, folder)
    write_text(folder / "study.yaml", yaml.safe_dump(config.to_dict(), sort_keys=False))
    queue.recover()
    queue.plan()
    if queue.unfinished():
        print(
            f"Study {config.study}: {queue.done()} of {config.wanted} trials done; all of it goes to {folder}.",
            flush=True,
        )
    if workers > 1:
        run_pool(queue, workers, storage)
    elif queue.unfinished():
        prepare(config.base_run)
        work(queue)
    print_summary(config, queue.trials(), folder)
