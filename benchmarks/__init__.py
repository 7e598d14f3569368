"""Speed and memory, side by side with peers: `python -m benchmarks`.

One module per subject, each with `rows()`. All sides run in the same process or in equal ones, with allocator and
threads set as the command `qstudy` sets them.
"""

import os

from qstudy import runtime

os.environ.pop("QSTUDY_STORAGE", None)  # the user's own database: made-up studies would stay in it
runtime.tune()  # before anything here imports torch
