"""A sweep to which one mishap after the other happens. `python -m tests.chaos --help`.

`mishaps` says what happens, `sweep` runs the study and begins it again, `verdict` says what must be true after all.
"""
