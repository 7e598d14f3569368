"""Speed and memory, side by side with peers: `python -m benchmarks`.

One module per subject, each with `rows()`. All sides run in the same process or in equal ones, with allocator and
threads set as the command `qstudy` sets them.
"""

from qstudy import runtime

runtime.tune()  # before anything here imports torch
