"""Tables by bit width: word error rates, and what they cost in bytes and in training time."""

from collections.abc import Mapping

import pandas as pd

from analysis.series import rows, series
from analysis.study import Study
from analysis.tables.claims import shown_not_worse
from analysis.tables.table import Column, Row, Table, rate
from analysis.text import MIB, number
from qstudy.bits import FLOAT

NAMES = (Column("kind", "Quantized"), Column("policy", "Policy"))
KEYS = ["kind", "name"]
RATES = {"": "wer"} | {f"_{name}": name for name in ("low", "high", "not_worse", "spread", "seeds", "runs")}
COSTS = {"": "mib", "_step_ms": "step_ms"}


def wer_by_width(study: Study) -> Table | None:
    """Word error rates: a row per series, a column per weight width; None without series."""
    if series(study).empty:
        return None
    found = rows(study).rename(columns={"n": "seeds"})
    found["not_worse"] = found.setting.isin(shown_not_worse(study)).astype(float)
    frame, widths = _wide(found, "wer", RATES)
    columns = [rate(f"wer_{width}", _header(width), f"wer_{width}_not_worse") for width in widths]
    caption = (
        f"WER (%) on {study.described_split} by weight width, every layer alike, with 95 % bootstrap intervals over "
        f"{study.resampled}{_seeds(found)}. Where several settings share a cell, it shows the middle one of "
        "those with the most seeds. Bold: shown to be not worse than float, see the claims."
    )
    return Table("wer_by_width", "Word error rate by bit width", caption, frame, (*NAMES, *columns))


def cost_by_width(study: Study) -> Table | None:
    """Packed size and time of a training step, in the same rows and columns."""
    if series(study).empty:
        return None
    frame, widths = _wide(rows(study).eval(f"mib = size_bytes / {MIB}"), "size_mib", COSTS)
    columns = [_cost(f"size_mib_{width}", _header(width)) for width in widths]
    caption = (
        "Packed size (MiB), and behind it the median time of a training step (ms) as it was in the study, its workers "
        "beside each other; without it: not trained there. `make bench` measures steps alone and against peers."
    )
    return Table("cost_by_width", "Size and training step by bit width", caption, frame, (*NAMES, *columns))


def _wide(found: pd.DataFrame, key: str, parts: Mapping[str, str]) -> tuple[pd.DataFrame, list[int]]:
    """A row per series, for every width the columns `KEY_WIDTH` + part; and the widths, most bits first."""
    widths = sorted({int(width) for width in found.width}, reverse=True)
    wide = found.pivot(index=KEYS, columns="width", values=list(parts.values()))
    wide = wide.reindex(pd.MultiIndex.from_frame(found[KEYS].drop_duplicates()))
    frame = pd.DataFrame(
        {f"{key}_{width}{part}": wide[column, width] for width in widths for part, column in parts.items()}
    )
    whole = [name for name in frame if name.endswith(("_runs", "_seeds", "_not_worse"))]
    return frame.astype(dict.fromkeys(whole, "Int64")).reset_index(names=["kind", "policy"]), widths


def _header(width: int) -> str:
    return "float" if width == FLOAT else f"{width} bits"


def _cost(key: str, header: str) -> Column:
    def step(row: Row) -> str:
        milliseconds = row[f"{key}_step_ms"]
        return f"{number(milliseconds)} ms" if milliseconds > 0 else ""

    return Column(key, header, "r", number, step)


def _seeds(found: pd.DataFrame) -> str:
    most = int(found.seeds.max())
    return "" if most == 1 else f", or the standard deviation over up to {most} seeds where there are several"
