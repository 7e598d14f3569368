"""Which quantizer a policy chose for every tensor, where it chose at all."""

import json
from collections.abc import Callable
from typing import Any

import pandas as pd

from analysis.records import unpacked
from analysis.study import Study
from analysis.tables.table import Column, Row, Table, evenly
from analysis.text import DASH, number

MOST = 40
"""Runs: more columns are no table."""
CAPTION = (
    "The quantizer that calibration chose for each tensor, and behind it its squared error relative to the power "
    "of the tensor; without a number there was nothing to choose. The errors of all candidates are in the CSV file."
)


def quantizers(study: Study) -> Table | None:
    """A row per tensor, a column per run that chose, largest first, of many some; None if none did."""
    chose = study.trials[study.trials.record.map(choices_of).astype(bool)]
    trials = chose.sort_values("size_bytes", ascending=False, kind="stable")
    trials = trials[evenly(pd.Series(False, trials.index), MOST)]
    rows = [
        {"run": run, "tensor": tensor, "": told.get("quantizer"), **(told.get("errors") or {})}
        for run, record in zip(trials.run, trials.record, strict=True)
        for tensor, told in choices_of(record).items()
    ]
    if not rows:
        return None
    found = pd.DataFrame(rows)
    names = pd.MultiIndex.from_product([found.run.unique(), found.columns[2:]])
    wide = found.pivot(index="tensor", columns="run").swaplevel(axis=1).reindex(found.tensor.unique(), columns=names)
    frame = wide.set_axis([f"{run}_{candidate}" if candidate else run for run, candidate in names], axis=1)
    headers = dict(zip(trials.run, trials.method + " " + trials.label, strict=True))
    columns = [Column(run, headers[run], small=_error_of(run), missing=DASH) for run in found.run.unique()]
    tensor = Column("tensor", "Tensor")
    caption = CAPTION if len(trials) == len(chose) else f"{CAPTION} {len(trials)} of {len(chose):,} runs, by size."
    return Table("quantizers", "Quantizer by tensor", caption, frame.reset_index(names="tensor"), (tensor, *columns))


def choices_of(record: bytes) -> dict[str, dict[str, Any]]:
    """Tensor -> `quantizer`, and `errors` by candidate."""
    text = unpacked(record)
    return (json.loads(text).get("notes") or {}).get("choices") or {} if '"choices"' in text else {}


def _error_of(name: str) -> Callable[[Row], str]:
    """The error of the quantizer that was chosen, in words."""

    def error(row: Row) -> str:
        found: Any = row.get(f"{name}_{row[name]}")
        return "" if pd.isna(found) else number(found, 2)

    return error
