"""Seeded fuzzers: bad files and options through the real commands. `python -m tests.fuzz --help`.

A case is a kind and a seed. Its kind (`packed`, `audio`, ...) writes files and says what to run and whether that must
be refused; `server` runs the command in a process of its own, `verdict` judges what came out.
"""
