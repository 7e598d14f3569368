"""What is told of a study's trials: names of their attributes, outcomes, and which of them count.

Without torch, so that a look at a study (`qstudy status`) is quick.
"""

from optuna.trial import FrozenTrial

OUTCOME = "outcome"
"""Attribute of a finished trial: `trained`, `stopped` (early), `overrun` (trained, and measured to be over budget),
`failed`, `given_up` (it kills workers), `FREE`."""
DROPPED = "dropped"
FAILED = ("failed", "given_up")
FREE = ("over_budget", "repeated", "refused", "hopeless", DROPPED)
"""Outcomes that cost no training and do not count as a trial of the study."""
IDENTITY, ORIGINAL, GRID, PLACE, ATTEMPTS, PROGRESS = "identity", "original", "grid", "place", "attempts", "progress"
"""What the queue notes for itself (`optuna_internals.keep`): the hash of the run configuration, whether no other trial
had it before, the index in the grid, the machine and folder, how often the trial was begun, and the time of the
checkpoint from which on that is counted."""
SCREENED = "screened"
"""Attribute of a study: parameters of the candidates that are trained first, in this order."""
TRAIN_SECONDS = "train_seconds"
"""Attribute of a trained trial: what its records say; more than the trial took if they were found done."""
METRICS = {"wer": "dev_wer"}
"""Objectives that trials have under a name that says more: choices are made on the dev set."""


def outcome_of(trial: FrozenTrial) -> str | None:
    """What became of a trial that has ended; None: it has not, though one that ends right now has its outcome noted."""
    return trial.user_attrs.get(OUTCOME) if trial.state.is_finished() else None


def counts(trial: FrozenTrial) -> bool:
    """Whether a trial is one of those that the study was asked for."""
    return outcome_of(trial) not in FREE


def is_trained(trial: FrozenTrial) -> bool:
    """Whether a trial came to its end with a model, which then is within the budgets."""
    return outcome_of(trial) == "trained"


def dev_wer(trial: FrozenTrial) -> float:
    """Of a trained trial: the first of its objectives; a mean over its seeds."""
    return float(trial.values[0])
