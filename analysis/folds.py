"""A table of a recipe that was trained as often as there are speakers to leave out: its errors with each of them.

qstudy report runs/unheard --out reports/unheard --table analysis.folds.folds
"""

import json
from typing import Any

import numpy as np
import pandas as pd

from analysis.study import MAKE, Study
from analysis.tables.table import Column, Row, Table
from analysis.text import percent

MEAN = "mean"


def folds(study: Study) -> Table | None:
    """A row per fold, and one of their mean for each policy, a column per test set; None: all have one corpus."""
    known = study.finished if study.trials.empty else study.trials
    options = [name for name in study.corpus_options if name != f"{MAKE}.out"]
    if not options:
        return None
    rows = []
    for _, runs in known.groupby(["title", "label"], sort=False):
        ordered = runs.assign(fold=runs[options].map(_shown).agg(", ".join, axis=1)).sort_values("fold", kind="stable")
        rows += [_row(study, one) for _, one in ordered.iterrows()]
        rows.append(_mean(study, ordered))
    named = " and ".join(name.removeprefix(f"{MAKE}.") for name in options)
    caption = (
        f"One recipe on {len(known[options].drop_duplicates())} corpora that differ in {named}, a model for "
        "each. Word error rates with 95 % intervals; of the mean the standard deviation over folds."
    )
    columns = (
        Column("fold", named.capitalize(), bold=_is_mean),
        Column("title", "Policy"),
        Column("bits", "Bits"),
        *map(_column, study.splits),
    )
    return Table("folds", "What was left out of training", caption, pd.DataFrame(rows), columns)


def _row(study: Study, one: pd.Series) -> dict[str, Any]:
    rates = [f"{part}.{name}" for name in study.splits for part in ("wer", "low", "high")]
    return {"fold": one.fold, "title": one.title, "bits": one.bits, "run": one.run, **one[rates].to_dict()}


def _mean(study: Study, runs: pd.DataFrame) -> dict[str, Any]:
    first = runs.iloc[0]
    rates = {f"wer.{name}": runs[f"wer.{name}"].mean() for name in study.splits}
    spreads = {f"spread.{name}": runs[f"wer.{name}"].std() for name in study.splits}
    return {"fold": MEAN, "title": first.title, "bits": first.bits, "run": first.run, **rates, **spreads}


def _column(name: str) -> Column:
    return Column(f"wer.{name}", f"{name}: WER (%)", "r", percent, lambda row: _small(row, name), _is_mean)


def _is_mean(row: Row) -> bool:
    return bool(row["fold"] == MEAN)


def _small(row: Row, name: str) -> str:
    if _is_mean(row):
        spread = row[f"spread.{name}"]
        return "" if np.isnan(spread) else f"± {percent(spread)}"
    return f"[{percent(row[f'low.{name}'])}, {percent(row[f'high.{name}'])}]"


def _shown(option: Any) -> str:
    """An option's value; of a list, which is JSON here, its items."""
    found = json.loads(option) if isinstance(option, str) and option.startswith("[") else option
    return " ".join(map(str, found)) if isinstance(found, list) else str(found)
