"""One trial, from the sampler's proposal to its outcome."""

import traceback
import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import optuna
from optuna.exceptions import OptunaError, TrialPruned

from qstudy.errors import Diverged, UserError
from qstudy.fields import with_order
from qstudy.files import content_hash, write_text
from qstudy.secrets import hide
from qstudy.sweep.config import StudyConfig
from qstudy.sweep.known import differences, take_known
from qstudy.sweep.optuna_internals import constrain, keep, kept
from qstudy.sweep.queue import Queue
from qstudy.sweep.screening.screen import screen_of, started
from qstudy.sweep.space import corners, suggest
from qstudy.sweep.trials import ATTEMPTS, FAILED, GRID, IDENTITY, ORIGINAL, PROGRESS, TRAIN_SECONDS
from qstudy.training.checkpoint import CHECKPOINT_FILE
from qstudy.training.config import RunConfig, to_dict
from qstudy.training.environment import environment
from qstudy.training.price import Price, describe_price, price
from qstudy.training.record import MODEL_FILE, RECORD_FILE, Record, read_record, write_record
from qstudy.training.run import run
from qstudy.training.tracking import entry_of, start_tracking

MOST_ATTEMPTS = 10
"""A trial whose process died this often without a word (out of memory, a crash) and a new checkpoint is given up."""


@dataclass(frozen=True)
class Outcome:
    """What became of a trial."""

    kind: str
    """`trained`, `over_budget`, `repeated`, `refused`, `hopeless` (as screened), `stopped`, `failed`, `given_up`;
    `overrun`: within the budgets before the training, and over them by what it measured."""
    reason: str | None = None
    """Why it was not trained to its end."""
    values: tuple[float, ...] | None = None
    """The objectives, if it was."""


class Refused(Exception):
    """A proposal of the sampler that no run can have, though each of its values is possible beside others."""


@dataclass(frozen=True)
class Candidate:
    """A proposal and what it costs."""

    trial: optuna.Trial
    runs: dict[Path, RunConfig]
    """Folder -> the run in it; several differ in their seed alone."""
    price: Price
    costs: dict[str, float]
    study: str
    extra: dict[str, Any]
    """Entries of the record that only a study knows."""


def evaluate(queue: Queue, trial: optuna.Trial) -> Outcome:
    """Price a trial, and if it fits the budgets, train it (or go on training it) in its folder.

    Raises:
        UserError: the configuration is wrong, or the disk is full; the trial goes on when that is mended.
    """
    try:
        candidate = propose(queue, trial)
    except Refused as refused:
        constrain(trial, "refused", 1.0)
        return Outcome("refused", str(refused))
    outcome = _refusal(queue, candidate)
    if outcome is None:
        try:
            return _outcome_of(queue, candidate, _train(candidate))
        except TrialPruned as stopped:
            outcome = Outcome("stopped", str(stopped))
        except Diverged as error:
            outcome = Outcome("failed", str(error))
        except (UserError, OptunaError, BrokenPipeError):  # not this trial's fault
            raise
        except Exception as error:  # this configuration does not work; the study goes on, and the reason is kept
            log = _unfinished(candidate) / "error.txt"
            write_text(log, hide(traceback.format_exc()))
            outcome = Outcome("failed", hide(f"{type(error).__name__}: {error} (see {log})"))
    _record_unfinished(candidate, outcome)
    return outcome


def propose(queue: Queue, trial: optuna.Trial) -> Candidate:
    """The trial's run configuration, priced; constraints and costs are told to the storage before any training.

    Raises:
        Refused: its values do not go together.
        UserError: nothing can be priced here.
    """
    study = queue.config
    place = kept(trial).get(GRID)
    changes = suggest(trial, study.space) if place is None else study.combinations.show(trial, place)
    try:
        config, cost, costs = _priced(study, changes)
    except Exception as error:  # of a policy of the user's own perhaps any
        for others in [changes] if place is not None else corners(study.space):
            _priced(study, others)  # what is wrong with these, too, is not the proposal's fault
        keep(trial, IDENTITY, content_hash(with_order(changes)))
        raise Refused(str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}") from error
    name = f"trial-{trial.number:04d}-{config.policy['name']}"
    for key, excess in study.budgets.constraints(costs).items():
        constrain(trial, key, excess)
    told = {"run": name, "bits": cost.widths, "seed": config.seed, "feasible": study.budgets.excess(costs) is None}
    for key, value in {**told, **costs}.items():
        trial.set_user_attr(key, value)
    begun = started(config, study, queue.folder) if place is None else config
    elsewhere = ["screening"] if begun is not config else []  # the start's path may differ between machines
    keep(trial, IDENTITY, content_hash(with_order(to_dict(config)), *elsewhere))
    runs = {
        queue.folder / "runs" / f"{name}{'' if not index else f'-seed{run.seed}'}": run
        for index, run in enumerate(study.repeats(begun))
    }
    return Candidate(trial, runs, cost, costs, study.study, {"budgets": study.budgets.to_record()})


def _priced(study: StudyConfig, changes: Mapping[str, Any]) -> tuple[RunConfig, Price, dict[str, float]]:
    config = study.run_of(changes)
    cost = price(config)
    return config, cost, study.budgets.costs(cost)


def _refusal(queue: Queue, candidate: Candidate) -> Outcome | None:
    """Why a candidate is not trained at all; None: it is."""
    if (earlier := _earlier_same(queue, candidate.trial)) is not None:
        return Outcome("repeated", f"same configuration as trial {earlier}")
    if reason := queue.config.budgets.excess(candidate.costs):
        return Outcome("over_budget", reason)
    if _attempts(candidate) > MOST_ATTEMPTS:
        return Outcome("given_up", f"its process died {MOST_ATTEMPTS} times without getting further; out of memory?")
    if reason := _screened_out(queue, candidate):
        return Outcome("hopeless", reason)
    return None


def _screened_out(queue: Queue, candidate: Candidate) -> str | None:
    """Why screening gives up a candidate of the sampler, which is told to look elsewhere."""
    if queue.config.screening is None or GRID in kept(candidate.trial):
        return None
    reason = screen_of(queue.config, queue.folder).hopeless(candidate.trial.params, candidate.costs)
    if reason is not None:
        constrain(candidate.trial, "hopeless", 1.0)
    return reason


def _attempts(candidate: Candidate) -> int:
    """How often the trial was begun, this time included, since it got as far as its checkpoint here."""
    trial, noted, saved = candidate.trial, kept(candidate.trial), 0.0
    for file in (folder / name for folder in candidate.runs for name in (CHECKPOINT_FILE, RECORD_FILE)):
        with suppress(OSError):
            saved = max(saved, file.stat().st_mtime)
    if saved > noted.get(PROGRESS, 0.0):
        keep(trial, PROGRESS, saved)
        keep(trial, ATTEMPTS, 1)
        return 1
    return int(noted[ATTEMPTS])


def _earlier_same(queue: Queue, trial: optuna.Trial) -> int | None:
    """The trial with the same configuration that was there first; the sampler is told to look elsewhere.

    First is who found no other, and stays so: the numbers alone would give up the half-trained one of two workers that
    propose the same at once as soon as it goes on.
    """
    noted = kept(trial)
    if ORIGINAL in noted:
        return None
    twins = [other for other in queue.trials() if kept(other).get(IDENTITY) == noted[IDENTITY]]
    first = next((other for other in twins if ORIGINAL in kept(other)), twins[0])
    if first.number == trial.number:
        keep(trial, ORIGINAL, True)
        return None
    # a repeated good candidate would otherwise count as ever more evidence for itself, until nothing else is proposed
    constrain(trial, "repeated", 1.0)
    return first.number


def _train(candidate: Candidate) -> list[Record]:
    """The records of the trained candidate, one per seed."""
    records: list[Record] = []
    for folder, config in candidate.runs.items():
        records.append(_train_or_read(candidate, folder, config, [_dev_wer(record) for record in records]))
        _note(candidate.trial, len(records) * config.schedule.steps, [_dev_wer(record) for record in records])
    return records


def _train_or_read(candidate: Candidate, folder: Path, config: RunConfig, before: Sequence[float]) -> Record:
    """The record of one run; a whole one that a killed worker left, or one that came along.

    `before`: dev WERs of the other seeds.

    Raises:
        UserError: the folder holds another run.
    """
    done = folder / RECORD_FILE
    if done.exists() and (record := read_record(done)).state == "complete":
        if changed := differences(record, config):
            raise UserError(
                f"{done} is of a run with another {', '.join(changed)}, left by an earlier study named "
                f"{candidate.study!r}; move or remove {folder.parent}."
            )
        _finish_tracking(candidate, folder, config, record)
        return record
    own = {"study": candidate.study, "trial": candidate.trial.number, **candidate.extra}
    if known := take_known(folder.parents[1], config, folder, candidate.price, **own):
        return known
    return run(
        config,
        folder,
        name=folder.name,
        study=candidate.study,
        trial=candidate.trial.number,
        extra=candidate.extra,
        cost=candidate.price,
        report=lambda step, wer: _report(candidate.trial, config, step, [*before, wer]),
    )


def _report(trial: optuna.Trial, config: RunConfig, step: int, wers: Sequence[float]) -> None:
    """Tell Optuna of the dev WER while training, a mean over the seeds so far, whose steps follow each other.

    Raises:
        TrialPruned: it is hopeless.
    """
    if _note(trial, (len(wers) - 1) * config.schedule.steps + step, wers) and trial.should_prune():
        raise TrialPruned(f"stopped at step {step}: dev WER {mean(wers):.1%} is too high beside the others'")


def _note(trial: optuna.Trial, step: int, wers: Sequence[float]) -> bool:
    """Keep an intermediate value; False: Optuna takes them of studies with one objective only."""
    if len(trial.study.directions) > 1:
        return False
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a trial that is continued may report a step again: the same value
        trial.report(mean(wers), step)
    return True


def _finish_tracking(candidate: Candidate, folder: Path, config: RunConfig, record: Record) -> None:
    """Tell W&B of a run whose worker was killed after its record was written, and perhaps before W&B knew of it.

    A run whose record came along has no model here, and W&B was told where it was trained.
    """
    if not config.track or not (folder / MODEL_FILE).is_file():
        return
    tracker = start_tracking(entry_of(config, folder, record.bit_map or {}, candidate.study, record.trial))
    if tracker:
        tracker.finish(record, folder / MODEL_FILE)


def _dev_wer(record: Record) -> float:
    wer = (record.metrics or {})["dev"]["wer"]
    assert wer is not None  # a complete run has it
    return wer


def _outcome_of(queue: Queue, candidate: Candidate, records: Sequence[Record]) -> Outcome:
    """The objectives, and the numbers that tables show, as attributes of the trial; means over its seeds.

    Costs are the records': those of an amortized encoder depend on what it heard.
    """
    trial, wers = candidate.trial, [_dev_wer(record) for record in records]
    if set(records[0].metrics or {}) != {"dev"}:
        trial.set_user_attr("test_wer", mean(record.headline["wer"] for record in records))
    if len(wers) > 1:
        trial.set_user_attr("dev_wer_spread", stdev(wers))
        trial.set_user_attr("seeds", len(wers))
    trial.set_user_attr(TRAIN_SECONDS, sum(record.train_seconds or 0.0 for record in records))
    costs = _measured(queue, candidate, records)
    for name in costs.keys() - {"size_bytes"}:
        trial.set_user_attr(name, costs[name])
    if reason := queue.config.budgets.excess(costs):
        constrain(trial, "overrun", 1.0)
        trial.set_user_attr("feasible", False)
        return Outcome("overrun", f"{reason}, measured after the training")
    values: dict[str, Any] = {**costs, "wer": mean(wers)}
    return Outcome("trained", values=tuple(values[name] for name in queue.config.objectives))


def _measured(queue: Queue, candidate: Candidate, records: Sequence[Record]) -> dict[str, float]:
    """A candidate's costs as its records have them, means over its seeds; else as they were priced."""
    measured: list[Any] = [record.latency for record in records if record.usage and record.latency]
    heard = [replace(candidate.price, latency=latency) for latency in measured]
    if not heard:
        return candidate.costs
    costs = [queue.config.budgets.costs(price) for price in heard]
    return {name: mean(each[name] for each in costs) for name in costs[0]}


def _unfinished(candidate: Candidate) -> Path:
    """The folder of the first run whose record is not that of a trained model."""
    folders = list(candidate.runs)
    done = [file for folder in folders if (file := folder / RECORD_FILE).exists()]
    whole = sum(read_record(file).state == "complete" for file in done)
    return folders[min(whole, len(folders) - 1)]


def _record_unfinished(candidate: Candidate, outcome: Outcome) -> None:
    """Record why there is no model; where there is one after all, its own record stays."""
    folder = _unfinished(candidate)
    if (folder / RECORD_FILE).exists() and read_record(folder / RECORD_FILE).state == "complete":
        return
    config = candidate.runs[folder]
    record = Record(
        run=folder.name,
        study=candidate.study,
        trial=candidate.trial.number,
        state="failed" if outcome.kind in FAILED else "pruned",
        reason=outcome.reason,
        policy=config.policy["name"],
        config=to_dict(config),
        **describe_price(candidate.price),
        seed=config.seed,
        **environment(),
        **candidate.extra,
    )
    write_record(folder, record)
