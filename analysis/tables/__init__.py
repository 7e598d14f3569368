"""The tables of a report. A new one is a function in a file of its own, and its name in `TABLES`.

It takes a `Study` and gives a `Table`, or None where there is nothing to show; `comparison` and `claims` take all
studies of a report. What only some studies ask for, by `--table` and `--figure`, lies in files beside this folder
(`analysis.served.served`).
"""

from collections.abc import Callable, Sequence

from analysis.study import Study
from analysis.tables.by_width import cost_by_width, wer_by_width
from analysis.tables.quantizers import quantizers
from analysis.tables.runs import runs
from analysis.tables.table import Table

Tables = Sequence[Callable[[Study], Table | None]]
TABLES: Tables = (wer_by_width, cost_by_width, quantizers, runs)
"""In the order of the page."""
