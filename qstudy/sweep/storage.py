"""Where a study's trials are kept: SQLite in the study's folder, or a database that many machines share."""

import os
import random
import time
import warnings
from contextlib import suppress
from pathlib import Path

import optuna
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import IntegrityError

from qstudy.data.manifest import identity
from qstudy.errors import UserError
from qstudy.secrets import STORAGE_VARIABLE, hide, masked
from qstudy.sweep.config import StudyConfig, study_from_dict
from qstudy.sweep.optuna_internals import kept
from qstudy.sweep.patience import PATIENCE_S, PatientStorage, is_passing, reason
from qstudy.sweep.samplers import make_pruner
from qstudy.sweep.trials import ATTEMPTS, METRICS
from qstudy.training.config import RunConfig

HEARTBEAT_S = 15
GRACE_S = 60
FIRST_S = 20.0  # several who open an empty database make its tables at once: all but one try again, for so long
LOCKED_S = 5  # how long SQLite itself waits for a lock
# a network that has gone is noticed within half a minute
LIBPQ = {"connect_timeout": 10, "keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 3}
CONTENTS = "contents"  # the study's attribute that holds a hash of each of its manifests and of its start file
DEFINITION = "definition"  # the study's attribute that holds its configuration, for workers elsewhere


def open_storage(
    url: str | None,
    folder: Path,
    create: bool = True,
    heartbeat_s: int = HEARTBEAT_S,
    grace_s: int = GRACE_S,
    patient: bool = False,
) -> PatientStorage:
    """Open the database of a study.

    Args:
        url: of a database, e.g. `postgresql://user:password@host/name`; None: the environment variable QSTUDY_STORAGE,
            or else SQLite at `folder/study.db`.
        folder: the study's folder.
        create: make the SQLite file if there is none.
        heartbeat_s: seconds between the heartbeats of a running trial.
        grace_s: seconds without a heartbeat after which a trial on another machine is taken to be dead.
        patient: wait for a database that is away; who typed its URL would rather know at once.

    Raises:
        UserError: the database cannot be reached or its driver is missing.
    """
    url = url or os.environ.get(STORAGE_VARIABLE) or sqlite_url(folder / "study.db")
    if (file := _file_of(url)) is not None:
        _require_file(file, create)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    begun = time.monotonic()
    while True:
        waited = time.monotonic() - begun
        try:
            return _connect(make_url(url), heartbeat_s, grace_s)
        except Exception as error:  # drivers raise what they like about a URL that they do not
            away = patient and is_passing(error) and waited < PATIENCE_S
            if not away and not (_is_made_elsewhere(error) and waited < FIRST_S):
                said = "its port is not a number" if isinstance(error, ValueError) else hide(reason(error), url)
                raise UserError(f"storage: {masked(url)} cannot be opened: {said}.") from error
        time.sleep(0.1 + random.random() / 2)


def _is_made_elsewhere(error: Exception) -> bool:
    """Whether a table or one of its first rows came to be, or still does, while we made the same."""
    said = reason(error)
    return isinstance(error, IntegrityError) or "already exists" in said or "is locked" in said


def _file_of(url: str) -> Path | None:
    """The file of an SQLite database; None: it is none, or one in memory."""
    with suppress(Exception):  # opening it says what is wrong with a URL
        made = make_url(url)
        if made.get_backend_name() == "sqlite" and made.database and not made.database.startswith((":", "file:")):
            return Path(made.database)
    return None


def _require_file(file: Path, create: bool) -> None:
    """Raise UserError unless the file is there or may be made; a look would else make an empty one."""
    if not create and not file.exists():
        raise UserError(f"storage: there is no {file}; begin the study with `qstudy sweep`, or give its --storage.")
    file.parent.mkdir(parents=True, exist_ok=True)


def sqlite_url(file: Path) -> str:
    """Of a file whose path may hold what means something in a URL."""
    return URL.create("sqlite", database=str(file)).render_as_string()


def _connect(url: URL, heartbeat_s: int, grace_s: int) -> PatientStorage:
    if url.drivername in ("postgresql", "postgres"):
        url = url.set(drivername="postgresql+psycopg")
    sqlite = url.get_backend_name() == "sqlite"
    known = LIBPQ if url.get_driver_name().startswith("psycopg") else {}
    arguments = {"timeout": LOCKED_S} if sqlite else {name: known[name] for name in known if name not in url.query}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)  # heartbeats
        storage = PatientStorage(
            url.render_as_string(hide_password=False),
            engine_kwargs={"connect_args": arguments, "pool_pre_ping": not sqlite},
            heartbeat_interval=heartbeat_s,
            grace_period=grace_s,
        )
    if sqlite:
        with storage.engine.connect() as connection:
            connection.exec_driver_sql("PRAGMA journal_mode=WAL")  # readers do not wait for writers
    return storage


def open_study(storage: PatientStorage, config: StudyConfig, folder: Path) -> optuna.Study:
    """Open a study in the storage, or make it; what it is must not have changed since its first trial.

    Raises:
        UserError: the storage holds another study under this name, or the folder holds the runs of a lost one.
    """
    study = optuna.create_study(
        storage=storage,
        study_name=config.study,
        directions=["minimize"] * len(config.objectives),
        pruner=_pruner(config),
        load_if_exists=True,
    )
    begun = any(ATTEMPTS in kept(trial) for trial in study.get_trials(deepcopy=False))
    if not begun and any(folder.glob("runs/*")):
        raise UserError(f"{folder / 'runs'} holds runs that are not in the storage; move or remove it.")
    if begun and (changed := config.differences(study_from_dict(study.user_attrs[DEFINITION]))):
        raise UserError(
            f"The study {config.study!r} was begun with another {' and '.join(changed)}; give the new one its own "
            f"name in the field `study` (with --known '[{folder}]' it takes what was trained already), or remove "
            f"{folder} (and the study in its storage, if that is elsewhere)."
        )
    before = study.user_attrs.get(DEFINITION)
    if not begun and before is not None and config.differences(study_from_dict(before)):
        optuna.delete_study(study_name=config.study, storage=storage)  # planned only: plan anew
        return open_study(storage, config, folder)
    study.set_user_attr(DEFINITION, config.to_dict())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        study.set_metric_names([METRICS.get(name, name) for name in config.objectives])
    return study


def require_same_data(study: optuna.Study, run: RunConfig) -> None:
    """Note what a study's files hold when it begins; later, raise UserError if one is another than then.

    Copies are the same, on whatever machine. Trials of several sets in one table would be compared with each other.
    """
    named = {"train": run.data.train, "dev": run.data.dev, **run.data.test}
    now = {f"data: {name}": [path, identity(Path(path))] for name, path in named.items()}
    if run.start_file is not None and run.start_file.exists():
        now["start"] = [str(run.start_file), str(run.start_identity)]
    then = study.user_attrs.get(CONTENTS)
    if then is None:
        study.set_user_attr(CONTENTS, now)
        return
    for field, (path, content) in now.items():
        if field in then and then[field][1] != content:
            raise UserError(
                f"{field}: {path} is not what it was when the study {study.study_name!r} was begun; put it back, or "
                "give the study with the new one its own name."
            )


def _pruner(config: StudyConfig) -> optuna.pruners.BasePruner:
    first = config.evaluate_every if config.pruning else 0
    return make_pruner(config.pruning, first or 1)


def load(storage: PatientStorage, name: str) -> tuple[StudyConfig, optuna.Study]:
    """A study that someone began.

    Raises:
        UserError: there is none of this name.
    """
    try:
        study = optuna.load_study(study_name=name, storage=storage)
        config = study_from_dict(study.user_attrs[DEFINITION])
    except KeyError as error:
        known = ", ".join(study.study_name for study in storage.get_all_studies()) or "none"
        raise UserError(
            f"study: {name!r} is not in this storage (there: {known}); begin it with `qstudy sweep`."
        ) from error
    study.pruner = _pruner(config)
    return config, study
