"""What a worker does: take trials from a study's queue until all are finished."""

import time
from collections.abc import Callable

import optuna
from optuna.exceptions import OptunaError, UpdateFinishedTrialError
from optuna.trial import TrialState

from qstudy.errors import UserError
from qstudy.sweep.objective import Outcome, evaluate
from qstudy.sweep.queue import Queue
from qstudy.sweep.summary import sentence
from qstudy.sweep.trials import FAILED, OUTCOME

POLL_S = 1.0
HOPELESS = 3  # trials that fail before one has worked: then something is wrong with all of them


def work(
    queue: Queue,
    evaluate: Callable[[Queue, optuna.Trial], Outcome] = evaluate,
    announce: Callable[[str], None] = print,
) -> None:
    """Run trials until none waits and none runs anywhere; those whose worker dies meanwhile are taken over.

    An interruption (Ctrl-C) puts the trial in flight back into the queue, and goes on upwards.

    Args:
        queue: the study's trials.
        evaluate: what to do with a trial.
        announce: takes a line about every trial that this worker finished.

    Raises:
        UserError: a wrong configuration, or a storage that went away; the trial in flight is in the queue again.
    """
    try:
        while True:
            claim = queue.claim()
            if claim is None:
                if not queue.has_work():
                    return
                time.sleep(POLL_S)  # for places that over-budget trials make, and for workers that die
                continue
            try:
                outcome = evaluate(queue, claim.trial)
            except UpdateFinishedTrialError:  # another machine took this one for dead, and was quicker
                queue.release(claim)
                continue
            except BaseException:
                queue.put_back(claim)
                raise
            queue.finish(claim, outcome.kind, outcome.reason, outcome.values)
            announce(sentence(queue.trials()[claim.trial.number]))
            if outcome.kind in FAILED:
                _check_hope(queue)
    except OptunaError as error:
        raise UserError(f"The study's storage failed ({error}); run the same command again to go on.") from error


def _check_hope(queue: Queue) -> None:
    """Stop a study in which nothing works."""
    finished = [trial.user_attrs for trial in queue.trials(TrialState.COMPLETE, TrialState.PRUNED)]
    failed = [attributes.get("reason") for attributes in finished if attributes.get(OUTCOME) in FAILED]
    if len(failed) >= HOPELESS and not any(attributes.get(OUTCOME) == "trained" for attributes in finished):
        raise UserError(
            f"{len(failed)} trials failed and none has worked, the last with: {failed[-1]}. Mend that and run the same "
            "command again: it goes on with the next trial, and with --retry with these, too."
        )
