"""Ctrl-C between transactions, not within them."""

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from optuna.trial import TrialState
from sweep_helpers import make_config, open_queue

from qstudy.sweep.lifeline import stoppable, uninterrupted
from qstudy.sweep.optuna_internals import kept
from qstudy.sweep.queue import Heartbeat
from qstudy.sweep.trials import ATTEMPTS

ENDS = pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)


@pytest.fixture(autouse=True)
def heard() -> Iterator[None]:
    """Ctrl-C, which a shell's background jobs ignore."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def interrupt(number: signal.Signals) -> None:
    os.kill(os.getpid(), number)


def interrupted_within(done: list[str], *numbers: signal.Signals) -> None:
    with stoppable(), uninterrupted(), uninterrupted():
        for number in numbers:
            interrupt(number)
        done.append("all of it")


@ENDS
def test_an_interruption_waits_for_the_end_of_a_transaction(number: signal.Signals) -> None:
    done: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        interrupted_within(done, number)
    assert done
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@ENDS
def test_a_second_one_does_not_wait(number: signal.Signals) -> None:
    done: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        interrupted_within(done, number, number)
    assert not done
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_storage_is_not_interrupted_within_what_it_does(tmp_path: Path) -> None:
    queue = open_queue(tmp_path, make_config())
    done = []
    with pytest.raises(KeyboardInterrupt):
        queue._storage.patiently(lambda: (interrupt(signal.SIGINT), done.append("all of it")))
    assert done


def test_a_trial_whose_claim_is_interrupted_waits_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    queue = open_queue(tmp_path, make_config())
    start: Callable[[Heartbeat], None] = Heartbeat.start

    def start_interrupted(heartbeat: Heartbeat) -> None:
        start(heartbeat)
        interrupt(signal.SIGINT)

    monkeypatch.setattr(Heartbeat, "start", start_interrupted)
    with pytest.raises(KeyboardInterrupt):
        queue.claim()
    assert [trial.state for trial in queue.trials()] == [TrialState.WAITING] * 5
    assert kept(queue.trials()[0])[ATTEMPTS] == 0
    monkeypatch.undo()
    claim = queue.claim()
    assert claim is not None
    assert claim.trial.number == 0
    queue.release(claim)
