"""A study from beginning to end: checked, then worked on by one process or several, then summed up."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from tqdm import tqdm

from qstudy.errors import INCOMPLETE, INTERRUPTED, UserError
from qstudy.files import write_text
from qstudy.locks import try_lock
from qstudy.sweep.board import Board
from qstudy.sweep.config import StudyConfig
from qstudy.sweep.forecast import print_forecast
from qstudy.sweep.known import has_known, keep_known
from qstudy.sweep.launchers.base import Launcher
from qstudy.sweep.lifeline import end_with_parent, stoppable
from qstudy.sweep.planning import retry_failed
from qstudy.sweep.pool import run_pool
from qstudy.sweep.queue import SWEEP_LOCK, Queue
from qstudy.sweep.screening.allocations import Allocations
from qstudy.sweep.screening.screen import screen_of
from qstudy.sweep.space import corners
from qstudy.sweep.storage import load, open_storage, open_study, require_same_data
from qstudy.sweep.summary import is_incomplete, print_summary
from qstudy.sweep.trials import SCREENED
from qstudy.sweep.worker import work
from qstudy.training.assets import open_assets
from qstudy.training.environment import command
from qstudy.training.price import price
from qstudy.training.run import prepare
from qstudy.training.start import require_fitting

LOOK_S = 0.5
"""A look at a study (`qstudy status`) holds its lock for a moment, which is no sweep."""


def check(config: StudyConfig) -> None:
    """Build and price the whole grid and every value of the space, so that mistakes show before anything is trained.

    Values of the space that do not go together with each other are told of when the sampler proposes them.

    Raises:
        UserError: a field, layer pattern, policy or accelerator that does not exist, a start file that does not fit, an
            objective that a candidate has no value of, a policy whose widths cannot be screened.
    """
    for name, candidates in (("grid", config.combinations.changes), ("space", corners(config.space))):
        for changes in tqdm(candidates, desc=f"checking the {name}", leave=False, disable=None):
            try:
                _check_candidate(config, changes)
            except UserError as error:
                raise UserError(f"{name}: {changes}: {error}") from error
    if config.screening:
        Allocations(config).require_switchable()


def _check_candidate(config: StudyConfig, changes: Mapping[str, Any]) -> None:
    run = config.run_of(changes)
    known = {"wer", *config.budgets.costs(price(run))}
    if unknown := [name for name in config.objectives if name not in known]:
        raise UserError(
            f"objectives: {unknown[0]} is unknown, because no rate is set for some layer of the model; set one, or "
            "choose another objective."
        )
    if run.start_file is not None and run.start_file.exists() and {"model", "features", "start"} & set(changes):
        require_fitting(run.start_file, run)  # only those that vary: the base's is read anyway


def run_study(
    config: StudyConfig,
    folder: Path,
    launcher: Launcher,
    workers: int | None = None,
    storage: str | None = None,
    prepare_only: bool = False,
    retry: bool = False,
    known: Sequence[str] = (),
) -> None:
    """Run a study in its folder, or go on with it, until as many trials as it asks for were trained.

    Args:
        config: the study.
        folder: where its runs go.
        launcher: where its workers run.
        workers: how many; None: as many as the launcher has places.
        storage: URL of its database; None: as `open_storage`.
        prepare_only: plan it and make what all trials share, for workers that others start.
        retry: put the trials that failed or were given up back into the queue.
        known: records whose runs need not be trained again (`qstudy.sweep.known.of_trained`).

    Raises:
        UserError: it runs already on this machine, or it was begun with other fields.
        SystemExit: it was interrupted (130); trials were given up, or nothing worked (3).
    """
    lock = try_lock(folder / SWEEP_LOCK, LOOK_S)
    if lock is None:
        raise UserError(
            f"The study {config.study!r} is already running here; wait for it, or add a worker to it with "
            f"`{_worker(config.study, folder)}`."
        )
    with lock, stoppable():
        try:
            queue = _planned(config, folder, storage, retry, known)
            if prepare_only:
                _prepare(queue)
                same = " and the same --storage" if storage else ""
                print(f"Add workers with: {_worker(config.study, folder)}{same}")
            else:
                _sweep(queue, launcher, workers, storage)
        except KeyboardInterrupt as error:
            print(f"\nInterrupted; nothing is lost. Go on with: {command()}", file=sys.stderr)
            raise SystemExit(INTERRUPTED) from error


def _worker(study: str, folder: Path) -> str:
    """The command that adds a worker to a study."""
    root = "" if folder.parent == Path("studies") else f" --root {folder.parent}"
    return f"qstudy worker --study {study}{root}"


def join_study(study: str, folder: Path, storage: str | None, prepare_only: bool) -> None:
    """Work on a study that someone began; `prepare_only`: only make what all of its trials share.

    Raises:
        UserError: the storage does not know the study.
        SystemExit: it was interrupted.
    """
    of_a_pool = end_with_parent()
    with stoppable():
        try:
            database = open_storage(storage, folder, create=False, patient=of_a_pool)
            config, handle = load(database, study)
            queue = Queue(handle, database, config, folder)
            _prepare(queue)
            if not prepare_only:
                work(queue, announce=lambda line: print(line, flush=True))
        except KeyboardInterrupt as error:
            print("Interrupted; the trial in flight waits for another worker.", file=sys.stderr)
            raise SystemExit(INTERRUPTED) from error


def _prepare(queue: Queue) -> None:
    """Make what all trials share, here, and for all machines the list of those to train first.

    Where records came along, perhaps nothing has to start from the float baseline: what does makes it on first use.
    """
    config = queue.config
    for run in config.repeats(config.base_run):
        (prepare if config.needs_baseline and not has_known(queue.folder) else open_assets)(run)
    require_same_data(queue.study, config.base_run)
    if config.screening and SCREENED not in queue.study.user_attrs:
        queue.study.set_user_attr(SCREENED, screen_of(config, queue.folder).ranked())


def _planned(config: StudyConfig, folder: Path, storage: str | None, retry: bool, known: Sequence[str]) -> Queue:
    """The study's queue with all trials that it asks for; about how long they take is printed."""
    database = open_storage(storage, folder)
    study = open_study(database, config, folder)  # it refuses another study of this name before anything changes
    if retry:
        print(f"{database.patiently(lambda: retry_failed(database, config.study))} failed trials wait again.")
        study = open_study(database, config, folder)
    keep_known(folder, known)
    queue = Queue(study, database, config, folder)
    write_text(folder / "study.yaml", yaml.safe_dump(config.to_dict(), sort_keys=False))
    queue.recover()
    queue.plan()
    if queue.unfinished():
        print_forecast(config, folder, queue.done())
    return queue


def _sweep(queue: Queue, launcher: Launcher, workers: int | None, storage: str | None) -> None:
    with launcher, Board(queue) as board:
        if count := launcher.workers(workers, queue.one_machine):
            run_pool(queue, launcher, count, storage, board.show)
        elif queue.unfinished():
            _prepare(queue)
            work(queue, announce=board.tell)
    print_summary(queue.config.study, queue.trials(), queue.folder)
    if is_incomplete(queue.trials()):
        raise SystemExit(INCOMPLETE)
