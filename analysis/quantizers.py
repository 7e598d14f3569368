"""Which quantizer a policy chose for every tensor, where it chose at all."""

from typing import Any

from analysis.bits import label
from analysis.records import Run
from analysis.study import Study
from analysis.tables import Cell, Column, Table
from analysis.text import DASH, number


def quantizers_table(study: Study) -> Table | None:
    """A row per tensor, a column per run that chose, most bits first; None if none did."""
    runs = sorted([run for run in study.trials if _choices(run)], key=lambda run: -(run.size_bytes or 0))
    if not runs:
        return None
    tensors = list(dict.fromkeys(name for run in runs for name in _choices(run)))
    candidates = list(
        dict.fromkeys(name for run in runs for choice in _choices(run).values() for name in choice["errors"])
    )
    columns = [Column("tensor", "Tensor")]
    for run in runs:
        columns.append(Column(f"{run.name}", f"{run.method} {label(run)}"))
        columns += [Column(f"{run.name}_{name}", "", printed=False) for name in candidates]
    rows = [
        (Cell(tensor, tensor), *(cell for run in runs for cell in _cells(_choices(run).get(tensor), candidates)))
        for tensor in tensors
    ]
    caption = (
        "The quantizer that calibration chose for each tensor, and behind it its squared error relative to the power "
        "of the tensor; without a number there was nothing to choose. The errors of all candidates are in the CSV file."
    )
    return Table("quantizers", "Quantizer by tensor", caption, tuple(columns), tuple(rows))


def _choices(run: Run) -> dict[str, dict[str, Any]]:
    notes = run.raw.get("notes")
    found = notes.get("choices") if isinstance(notes, dict) else None
    choices = found if isinstance(found, dict) else {}
    return {
        name: {"quantizer": choice.get("quantizer") or DASH, "errors": choice.get("errors") or {}}
        for name, choice in choices.items()
    }


def _cells(choice: dict[str, Any] | None, candidates: list[str]) -> list[Cell]:
    if choice is None:
        return [Cell(DASH), *(Cell("") for _ in candidates)]
    errors = choice["errors"]
    error = errors.get(choice["quantizer"])
    shown = "" if error is None else number(error, 2)
    return [Cell(choice["quantizer"], choice["quantizer"], shown), *(Cell("", errors.get(name)) for name in candidates)]
