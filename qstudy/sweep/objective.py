"""One trial, from the sampler's proposal to its outcome."""

import traceback
import warnings
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.exceptions import OptunaError, TrialPruned

from qstudy.errors import Diverged, UserError
from qstudy.files import content_hash, write_text
from qstudy.secrets import hide
from qstudy.sweep.queue import ATTEMPTS, CHANGES, FAILED, IDENTITY, Queue
from qstudy.sweep.space import suggest
from qstudy.training.checkpoint import CHECKPOINT_FILE
from qstudy.training.config import RunConfig, to_dict
from qstudy.training.environment import environment
from qstudy.training.price import Price, describe_price, price
from qstudy.training.record import MODEL_FILE, RECORD_FILE, Record, read_record, write_record
from qstudy.training.run import run
from qstudy.training.tracking import start_tracking

MOST_ATTEMPTS = 10
"""A trial whose process died this often without a word (out of memory, a crash) and a new checkpoint is given up."""
PROGRESS = "progress"
"""Attribute of a trial: the time of the checkpoint from which on its attempts are counted."""


@dataclass(frozen=True)
class Outcome:
    """What became of a trial."""

    kind: str
    """`trained`, `over_budget`, `repeated`, `stopped`, `failed` or `given_up`."""
    reason: str | None = None
    """Why it was not trained to its end."""
    values: tuple[float, ...] | None = None
    """The objectives, if it was."""


@dataclass(frozen=True)
class Candidate:
    """A proposal and what it costs."""

    trial: optuna.Trial
    config: RunConfig
    price: Price
    costs: dict[str, float]
    study: str
    folder: Path
    extra: dict[str, Any]
    """Entries of the record that only a study knows."""


def evaluate(queue: Queue, trial: optuna.Trial) -> Outcome:
    """Price a trial, and if it fits the budgets, train it (or go on training it) in its folder.

    Raises:
        UserError: the configuration is wrong, or the disk is full; the trial goes on when that is mended.
    """
    candidate = propose(queue, trial)
    outcome = _refusal(queue, candidate)
    if outcome is None:
        try:
            return _outcome_of(queue, candidate, _train_or_read(candidate))
        except TrialPruned as stopped:
            outcome = Outcome("stopped", str(stopped))
        except Diverged as error:
            outcome = Outcome("failed", str(error))
        except (UserError, OptunaError):  # not this trial's fault
            raise
        except Exception as error:  # this configuration does not work; the study goes on, and the reason is kept
            log = candidate.folder / "error.txt"
            write_text(log, hide(traceback.format_exc()))
            outcome = Outcome("failed", hide(f"{type(error).__name__}: {error} (see {log})"))
    _record_unfinished(candidate, outcome)
    return outcome


def propose(queue: Queue, trial: optuna.Trial) -> Candidate:
    """The trial's run configuration, priced; constraints and costs are told to the storage before any training."""
    study = queue.config
    changes = trial.user_attrs.get(CHANGES) or suggest(trial, study.space)
    config = study.run_of(changes)
    cost = price(config)
    costs = study.budgets.costs(cost)
    name = f"trial-{trial.number:04d}-{config.policy['name']}"
    for key, excess in study.budgets.constraints(costs).items():
        constrain(trial, key, excess)
    # dashboards know the constraints by an older name only
    feasible = study.budgets.excess(costs) is None
    for key, value in {**costs, "feasible": feasible, "run": name, IDENTITY: content_hash(to_dict(config))}.items():
        trial.set_user_attr(key, value)
    extra = {"budgets": study.budgets.to_record()}
    return Candidate(trial, config, cost, costs, study.study, queue.folder / "runs" / name, extra)


def _refusal(queue: Queue, candidate: Candidate) -> Outcome | None:
    """Why a candidate is not trained at all; None: it is."""
    if (earlier := _earlier_same(queue, candidate.trial)) is not None:
        return Outcome("repeated", f"same configuration as trial {earlier}")
    if reason := queue.config.budgets.excess(candidate.costs):
        return Outcome("over_budget", reason)
    if _attempts(candidate) > MOST_ATTEMPTS:
        return Outcome("given_up", f"its process died {MOST_ATTEMPTS} times without getting further; out of memory?")
    return None


def _attempts(candidate: Candidate) -> int:
    """How often the trial was begun, this time included, since it got as far as its checkpoint here."""
    trial, saved = candidate.trial, 0.0
    with suppress(OSError):
        saved = (candidate.folder / CHECKPOINT_FILE).stat().st_mtime
    if saved > trial.user_attrs.get(PROGRESS, 0.0):
        trial.set_user_attr(PROGRESS, saved)
        trial.set_user_attr(ATTEMPTS, 1)
    return int(trial.user_attrs[ATTEMPTS])


def _earlier_same(queue: Queue, trial: optuna.Trial) -> int | None:
    """The first earlier trial with the same configuration; the sampler is told to look elsewhere."""
    identity = trial.user_attrs[IDENTITY]
    twins = [other.number for other in queue.trials() if other.user_attrs.get(IDENTITY) == identity]
    if twins[0] == trial.number:
        return None
    # a repeated good candidate would otherwise count as ever more evidence for itself, until nothing else is proposed
    constrain(trial, "repeated", 1.0)
    return twins[0]


def constrain(trial: optuna.Trial, name: str, excess: float) -> None:
    """Set a named constraint (above 0: violated), unless it is set: a trial that is continued has its constraints."""
    if name not in trial.constraints:
        trial.set_constraint(name, excess)


def _train_or_read(candidate: Candidate) -> Record:
    """The record of the trained candidate; if a killed worker left a whole one, that one."""
    done = candidate.folder / RECORD_FILE
    if done.exists() and (record := read_record(done)).state == "complete":
        _finish_tracking(candidate, record)
        return record
    trial = candidate.trial

    def report(step: int, wer: float) -> None:
        if len(trial.study.directions) > 1:  # Optuna stops trials early by one objective only
            return
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a trial that is continued may report a step again: the same value
            trial.report(wer, step)
        if trial.should_prune():
            raise TrialPruned(f"stopped at step {step}: dev WER {wer:.1%} is worse than the median")

    return run(
        candidate.config,
        candidate.folder,
        name=candidate.folder.name,
        study=candidate.study,
        trial=trial.number,
        extra=candidate.extra,
        cost=candidate.price,
        report=report,
    )


def _finish_tracking(candidate: Candidate, record: Record) -> None:
    """Tell W&B of a run whose worker was killed after its record was written, and perhaps before W&B knew of it."""
    config, folder = candidate.config, candidate.folder
    tracker = start_tracking(folder, candidate.study, folder.name, to_dict(config)) if config.track else None
    if tracker:
        tracker.finish(record, folder / MODEL_FILE)


def _outcome_of(queue: Queue, candidate: Candidate, record: Record) -> Outcome:
    """The objectives, and the numbers that tables show, as attributes of the trial."""
    assert record.metrics is not None  # a complete run has them
    wer = record.metrics["dev"]["wer"]
    candidate.trial.set_user_attr("dev_wer", wer)
    candidate.trial.set_user_attr("wer", record.headline["wer"])
    values: dict[str, Any] = {**candidate.costs, "wer": wer}
    return Outcome("trained", values=tuple(values[name] for name in queue.config.objectives))


def _record_unfinished(candidate: Candidate, outcome: Outcome) -> None:
    record = Record(
        run=candidate.folder.name,
        study=candidate.study,
        trial=candidate.trial.number,
        state="failed" if outcome.kind in FAILED else "pruned",
        reason=outcome.reason,
        policy=candidate.config.policy["name"],
        config=to_dict(candidate.config),
        **describe_price(candidate.price),
        seed=candidate.config.seed,
        **environment(),
        **candidate.extra,
    )
    write_record(candidate.folder, record)
