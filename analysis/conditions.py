"""A table of error rates over conditions: the same models on several test sets, such as the same speech in noise.

qstudy rescore studies/native_qat --sets '{snr10: corpora/noisy-10/test.jsonl, snr0: corpora/noisy-0/test.jsonl}'
qstudy report studies/native_qat --table analysis.conditions.conditions
"""

from dataclasses import replace

import numpy as np
import pandas as pd

from analysis.architectures import settings
from analysis.differences import Difference, between
from analysis.study import Study
from analysis.tables.table import Column, Table
from analysis.text import points
from analysis.verdicts import SHOWN, caution, not_worse, verdicts


def conditions(study: Study) -> Table | None:
    """A row per setting, a column per test set; None: there is one set alone, or no control."""
    known = settings(study).dropna(subset="gap")
    if known.empty or len(study.splits) < 2:
        return None
    names = study.splits
    controls = {place: control for place, one in known.iterrows() if (control := study.control_of(one)) is not None}
    gaps = {
        (place, name): _gap(study, known.loc[place], control, name)
        for place, control in controls.items()
        for name in names
    }
    told = {key: gap for key, gap in gaps.items() if gap is not None}
    words = dict(zip(told, map(str, verdicts([not_worse(gap) for gap in told.values()])), strict=True))
    frame = pd.DataFrame(
        [
            {
                "architecture": one.architecture,
                "title": one.title,
                "bits": one.bits,
                "run": one.run,
                **{key: value for name in names for key, value in _cell(name, one, gaps[place, name]).items()},
                **{f"verdict.{name}": words.get((place, name), "") for name in names},
            }
            for place, one in known.iterrows()
        ]
    )
    caption = (
        "Word error rates of the same models on several test sets, in per cent; small: points more than the float "
        "control of the same architecture, trained as long, has there, and of how many seeds, if of several: means are "
        "over those that both have on that set. Bold: shown to be not worse, by less than a "
        "tenth of the control's rate on that set (paired bootstrap, Holm's correction over the table)."
        f"{caution(len(told))}"
    )
    first = (Column("architecture", "Architecture"), Column("title", "Policy"), Column("bits", "Bits"))
    return Table("conditions", "The same models under other conditions", caption, frame, (*first, *map(_column, names)))


def _column(name: str) -> Column:
    return Column(
        f"wer.{name}",
        f"{name}: WER (%)",
        "r",
        lambda rate: f"{100 * rate:.2f}",
        lambda row: _small(row[f"gap.{name}"], row[f"seeds.{name}"]),
        lambda row: bool(row[f"verdict.{name}"] == SHOWN),
    )


def _small(gap: float, seeds: float) -> str:
    if np.isnan(gap):
        return ""
    return f"({points(gap)}; {seeds:.0f} seeds)" if seeds > 1 else f"({points(gap)})"


def _cell(name: str, one: pd.Series, gap: Difference | None) -> dict[str, float]:
    """What is told of a setting on a set; without a control there, its rate alone."""
    if gap is None:
        told = {"wer": one.get(f"wer.{name}", np.nan), "control": np.nan, "gap": np.nan, "seeds": np.nan}
    else:
        told = {"wer": gap.other + gap.value, "control": gap.other, "gap": gap.value, "seeds": gap.seeds}
    return {f"{key}.{name}": value for key, value in told.items()}


def _gap(study: Study, one: pd.Series, control: pd.Series, name: str) -> Difference | None:
    if np.isnan(one.get(f"wer.{name}", np.nan)) or np.isnan(control.get(f"wer.{name}", np.nan)):
        return None
    there = replace(study, split=name, runs=_on(study.runs, name))
    return between(there, one, control)


def _on(runs: pd.DataFrame, name: str) -> pd.DataFrame:
    """The runs that were tested on another set, with its rates."""
    runs = runs[runs[f"wer.{name}"].notna()]
    return runs.assign(wer=runs[f"wer.{name}"], low=runs[f"low.{name}"], high=runs[f"high.{name}"])
