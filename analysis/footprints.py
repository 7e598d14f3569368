"""A table of two ways to spend as many bytes: a smaller model at 8 bits, or a larger one at fewer.

The claim is that of Zhen et al. 2022 (arXiv 2206.15408): at the same footprint the larger model makes fewer errors.

    qstudy report studies/s8bqat --table analysis.footprints.footprints
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from analysis.differences import Difference, between
from analysis.study import Study
from analysis.tables.table import RATE, Column, Table, gap, rate
from analysis.text import DASH, MIB, change, number
from analysis.verdicts import verdicts

EIGHT = 8
CLOSE = 0.06
"""By how much two sizes may differ that count as one footprint."""
COLUMNS = (
    Column("size_mib", "MiB", "r", number),
    Column("small", "Parameters at 8 bits", "r", "{:,.0f}".format),
    rate("small_wer", "its WER (%) [95 %]"),
    Column("large", "Parameters at fewer", "r", "{:,.0f}".format),
    Column("bits", "bits"),
    Column("method", "Policy"),
    rate("wer", "its WER (%) [95 %]"),
    gap("Δ (points)"),
    Column("relative", "Δ (%)", "r", change),
    Column("verdict", "Better?"),
    Column("faster", "Latency (%)", "r", change, missing=DASH),
)


def footprints(study: Study) -> Table | None:
    """A row per model of fewer bits and the 8-bit one nearest to it in size; None: no two are of one size."""
    pairs = list(_pairs(study.settings))
    if not pairs:
        return None
    gaps = [between(study, large, small) for large, small in pairs]
    told = verdicts(gaps)
    rows = [_row(*pair, one, str(verdict)) for pair, one, verdict in zip(pairs, gaps, told, strict=True)]
    caption = (
        f"Two models of one size (to {CLOSE:.0%}): fewer parameters at 8 bits, or more at fewer bits; on "
        f"{study.described_split}. Δ: the larger model's WER minus the smaller's, with the 95 % interval of a paired "
        f"bootstrap over {study.resampled}; better: below 0, with Holm's correction over the table. Latency: of the "
        f"larger against the smaller, simulated on {next(iter(study.accelerators), 'no accelerator')}."
    )
    return Table("footprints", "The same bytes, spent on parameters or on bits", caption, pd.DataFrame(rows), COLUMNS)


def _pairs(settings: pd.DataFrame) -> Iterator[tuple[pd.Series, pd.Series]]:
    """(larger model of fewer bits, 8-bit model of nearly its size), smallest first."""
    ordered = settings[settings.uniform & (settings.size_bytes > 0)].sort_values("size_bytes", kind="stable")
    eights = ordered[ordered.weight_bits == EIGHT]
    for _, large in ordered[ordered.weight_bits < EIGHT].iterrows():
        near = eights[(eights.size_bytes / large.size_bytes - 1).abs() <= CLOSE]
        near = near[near.parameters < large.parameters]
        for place in (near.size_bytes - large.size_bytes).abs().sort_values().index[:1]:
            yield large, near.loc[place]


def _row(large: pd.Series, small: pd.Series, found: Difference, verdict: str) -> dict[str, Any]:
    return {
        "size_mib": large.size_bytes / MIB,
        "small": small.parameters,
        "large": large.parameters,
        "bits": large.bits,
        "method": large.method,
        "gap": found.value,
        "gap_low": found.low,
        "gap_high": found.high,
        "relative": found.value / small.wer if small.wer else np.nan,
        "verdict": verdict,
        "faster": large.latency_ms / small.latency_ms - 1,
        "run": large.run,
        "small_run": small.run,
        "small_size_mib": small.size_bytes / MIB,
        **_rates("", large),
        **_rates("small_", small),
    }


def _rates(prefix: str, one: pd.Series) -> dict[str, float]:
    return {f"{prefix}{name}": one[column] for name, column in {"wer": "wer", **RATE}.items()}
