"""How torch's threads wait for each other; call `tune` before torch is imported."""

import os

SPINS = "1000"  # turns of the waiting loop (a few microseconds) before a thread sleeps


def tune() -> None:
    """Let waiting threads sleep soon, unless the user's environment says otherwise.

    GNU OpenMP spins for milliseconds by default. On a machine that runs anything else, the spinning thread then takes
    the core from the one that it waits for: an LSTM step became ten times slower beside one busy process, and no faster
    on an idle machine.
    """
    os.environ.setdefault("GOMP_SPINCOUNT", SPINS)
