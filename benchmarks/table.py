"""The rows as a table on the terminal, as Markdown, and as JSON."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich.table import Table

from benchmarks.row import Row

COLUMNS = ("what", "ours", "peer", "ratio", "floor", "distance to floor")


def cells(row: Row) -> tuple[str, ...]:
    """One text per column."""
    peer = f"{row.peer}: {figure(row.theirs, row.unit)}" if not row.skipped else f"{row.peer}: skipped ({row.skipped})"
    floor = f"{row.floor_is}: {figure(row.floor, row.unit)}" if row.floor_is else ""
    return row.what, figure(row.ours, row.unit), peer, times(row.ratio), floor, times(row.distance)


def figure(value: float | None, unit: str) -> str:
    """Three digits and the unit."""
    if value is None:
        return "-"
    return f"{value:,.0f} {unit}" if value >= 100 else f"{value:.3g} {unit}"


def times(value: float | None) -> str:
    """A factor."""
    return "-" if value is None else f"{value:.1f}x" if value >= 10 else f"{value:.2f}x"


def terminal(rows: Sequence[Row]) -> Table:
    """For `rich`."""
    table = Table(title="qstudy beside its peers (less is better; ratio: the peer's figure over ours)")
    for column in COLUMNS:
        table.add_column(column, justify="left" if column in ("what", "peer", "floor") else "right")
    for row in rows:
        table.add_row(*cells(row))
    return table


def markdown(rows: Sequence[Row], machine: dict[str, Any]) -> str:
    """The table, and what it was measured on."""
    versions = ", ".join(f"{name} {number}" for name, number in machine["versions"].items())
    lines = [
        "# Speed and memory beside peers",
        "",
        "Less is better; ratio is the peer's figure over ours, distance is ours over the floor. Times are medians of",
        "interleaved repetitions in one process, memory is the peak of a process of its own; glibc's allocator is set",
        "alike for all sides (`qstudy/allocator.py`).",
        "",
        "| " + " | ".join(COLUMNS) + " |",
        "|---|---:|---|---:|---|---:|",
        *("| " + " | ".join(cells(row)) + " |" for row in rows),
        "",
        f"Machine: {machine['processor']}, {machine['cores']} cores, {machine['threads']} threads used, "
        f"{machine['memory_gib']} GiB, {machine['gpu'] or 'no GPU'}; load before: {machine['load_before']}.  ",
        f"Versions: {versions}.  ",
        f"Commit {machine['commit']}, {machine['created']}: `{machine['command']}`.",
    ]
    return "\n".join(lines) + "\n"


def json(rows: Sequence[Row], machine: dict[str, Any]) -> dict[str, Any]:
    """The same as data."""
    return {"machine": machine, "rows": [asdict(row) | {"ratio": row.ratio, "distance": row.distance} for row in rows]}
