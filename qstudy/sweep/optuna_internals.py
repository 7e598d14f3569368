"""All that we take from inside Optuna; nothing else here or elsewhere in the project touches what it does not document.

Why anything at all: trials are planned by the thousand in one transaction, and put back into the queue under the number
and the parameters that they have, which Optuna's public interface cannot (`enqueue_trial` is a transaction each, and a
dead worker's trial is failed and copied). `tests/test_optuna_internals.py` fails when Optuna changes one of these.
"""

import json
from collections.abc import Container, Iterable
from functools import lru_cache
from typing import Any

import optuna
from optuna.distributions import json_to_distribution
from optuna.storages import RDBStorage
from optuna.storages._rdb.models import (
    StudyModel,
    TrialIntermediateValueModel,
    TrialModel,
    TrialParamModel,
    TrialSystemAttributeModel,
    TrialUserAttributeModel,
    TrialValueModel,
)
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import Connection, Table, select

studies: Table = StudyModel.__table__
trials: Table = TrialModel.__table__
system_attributes: Table = TrialSystemAttributeModel.__table__
user_attributes: Table = TrialUserAttributeModel.__table__
parameters: Table = TrialParamModel.__table__
values: Table = TrialValueModel.__table__
intermediate_values: Table = TrialIntermediateValueModel.__table__

TRANSACTIONS = ("_create_new_trial", "_set_trial_param", "_get_trials", "_get_best_trial_id", "_get_stale_trial_ids")
"""Undocumented methods of a storage that Optuna itself calls, each one transaction."""
COLUMNS = ("trial_id", "number", "state", "datetime_start", "datetime_complete")
MANY = 500
"""Trials whose keys a statement names one by one, at most."""
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


class QuickStorage(RDBStorage):
    """Optuna's storage, whose trials are read as rows: without an object for each of them, and each planned one once.

    Optuna reads all trials behind the last one that has ended again and again, several times per trial. Of a study that
    was planned by the thousand these are thousands, in which nothing can have changed before they are begun.
    """

    _planned: dict[int, int]
    """Study -> the largest key of its trials that were read; in the order of keys they are planned."""

    def _get_trials(
        self,
        study_id: int,
        states: Container[TrialState] | None,
        included_trial_ids: set[int],
        trial_id_greater_than: int,
    ) -> list[FrozenTrial]:
        """Those with a larger key, and those included; not those that still wait to be begun and were read before."""
        known = vars(self).setdefault("_planned", {})
        included = [key for key in included_trial_ids if key <= trial_id_greater_than]
        wanted = trials.c.trial_id > trial_id_greater_than
        wanted = wanted | trials.c.trial_id.in_(included) if included else wanted
        untouched = (trials.c.state == TrialState.WAITING) & trials.c.datetime_start.is_(None)
        if trial_id_greater_than > -1:
            wanted &= ~(untouched & (trials.c.trial_id <= known.get(study_id, -1)))
        if states is not None:
            wanted &= trials.c.state.in_([state for state in TrialState if state in states])
        with self.engine.connect() as connection:
            if not connection.execute(select(studies.c.study_id).where(studies.c.study_id == study_id)).first():
                raise KeyError(study_id)
            found = _frozen(connection, select(trials).where(trials.c.study_id == study_id, wanted))
        # who reads from the beginning has a study that may be new, with the keys of one that was deleted
        before = known.get(study_id, -1) if trial_id_greater_than > -1 else -1
        known[study_id] = max([before, *(trial._trial_id for trial in found)])
        return found


def _frozen(connection: Connection, chosen: Any) -> list[FrozenTrial]:
    """The trials that a query chooses, in the order of their keys."""
    found = {
        key: FrozenTrial(number, state, None, begun, ended, {}, {}, {}, {}, {}, key)
        for key, number, state, begun, ended in connection.execute(
            chosen.with_only_columns(*(trials.c[name] for name in COLUMNS)).order_by(trials.c.trial_id)
        )
    }
    keys = chosen.with_only_columns(trials.c.trial_id) if len(found) > MANY else list(found)

    def rows(table: Table, *names: str) -> Iterable[Any]:
        query = select(table.c.trial_id, *(table.c[name] for name in names)).where(table.c.trial_id.in_(keys))
        ordered = connection.execute(query.order_by(*table.primary_key))
        return ((found[key], *rest) for key, *rest in ordered if key in found)

    for trial, name, value, kind in rows(parameters, "param_name", "param_value", "distribution_json"):
        distribution = _distribution(kind)
        trial.params[name] = distribution.to_external_repr(value)
        trial.distributions[name] = distribution
    for trial, name, text in rows(user_attributes, "key", "value_json"):
        trial.user_attrs[name] = json.loads(text)
    for trial, name, text in rows(system_attributes, "key", "value_json"):
        trial.system_attrs[name] = json.loads(text)
    for trial, step, value, kind in rows(intermediate_values, "step", "intermediate_value", "intermediate_value_type"):
        trial.intermediate_values[step] = TrialIntermediateValueModel.stored_repr_to_intermediate_value(value, kind)
    objectives: dict[int, dict[int, float]] = {}
    for trial, place, value, kind in rows(values, "objective", "value", "value_type"):
        objectives.setdefault(trial._trial_id, {})[place] = TrialValueModel.stored_repr_to_value(value, kind)
    for key, each in objectives.items():
        found[key].values = [each[place] for place in sorted(each)]
    return list(found.values())


_distribution = lru_cache(maxsize=10_000)(json_to_distribution)  # a study's trials share a few
