"""All that we take from inside Optuna; nothing else here or elsewhere in the project touches what it does not document.

Why anything at all: trials are planned by the thousand in one transaction, and put back into the queue under the number
and the parameters that they have, which Optuna's public interface cannot (`enqueue_trial` is a transaction each, and a
dead worker's trial is failed and copied). `tests/test_optuna_internals.py` fails when Optuna changes one of these.
"""

from typing import Any

import optuna
from optuna.storages import RDBStorage
from optuna.storages._rdb.models import StudyModel, TrialModel, TrialSystemAttributeModel, TrialUserAttributeModel
from optuna.trial import FrozenTrial
from sqlalchemy import Table

studies: Table = StudyModel.__table__
trials: Table = TrialModel.__table__
system_attributes: Table = TrialSystemAttributeModel.__table__
user_attributes: Table = TrialUserAttributeModel.__table__

TRANSACTIONS = ("_create_new_trial", "_set_trial_param", "_get_trials", "_get_best_trial_id", "_get_stale_trial_ids")
"""Undocumented methods of a storage that Optuna itself calls, each one transaction."""
DASHBOARD = "constraints"
"""System attribute with all constraints in a list, under which dashboards (optuna-dashboard 0.21) look for them;
`Trial.set_constraint` keeps each under a name of its own."""


def study_id(study: optuna.Study) -> int:
    """The key of a study in its storage."""
    return study._study_id


def trial_id(trial: optuna.Trial | FrozenTrial) -> int:
    """The key of a trial in its storage."""
    return trial._trial_id


def silent_trials(storage: RDBStorage, study: optuna.Study) -> set[int]:
    """Keys of the running trials whose heartbeats have stopped for longer than the storage's grace period."""
    return set(storage._get_stale_trial_ids(study._study_id))


def kept(trial: optuna.Trial | FrozenTrial) -> dict[str, Any]:
    """What `keep` has noted of a trial; studies of older versions have it among the user attributes."""
    if isinstance(trial, FrozenTrial):
        return {**trial.user_attrs, **trial.system_attrs}
    return {**trial.user_attrs, **trial.storage.get_trial_system_attrs(trial._trial_id)}


def keep(trial: optuna.Trial, name: str, value: Any) -> None:
    """Note something of a trial that is nobody's business: as a system attribute, apart from those of users."""
    trial.storage.set_trial_system_attr(trial._trial_id, name, value)


def constrain(trial: optuna.Trial, name: str, excess: float) -> None:
    """Set a named constraint (above 0: violated), unless it is set: a trial that is continued has its constraints.

    Dashboards get all of them once more. Samplers then add every excess up twice, which leaves their order as it is.
    """
    if name in trial.constraints:
        return
    trial.set_constraint(name, excess)
    named = {key: value for key, value in trial.constraints.items() if not key.isdigit()}
    keep(trial, DASHBOARD, [named[key] for key in sorted(named)])
