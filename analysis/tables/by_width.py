"""Tables by bit width: word error rates, and what they cost in bytes and in training time."""

from collections.abc import Mapping

import pandas as pd

from analysis.series import rows, series
from analysis.study import Study
from analysis.tables.table import Column, Table, rate
from analysis.text import MIB, number, percent
from qstudy.bits import FLOAT

NAMES = (Column("kind", "Quantized"), Column("policy", "Policy"))


def wer_by_width(study: Study) -> Table | None:
    """Word error rates: a row per series, a column per weight width; None without series."""
    if series(study).empty:
        return None
    found = rows(study)
    within = (found.policy != "float") & (found.wer <= found.float_high)
    parts = {
        "": "wer",
        "_low": "low",
        "_high": "high",
        "_within": "within",
        "_spread": "spread",
        "_seeds": "n",
        "_runs": "runs",
    }
    frame, widths = _wide(found.assign(within=within.astype(float)), "wer", parts)
    columns = [rate(f"wer_{width}", _header(width), f"wer_{width}_within") for width in widths]
    caption = (
        f"WER (%) on {study.described_split} by weight width, every layer alike, with 95 % bootstrap intervals over "
        f"utterances{_seeds(found)}. Where several settings share a cell, it shows the one in the middle.{_bold(study)}"
    )
    return Table("wer_by_width", "Word error rate by bit width", caption, frame, (*NAMES, *columns))


def cost_by_width(study: Study) -> Table | None:
    """Packed size and time of a training step, in the same rows and columns."""
    if series(study).empty:
        return None
    found = rows(study)
    frame, widths = _wide(found.assign(mib=found.size_bytes / MIB), "size_mib", {"": "mib", "_step_ms": "step_ms"})
    columns = [_cost(f"size_mib_{width}", _header(width)) for width in widths]
    caption = (
        "Packed size (MiB), and behind it the median time of a training step (ms) as it was in the study, its workers "
        "beside each other; without it: not trained there. `make bench` measures steps alone and against peers."
    )
    return Table("cost_by_width", "Size and training step by bit width", caption, frame, (*NAMES, *columns))


def _wide(found: pd.DataFrame, key: str, parts: Mapping[str, str]) -> tuple[pd.DataFrame, list[int]]:
    """A row per series, for every width the columns `KEY_WIDTH` + part; and the widths, most bits first."""
    widths = sorted({int(width) for width in found.width}, reverse=True)
    names = pd.MultiIndex.from_frame(found[["kind", "name"]].drop_duplicates())
    values = {
        f"{key}_{width}{part}": found[found.width == width].set_index(["kind", "name"])[column].reindex(names)
        for width in widths
        for part, column in parts.items()
    }
    frame = pd.DataFrame(values, index=names).reset_index(names=["kind", "policy"])
    whole = [name for name in frame if name.endswith(("_runs", "_seeds", "_within"))]
    return frame.astype(dict.fromkeys(whole, "Int64")), widths


def _header(width: int) -> str:
    return "float" if width == FLOAT else f"{width} bits"


def _cost(key: str, header: str) -> Column:
    return Column(
        key, header, "r", number, lambda row: f"{number(row[f'{key}_step_ms'])} ms" if row[f"{key}_step_ms"] > 0 else ""
    )


def _seeds(found: pd.DataFrame) -> str:
    most = int(found.n.max())
    return "" if most == 1 else f", or the standard deviation over up to {most} seeds where there are several"


def _bold(study: Study) -> str:
    one = study.reference
    if one is None or pd.isna(one.high):
        return ""
    interval = f"[{percent(one.low)}, {percent(one.high)}]"
    return f" Bold: not above the float baseline's interval, {percent(one.wer)} {interval}."
