"""The trials of a study as a queue: WAITING, RUNNING in a living worker, then COMPLETE or PRUNED; nothing else.

Optuna's own way to survive a dead worker is to fail its trial and to start a copy. Here the trial itself goes back into
the queue, with the number, the parameters and the folder that it has: so no trial is ever left FAILed or RUNNING, and a
training continues at its last checkpoint. A worker counts as alive while the system lock of its trial is held (on this
machine, exact at once) or while its heartbeats arrive (elsewhere).
"""

import platform
import threading
import uuid
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import optuna
from optuna.exceptions import OptunaError, UpdateFinishedTrialError
from optuna.trial import FrozenTrial, TrialState

from qstudy.errors import UserError
from qstudy.files import content_hash
from qstudy.locks import is_held, locked, try_lock
from qstudy.sweep.config import StudyConfig, study_from_dict
from qstudy.sweep.lifeline import uninterrupted
from qstudy.sweep.optuna_internals import keep, kept, silent_trials, study_id, trial_id
from qstudy.sweep.patience import PatientStorage
from qstudy.sweep.planning import count, planning
from qstudy.sweep.samplers import fixed_sampler, make_sampler
from qstudy.sweep.space import size
from qstudy.sweep.storage import DEFINITION, load
from qstudy.sweep.trials import ATTEMPTS, DROPPED, FREE, GRID, IDENTITY, OUTCOME, PLACE, SCREENED, counts, outcome_of

LAST_BEAT_S = 5.0
SWEEP_LOCK = Path(".locks") / ".sweep"
"""In a study's folder: held while `qstudy sweep` runs there. No study can have this name, which its locks lie under."""


@dataclass
class Claim:
    """A trial that this process works on."""

    trial: optuna.Trial
    lock: IO[str]
    heartbeat: "Heartbeat"


class Heartbeat(threading.Thread):
    """Tells the storage that a trial's worker lives, until stopped."""

    def __init__(self, storage: PatientStorage, trial_id: int) -> None:
        super().__init__(daemon=True)
        self._storage, self._trial_id, self._stopped = storage, trial_id, threading.Event()

    def run(self) -> None:
        """Beat; a storage that is away for a moment costs a beat, not the training."""
        while not self._stopped.wait(self._storage.heartbeat_interval):
            try:
                self._storage.record_heartbeat(self._trial_id)
            except UserError:
                continue
        self._storage.remove_session()

    def stop(self) -> None:
        """End the thread; one that waits for a storage that is away ends by itself."""
        self._stopped.set()
        self.join(LAST_BEAT_S)


class Queue:
    """The queue of one study; every worker has its own."""

    def __init__(self, study: optuna.Study, storage: PatientStorage, config: StudyConfig, folder: Path) -> None:
        self.study = study
        self.config = config
        self.folder = folder
        self._storage = storage
        self.one_machine = storage.engine.name == "sqlite"
        self._locks = _locks(storage, folder, config.study)
        self._place = content_hash(platform.node(), uuid.getnode(), str(folder.resolve()))

    def trials(self, *states: TrialState) -> list[FrozenTrial]:
        """The study's trials, or those in some states, in the order of their numbers.

        Raises:
            UserError: the storage is away, or the study has gone.
        """
        try:
            return self.study.get_trials(deepcopy=False, states=states or None)
        except KeyError as error:
            gone = f"The study {self.config.study!r} is no longer in its storage"
            raise UserError(f"{gone}: somebody removed it; begin it anew with `qstudy sweep`.") from error

    def unfinished(self) -> int:
        """How many trials wait or run, here or elsewhere."""
        return self._count(TrialState.WAITING, TrialState.RUNNING)

    def ended(self) -> int:
        """How many trials have ended, those that do not count included."""
        return self._count(TrialState.COMPLETE, TrialState.PRUNED)

    def done(self) -> int:
        """How many of the trials that the study was asked for have ended."""
        return sum(trial.state.is_finished() and counts(trial) for trial in self.trials())

    def has_work(self) -> bool:
        """Whether trials wait or run; a worker may have died before it made place for another candidate."""
        if self._count(TrialState.WAITING) > len(self.trials(TrialState.WAITING)):
            # some that had ended wait again (`retry_failed`), and Optuna reads those that have ended once
            _, self.study = load(self._storage, self.config.study)
        if self.unfinished():
            return True
        self.config = study_from_dict(self.study.user_attrs[DEFINITION])  # others may have asked for more, or fewer
        self.plan()
        return self.unfinished() > 0

    def plan(self) -> None:
        """Put into the queue what is still missing: the grid's combinations, then places for the sampler to fill.

        If fewer trials are wanted than before, drop what has not begun, from the end.
        """
        self._storage.patiently(self._plan)

    def _plan(self) -> None:
        with planning(self._storage, study_id(self.study)) as plan:
            trials = self.trials()
            missing = self._missing(trials)
            if missing < 0:
                untouched = [t for t in trials if t.state == TrialState.WAITING and ATTEMPTS not in kept(t)]
                plan.drop(untouched[missing:], **{OUTCOME: DROPPED})
                return
            planned = {kept(t).get(GRID) for t in trials if t.user_attrs.get(OUTCOME) != DROPPED}
            grid = range(len(self.config.combinations.changes))
            new = [{GRID: index} for index in grid if index not in planned][:missing]
            places = min(missing - len(new), self._room(trials, len(new)))
            plan.add([*new, *[{}] * places])

    def is_exhausted(self) -> bool:
        """Whether nothing waits or runs, and no other candidate may be looked at."""
        return not self.unfinished() and not self._room(self.trials())

    def _missing(self, trials: Sequence[FrozenTrial]) -> int:
        return self.config.wanted - sum(map(counts, trials))

    def _room(self, trials: Sequence[FrozenTrial], planned: int = 0) -> int:
        """How many places for the sampler there can still be: none when enough was tried, or everything."""
        searched = [noted for noted in map(kept, trials) if GRID not in noted]
        tried = {noted[IDENTITY] for noted in searched if IDENTITY in noted}
        looked_at = sum(outcome_of(trial) != DROPPED for trial in trials)
        left = self.config.most_candidates - looked_at - planned
        return max(left, 0) if len(tried) < size(self.config.space) else 0

    def claim(self) -> Claim | None:
        """Take the next trial, those of dead workers included; None: nothing waits at the moment."""
        with locked(self._locks / "claim"):
            self.recover()
            for waiting in self.trials(TrialState.WAITING):
                lock = try_lock(self._trial_lock(waiting.number))
                if lock is None:
                    continue
                if claim := self._take(waiting, lock):
                    return claim
                lock.close()  # a worker on another machine was quicker
        return None

    def _take(self, waiting: FrozenTrial, lock: IO[str]) -> Claim | None:
        claim = None
        try:
            with uninterrupted():
                # a heartbeat before the trial runs: without one, a death right after this line would never be noticed
                self._storage.record_heartbeat(trial_id(waiting))
                if self._set(waiting, TrialState.RUNNING):
                    claim = self._start(waiting, lock)
        except KeyboardInterrupt:  # it came meanwhile, and the caller will never see the claim
            if claim is not None:
                self.put_back(claim)
            raise
        return claim

    def finish(self, claim: Claim, outcome: str, reason: str | None, values: Sequence[float] | None) -> None:
        """End a trial: COMPLETE with values, PRUNED without; an untrained candidate makes place for another."""
        state = TrialState.PRUNED if values is None else TrialState.COMPLETE
        self._set(claim.trial, TrialState.RUNNING)  # if another machine took this one for dead, it may wait again
        # another machine may also have finished the trial: the first result stands
        with suppress(UpdateFinishedTrialError):
            claim.trial.set_user_attr(OUTCOME, outcome)
            if reason is not None:
                claim.trial.set_user_attr("reason", reason)
            self.study.tell(claim.trial.number, values=values, state=state, skip_if_finished=True)
        if outcome in FREE:
            self._storage.patiently(self._refill)
        self.release(claim)

    def put_back(self, claim: Claim) -> None:
        """Put a trial back into the queue, to be continued; if the storage is away, the next worker finds it dead."""
        with suppress(OptunaError, UserError), self._storage.without_retries():
            keep(claim.trial, ATTEMPTS, 0)  # it was stopped in good order
            keep(claim.trial, PLACE, None)  # until who takes it next has said where, nobody is to look for it here
            self._storage.set_trial_state_values(trial_id(claim.trial), TrialState.WAITING)
        self.release(claim)

    def release(self, claim: Claim) -> None:
        """Let go of a trial as it stands."""
        claim.heartbeat.stop()
        claim.lock.close()

    def recover(self) -> int:
        """Put the trials of dead workers back into the queue; how many there were."""
        dead = self.dead()
        for trial in dead:
            self._set(trial, TrialState.WAITING)
        return len(dead)

    def dead(self) -> list[FrozenTrial]:
        """Running trials whose workers have died."""
        running = self.trials(TrialState.RUNNING)
        silent = silent_trials(self._storage, self.study) if running else set()
        return [trial for trial in running if self._is_dead(trial, trial_id(trial) in silent)]

    def recover_soon(self) -> None:
        """The same on the way out: what a storage that is away does not take, the next worker finds."""
        with suppress(OptunaError, UserError), self._storage.without_retries():
            self.recover()

    def _is_dead(self, trial: FrozenTrial, silent: bool) -> bool:
        here = self.one_machine or kept(trial).get(PLACE) == self._place
        return (here or silent) and not is_held(self._trial_lock(trial.number))

    def _start(self, waiting: FrozenTrial, lock: IO[str]) -> Claim:
        self._storage.set_trial_system_attr(trial_id(waiting), PLACE, self._place)  # a sampler may take its time
        heartbeat = Heartbeat(self._storage, trial_id(waiting))
        heartbeat.start()
        self.study.sampler = self._sampler(waiting)
        trial = optuna.Trial(self.study, trial_id(waiting))
        keep(trial, ATTEMPTS, kept(waiting).get(ATTEMPTS, 0) + 1)
        return Claim(trial, lock, heartbeat)

    def _sampler(self, waiting: FrozenTrial) -> optuna.samplers.BaseSampler:
        """What proposes a trial's parameters: the grid, then those that were screened, then the study's sampler."""
        if (place := kept(waiting).get(GRID)) is not None:
            return fixed_sampler(self.config.combinations.parameters[place])
        if screened := self.study.user_attrs.get(SCREENED):
            asked = (trial for trial in self.trials() if trial.number < waiting.number and GRID not in kept(trial))
            before = sum(trial.user_attrs.get(OUTCOME) != DROPPED for trial in asked)
            if before < len(screened):
                return fixed_sampler(screened[before])
        return make_sampler(self.config.sampler, waiting.number)

    def _count(self, *states: TrialState) -> int:
        return self._storage.patiently(lambda: count(self._storage, study_id(self.study), states))

    def _set(self, trial: FrozenTrial | optuna.Trial, state: TrialState) -> bool:
        try:
            return self._storage.set_trial_state_values(trial_id(trial), state)
        except UpdateFinishedTrialError:
            return False

    def _refill(self) -> None:
        """One more place for the sampler, unless a planner saw already that one is missing."""
        with planning(self._storage, study_id(self.study)) as plan:
            trials = self.trials()
            if self._missing(trials) > 0 and self._room(trials):
                plan.add([{}])

    def _trial_lock(self, number: int) -> Path:
        return self._locks / f"trial-{number:04d}"


def _locks(storage: PatientStorage, folder: Path, study: str) -> Path:
    """The folder of a study's locks: beside an SQLite file, which several folders may share."""
    database = storage.engine.url.database if storage.engine.name == "sqlite" else None
    return (Path(database).resolve().parent if database else folder) / ".locks" / study
