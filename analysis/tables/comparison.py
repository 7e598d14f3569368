"""One table over several sets or several studies: a row per method and widths, a column per set."""

from collections.abc import Sequence
from functools import partial

import pandas as pd

from analysis.architectures import architectures_of
from analysis.measures import compression
from analysis.study import Study, middle
from analysis.tables.table import Column, Table, rate
from analysis.text import DASH, number

KEYS = ["policy", "bits", "architecture"]
"""Method, widths in words, and the model's architecture: what makes settings of different studies comparable."""


def comparison(studies: Sequence[Study]) -> Table | None:
    """Word error rates of every setting on every set of every study; None if there is only one such column."""
    if sum(len(study.splits) for study in studies) < 2:
        return None
    several = len(studies) > 1
    columns, parts, sizes = [], [], []
    for study in studies:
        prefix = f"{study.name} " if several else ""
        found = pd.concat([study.references, study.settings], ignore_index=True)
        found = found.assign(policy=found.title, architecture=_models(study, found))
        found = middle(found, KEYS).set_index(KEYS)
        columns += _columns(study, prefix)
        parts.append(_values(study, found, prefix.replace(" ", "_")))
        sizes.append(found.size_bytes)
    frame = pd.concat([*parts, -pd.concat(sizes, axis=1).max(axis=1).rename("size")], axis=1).reset_index()
    frame = frame.assign(later=frame.policy != "float baseline").sort_values(["later", "size", *KEYS], kind="stable")
    named = [Column("policy", "Policy"), Column("bits", "Bits"), Column("architecture", "Architecture")]
    columns = [*named[: 2 + (frame.architecture.nunique() > 1)], *columns]
    caption = (
        f"Word error rates (%) with 95 % intervals on {'each study and set' if several else 'each set'}. "
        "Where several settings share a row, the middle one of those with the most seeds is shown."
    )
    return Table("comparison", "Across data sets", caption, frame.drop(columns=["later", "size"]), tuple(columns))


def _models(study: Study, found: pd.DataFrame) -> pd.Series:
    """The architectures; where one comes in several sizes, with the parameters of each."""
    names = found.run.map(architectures_of(study))
    parameters = found.parameters.where(found.parameters > 0)
    sizes = parameters.groupby(names).transform("nunique")
    counts = parameters.map(lambda count: f" ({count / 1e6:.3g} M)", na_action="ignore").fillna("")
    return names + counts.where(sizes > 1, "")


def _values(study: Study, found: pd.DataFrame, prefix: str) -> pd.DataFrame:
    values = {f"{prefix}compression": compression(found)}
    for split in study.splits:
        parts = {"": "wer", "_low": "low", "_high": "high", "_spread": "spread", "_seeds": "n"}
        values |= {f"{prefix}{split}_wer{part}": found[f"{column}.{split}"] for part, column in parts.items()}
    return pd.DataFrame(values)


def _columns(study: Study, prefix: str) -> list[Column]:
    key, two = prefix.replace(" ", "_"), partial(number, digits=2)
    rates = [rate(f"{key}{split}_wer", f"{prefix}{split} (%)", missing=DASH) for split in study.splits]
    return [Column(f"{key}compression", f"{prefix}vs float (×)", "r", two, missing=DASH), *rates]
