"""One table over several sets or several studies: a row per setting, a column per set."""

from collections.abc import Sequence

from analysis.bits import describe
from analysis.records import Run, Scores
from analysis.runs_table import wer_cell
from analysis.study import Study
from analysis.tables import Cell, Column, Table
from analysis.text import DASH, number
from analysis.widths import representative

Setting = tuple[str, str]
"""(policy, widths in words): what makes runs of different studies comparable."""


def comparison(studies: Sequence[Study]) -> Table | None:
    """Word error rates of every setting on every set of every study; None if there is only one such column."""
    sets = [(study, split) for study in studies for split in _splits(study)]
    if len(sets) < 2:
        return None
    settings = list(
        dict.fromkeys(setting for study in studies for run in study.finished for setting in [_setting(run)])
    )
    several = len(studies) > 1
    columns = [Column("policy", "Policy"), Column("bits", "Bits")]
    for study in studies:
        prefix = f"{study.name} " if several else ""
        columns.append(Column(f"{prefix}compression".replace(" ", "_"), f"{prefix}vs float (×)", "r"))
        for split in _splits(study):
            columns.append(Column(f"{prefix}{split} wer".replace(" ", "_"), f"{prefix}{split} (%)", "r"))
    rows = [_row(setting, studies) for setting in sorted(settings, key=lambda setting: _order(setting, studies))]
    caption = (
        f"Word error rates (%) with 95 % intervals on {'each study and set' if several else 'each set'}. "
        "Where several runs share a setting, the one in the middle is shown."
    )
    return Table("comparison", "Across data sets", caption, tuple(columns), tuple(rows))


def _splits(study: Study) -> list[str]:
    """The reported set and the others; not the one that guided the training of a model that was tested elsewhere."""
    names = {split for run in study.finished for split in run.scores if study.split != "test" or split != "dev"}
    return sorted(names, key=lambda name: (name != study.split, name))


def _setting(run: Run) -> Setting:
    return run.title, describe(run)


def _order(setting: Setting, studies: Sequence[Study]) -> tuple[bool, float, Setting]:
    """The baseline first, then from large to small."""
    sizes = [run.size_bytes or 0.0 for study in studies for run in study.finished if _setting(run) == setting]
    return setting[0] != "float baseline", -max(sizes, default=0.0), setting


def _row(setting: Setting, studies: Sequence[Study]) -> tuple[Cell, ...]:
    row = [Cell(setting[0], setting[0]), Cell(setting[1], setting[1])]
    for study in studies:
        runs = [run for run in study.finished if _setting(run) == setting]
        chosen = representative(runs, study.split) if runs else None
        row.append(_compression(chosen, study))
        scores: list[Scores | None] = [chosen.scores.get(split) if chosen else None for split in _splits(study)]
        row += [wer_cell(score) for score in scores]
    return tuple(row)


def _compression(run: Run | None, study: Study) -> Cell:
    floats = study.reference.size_bytes if study.reference else None
    if run is None or not floats or not run.size_bytes:
        return Cell(DASH)
    return Cell(number(floats / run.size_bytes, 2), floats / run.size_bytes)
