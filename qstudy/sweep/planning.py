"""Changes to a study's list of trials that happen as a whole, while nobody else plans it, here or elsewhere."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import Connection, delete, func, insert, select, update
from tqdm import tqdm

from qstudy.sweep.optuna_internals import studies, system_attributes, trial_id, trials, user_attributes
from qstudy.sweep.trials import ATTEMPTS, FAILED, OUTCOME

AT_ONCE = 100  # trials per statement


class Plan:
    """What one planner adds and drops; the trials' numbers go on where those of the study end."""

    def __init__(self, connection: Connection, study_id: int) -> None:
        self._connection = connection
        self._study_id = study_id

    def add(self, waiting: Sequence[Mapping[str, Any]]) -> None:
        """Add a trial that waits for every mapping, which is what is kept of it (`optuna_internals.kept`)."""
        mine = trials.c.study_id == self._study_id
        first = self._connection.execute(select(func.count()).where(mine)).scalar_one()
        with tqdm(total=len(waiting), desc="planning", unit="trial", leave=False, disable=None) as bar:
            for begin in range(0, len(waiting), AT_ONCE):
                part = dict(enumerate(waiting[begin : begin + AT_ONCE], first + begin))
                new = {"study_id": self._study_id, "state": TrialState.WAITING}
                self._connection.execute(insert(trials), [{**new, "number": number} for number in part])
                numbered = select(trials.c.trial_id, trials.c.number).where(mine, trials.c.number >= first + begin)
                rows = [
                    {"trial_id": key, "key": name, "value_json": json.dumps(value)}
                    for key, number in self._connection.execute(numbered)
                    for name, value in part[number].items()
                ]
                if rows:
                    self._connection.execute(insert(system_attributes), rows)
                bar.update(len(part))

    def drop(self, unwanted: Sequence[FrozenTrial], **why: str) -> None:
        """End trials as PRUNED that still wait, with these user attributes; who has just begun goes on."""
        for key in map(trial_id, unwanted):
            waits = (trials.c.trial_id == key) & (trials.c.state == TrialState.WAITING)
            end = {"state": TrialState.PRUNED, "datetime_complete": datetime.now(UTC).replace(tzinfo=None)}
            if self._connection.execute(update(trials).where(waits).values(end)).rowcount:
                rows = [{"trial_id": key, "key": name, "value_json": json.dumps(why[name])} for name in why]
                self._connection.execute(insert(user_attributes), rows)


def retry_failed(storage: RDBStorage, study: str) -> int:
    """Put a study's trials that failed or were given up back into the queue, as if just planned; how many there were.

    Open the study anew afterwards: Optuna reads a trial that has ended once only.
    """
    told = user_attributes.c
    mine = select(trials.c.trial_id).join(studies, trials.c.study_id == studies.c.study_id)
    outcome = (told.trial_id == trials.c.trial_id) & (told.key == OUTCOME)
    failed = told.value_json.in_([json.dumps(each) for each in FAILED])
    query = mine.join(user_attributes, outcome).where(studies.c.study_name == study, failed)
    with storage.engine.begin() as connection:
        keys = list(connection.execute(query).scalars())
        again = {"state": TrialState.WAITING, "datetime_start": None, "datetime_complete": None}
        connection.execute(update(trials).where(trials.c.trial_id.in_(keys)).values(again))
        connection.execute(delete(user_attributes).where(told.trial_id.in_(keys), told.key.in_([OUTCOME, "reason"])))
        begun = (system_attributes.c.trial_id.in_(keys)) & (system_attributes.c.key == ATTEMPTS)
        connection.execute(update(system_attributes).where(begun).values(value_json="0"))
    return len(keys)


def count(storage: RDBStorage, study_id: int, states: Sequence[TrialState]) -> int:
    """How many of a study's trials are in these states; without reading the trials, of which there may be thousands."""
    which = (trials.c.study_id == study_id) & trials.c.state.in_(states)
    with storage.engine.connect() as connection:
        return connection.execute(select(func.count()).where(which)).scalar_one()


@contextmanager
def planning(storage: RDBStorage, study_id: int) -> Iterator[Plan]:
    """Plan a study alone; what was planned is there when all of it is, or not at all.

    The study's own row is the lock: written without a change, it is held to the end by every database that has rows,
    and Optuna locks the same one before it adds a trial. What others planned before can be read from here on.
    """
    touch = update(studies).where(studies.c.study_id == study_id).values(study_name=studies.c.study_name)
    with storage.engine.begin() as connection:
        connection.execute(touch)
        yield Plan(connection, study_id)
