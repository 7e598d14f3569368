"""A study's database that may be away for a moment: what is asked of it waits, within bounds, and says so once."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial, wraps
from typing import Any, TypeVar

from optuna.exceptions import StorageInternalError
from optuna.storages import BaseStorage
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError, PendingRollbackError

from qstudy.errors import UserError
from qstudy.secrets import hide
from qstudy.sweep.lifeline import uninterrupted
from qstudy.sweep.optuna_internals import TRANSACTIONS, QuickStorage

PATIENCE_S = 60.0
QUIET_S = 2.0  # a shorter absence is nobody's business
PAUSE_S = 0.5
OPERATIONS = (
    *sorted(BaseStorage.__abstractmethods__),
    *("get_trial_system_attrs", "get_trial_user_attrs", "get_trial_param", "get_trial_id_from_study_id_trial_number"),
    "record_heartbeat",
    *TRANSACTIONS,
)
"""All that Optuna and the queue ask of a storage; each is one transaction, so that it may be asked again."""

T = TypeVar("T")


class PatientStorage(QuickStorage):
    """Optuna's storage, which asks a database again that is restarted, locked, full or out of reach."""

    patience_s = PATIENCE_S
    _said = False  # that it is away: once, though the heartbeats of a trial wait for it too

    def patiently(self, operation: Callable[[], T]) -> T:
        """The result of `operation`, tried again as long as the database is away, for `patience_s` at most.

        An interruption comes before or after it, not within.

        Raises:
            UserError: it stays away, or it refuses the operation.
        """
        begun = time.monotonic()
        while True:
            try:
                with uninterrupted():
                    result = operation()
                self._said = False
                return result
            except (StorageInternalError, DBAPIError, PendingRollbackError) as error:
                waited, why = time.monotonic() - begun, hide(reason(error), self.url)
                if not is_passing(error):
                    raise UserError(f"The study's storage failed: {why}.") from error
                if waited >= self.patience_s:
                    raise UserError(
                        f"The study's storage has not answered for {waited:.0f} s ({why}); nothing is lost: "
                        "run the same command again to go on."
                    ) from error
                if waited >= QUIET_S and not self._said:
                    self._said = True
                    told = f"The study's storage does not answer ({why}); "
                    print(f"{told}trying again for up to {self.patience_s:.0f} s.", file=sys.stderr, flush=True)
            time.sleep(PAUSE_S)

    @contextmanager
    def without_retries(self) -> Iterator[None]:
        """Within it, nothing is tried twice: on the way out nobody waits for a database."""
        self.patience_s = 0.0
        try:
            yield
        finally:
            del self.patience_s


def is_passing(error: Exception) -> bool:
    """Whether a database's error can pass by itself, unlike a wrong statement.

    A transaction that a restart has broken off is one: it is rolled back on the way here.
    """
    cause = error if isinstance(error, DBAPIError | PendingRollbackError) else error.__cause__
    return isinstance(cause, OperationalError | InterfaceError | PendingRollbackError) or getattr(
        cause, "connection_invalidated", False
    )


def reason(error: BaseException) -> str:
    """What the database itself says, in one line."""
    cause = error.__cause__ if isinstance(error, StorageInternalError) and error.__cause__ else error
    lines = str(getattr(cause, "orig", None) or cause).strip().splitlines()
    return lines[0].strip(" .") if lines else type(cause).__name__


def _patient(name: str) -> Callable[..., Any]:
    inherited = getattr(QuickStorage, name)

    @wraps(inherited)
    def method(self: PatientStorage, *args: Any, **kwargs: Any) -> Any:
        return self.patiently(partial(inherited, self, *args, **kwargs))

    return method


for _name in OPERATIONS:
    setattr(PatientStorage, _name, _patient(_name))
