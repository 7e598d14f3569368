"""Which quantizer a policy chose for every tensor, where it chose at all."""

import json
from collections.abc import Mapping
from typing import Any

import pandas as pd

from analysis.records import unpacked
from analysis.study import Study
from analysis.tables.table import Column, Row, Table
from analysis.text import DASH, number

Choices = Mapping[str, Mapping[str, Any]]
"""Tensor -> `quantizer`, and `errors` by candidate."""


def quantizers(study: Study) -> Table | None:
    """A row per tensor, a column per run that chose, most bits first; None if none did."""
    trials = study.trials.sort_values("size_bytes", ascending=False, kind="stable")
    runs = {run.run: (run, choices) for run in trials.itertuples() if (choices := _choices(run.record))}
    if not runs:
        return None
    found = [choices for _, choices in runs.values()]
    tensors = list(dict.fromkeys(tensor for choices in found for tensor in choices))
    candidates = list(dict.fromkeys(name for choices in found for one in choices.values() for name in _errors(one)))
    values: dict[str, list[Any]] = {"tensor": tensors}
    for name, (_, choices) in runs.items():
        values[name] = [choices.get(tensor, {}).get("quantizer") for tensor in tensors]
        for candidate in candidates:
            values[f"{name}_{candidate}"] = [_errors(choices.get(tensor, {})).get(candidate) for tensor in tensors]
    columns = [
        Column(name, f"{run.method} {run.label}", small=_error_of(name), missing=DASH)
        for name, (run, _) in runs.items()
    ]
    caption = (
        "The quantizer that calibration chose for each tensor, and behind it its squared error relative to the power "
        "of the tensor; without a number there was nothing to choose. The errors of all candidates are in the CSV file."
    )
    return Table(
        "quantizers", "Quantizer by tensor", caption, pd.DataFrame(values), (Column("tensor", "Tensor"), *columns)
    )


def _choices(record: bytes) -> Choices:
    if '"choices"' not in (text := unpacked(record)):
        return {}
    return (json.loads(text).get("notes") or {}).get("choices") or {}


def _errors(choice: Mapping[str, Any]) -> Mapping[str, float]:
    return choice.get("errors") or {}


def _error_of(name: str) -> Any:
    """The error of the quantizer that was chosen, in words."""

    def error(row: Row) -> str:
        found = row.get(f"{name}_{row[name]}")
        return "" if found is None or pd.isna(found) else number(found, 2)

    return error
