"""Speed and memory, side by side with peers: `python -m benchmarks`.

One module per subject, each with `rows()`. All sides run in the same process or in equal ones, with the allocator set.
"""

from qstudy.allocator import tune

tune()  # before anything here imports torch
