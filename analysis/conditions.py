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
from analysis.verdicts import MARGIN, SHOWN, verdicts


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
    bounds = [MARGIN * float(controls[place][f"wer.{name}"]) for place, name in told]
    words = dict(zip(told, map(str, verdicts(list(told.values()), bounds)), strict=True))
    frame = pd.DataFrame(
        [
            {
                "architecture": one.architecture,
                "title": one.title,
                "bits": one.bits,
                "run": one.run,
                **{f"wer.{name}": one.get(f"wer.{name}", np.nan) for name in names},
                **{f"control.{name}": controls[place].get(f"wer.{name}", np.nan) for name in names},
                **{f"gap.{name}": gap.value if (gap := gaps[place, name]) else np.nan for name in names},
                **{f"verdict.{name}": words.get((place, name), "") for name in names},
            }
            for place, one in known.iterrows()
        ]
    )
    caption = (
        "Word error rates of the same models on several test sets, in per cent; small: points more than the float "
        "control of the same architecture, trained as long, has there. Bold: shown to be not worse, by less than a "
        "tenth of the control's rate on that set (paired bootstrap, Holm's correction over the table)."
    )
    first = (Column("architecture", "Architecture"), Column("title", "Policy"), Column("bits", "Bits"))
    return Table("conditions", "The same models under other conditions", caption, frame, (*first, *map(_column, names)))


def _column(name: str) -> Column:
    return Column(
        f"wer.{name}",
        f"{name}: WER (%)",
        "r",
        lambda rate: f"{100 * rate:.2f}",
        lambda row: f"({points(row[f'gap.{name}'])})" if not np.isnan(row[f"gap.{name}"]) else "",
        lambda row: bool(row[f"verdict.{name}"] == SHOWN),
    )


def _gap(study: Study, one: pd.Series, control: pd.Series, name: str) -> Difference | None:
    if np.isnan(one.get(f"wer.{name}", np.nan)) or np.isnan(control.get(f"wer.{name}", np.nan)):
        return None
    there = replace(study, split=name, runs=_on(study.runs, name))
    return between(there, one, control)


def _on(runs: pd.DataFrame, name: str) -> pd.DataFrame:
    """The runs that were tested on another set, with its rates."""
    runs = runs[runs[f"wer.{name}"].notna()]
    return runs.assign(wer=runs[f"wer.{name}"], low=runs[f"low.{name}"], high=runs[f"high.{name}"])
