"""A table: a DataFrame of raw values, and how its columns are printed."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd

from analysis.text import percent, points

MOST = 2000
"""Rows that are printed, and runs that a page knows of; the CSV files and the records have all."""

Row = Mapping[str, Any]
"""A row of the frame: column -> raw value."""


class Cell(NamedTuple):
    """One printed cell."""

    text: str
    small: str = ""
    """Printed small behind the text: `[1.1, 2.3]`."""
    bold: bool = False
    link: str = ""
    """Where it leads on a page."""


class Column(NamedTuple):
    """One printed column."""

    key: str
    """Its name in the frame."""
    header: str
    align: Literal["l", "r"] = "l"
    text: Callable[[Any], str] = str
    """Of a value that is not missing."""
    small: Callable[[Row], str] = lambda row: ""
    bold: Callable[[Row], bool] = lambda row: False
    missing: str = ""
    """Printed where there is no value."""
    link: Callable[[Row], str] = lambda row: ""

    def cell(self, row: Row) -> Cell:
        """This column's cell of a row."""
        value = row[self.key]
        if pd.isna(value):
            return Cell(self.missing)
        return Cell(self.text(value), self.small(row), bool(self.bold(row)), self.link(row))


@dataclass(frozen=True)
class Table:
    """A frame, its printed columns, and a caption."""

    name: str
    """File name without its ending."""
    title: str
    caption: str
    frame: pd.DataFrame
    """Raw values, as the CSV file has them."""
    columns: tuple[Column, ...]
    folded: bool = False
    """Whether the page shows it on demand only: long lists beside what they were condensed to."""
    printed: pd.DataFrame | None = None
    """The rows of the frame that are printed; None: all."""

    @property
    def rows(self) -> pd.DataFrame:
        """The printed rows."""
        return self.frame if self.printed is None else self.printed

    @property
    def cells(self) -> list[list[Cell]]:
        """The printed cells, row by row."""
        return [[column.cell(row) for column in self.columns] for row in self.rows.to_dict("records")]


def thinned(table: Table, chosen: pd.Series | None = None) -> Table:
    """The table with the chosen rows printed, by default `MOST` at even distances; its caption says so."""
    printed = table.frame[chosen if chosen is not None else evenly(pd.Series(False, table.frame.index))]
    if len(printed) == len(table.frame):
        return table
    note = f"Printed: {len(printed):,} of {len(table.frame):,} rows; the CSV file has all."
    return replace(table, printed=printed, caption=f"{table.caption} {note}".strip())


def evenly(telling: pd.Series, most: int = MOST) -> pd.Series:
    """Of many rows the telling ones, and as many of the others, at even distances, as there is room for."""
    others = np.flatnonzero(~telling)
    room = min(max(most - int(telling.sum()), 0), len(others))
    chosen = telling.to_numpy(bool).copy()
    chosen[others[np.linspace(0, len(others) - 1, room).round().astype(int)]] = True
    return pd.Series(chosen, telling.index)


RATE = {"wer_low": "low", "wer_high": "high", "wer_spread": "spread", "wer_seeds": "n"}
"""What `rate("wer", ...)` prints behind a rate, and what a study's settings call it."""
GAP = ("gap", "gap_low", "gap_high")
"""A difference and its interval, as `gap` prints them."""


def with_rates(settings: pd.DataFrame) -> pd.DataFrame:
    """Settings of a study (`Study.settings`) with the columns `RATE`."""
    return settings.assign(**{name: settings[column] for name, column in RATE.items()})


def rate(key: str, header: str, bold: str = "", missing: str = "") -> Column:
    """A column of error rates in per cent; bold where the frame's column `bold` says so.

    Behind them the interval that `KEY_low` and `KEY_high` tell, or over several `KEY_seeds` their `KEY_spread`.
    """

    def small(row: Row) -> str:
        return interval(*(row.get(f"{key}_{part}", 1) for part in ("low", "high", "spread", "seeds")))

    return Column(key, header, "r", percent, small, lambda row: bool(bold) and row[bold] == 1, missing)


def gap(header: str, missing: str = "") -> Column:
    """A column of differences of rates in points, behind them their intervals: the columns `GAP`."""

    def small(row: Row) -> str:
        _, low, high = (row[name] for name in GAP)
        return "" if pd.isna(low) or pd.isna(high) else f"[{points(low)}, {points(high)}]"

    return Column("gap", header, "r", points, small, missing=missing)


def interval(low: float, high: float, spread: float, seeds: float) -> str:
    """The interval of a rate; of several seeds their spread."""
    if seeds > 1:
        return f"± {percent(spread)} ({seeds:.0f} seeds)"
    return "" if pd.isna(low) or pd.isna(high) else f"[{percent(low)}, {percent(high)}]"
