"""Tables by bit width: word error rates, and what they cost in bytes and in training time."""

from collections.abc import Sequence

from analysis.records import FLOAT, Run, Scores
from analysis.runs_table import wer_cell
from analysis.study import Study
from analysis.tables import Cell, Column, Table
from analysis.text import MIB, number
from analysis.widths import Series, representative, widths


def widths_table(study: Study, found: Sequence[Series]) -> Table:
    """Word error rates: a row per series, a column per weight width."""
    columns = _columns(found, "wer", ("low", "high", "runs"))
    rows = tuple(
        (*_names(one), *(cell for width in widths(found) for cell in _rates(one, width, study))) for one in found
    )
    caption = (
        f"WER (%) on {study.described_split} by weight width, every layer alike, with 95 % bootstrap intervals over "
        f"utterances. Where several runs share a cell, it shows the one in the middle.{_bold(study.float_scores)}"
    )
    return Table("wer_by_width", "Word error rate by bit width", caption, columns, rows)


def costs_table(study: Study, found: Sequence[Series]) -> Table:
    """Packed size and time of a training step, in the same rows and columns."""
    columns = _columns(found, "size_mib", ("step_ms",))
    rows = tuple(
        (*_names(one), *(cell for width in widths(found) for cell in _costs(one, width, study))) for one in found
    )
    caption = (
        "Packed size (MiB), and behind it the median time of a training step (ms) as it was in the study, its workers "
        "beside each other; without it: not trained there. `make bench` measures steps alone and against peers."
    )
    return Table("cost_by_width", "Size and training step by bit width", caption, columns, rows)


def _columns(found: Sequence[Series], key: str, more: Sequence[str]) -> tuple[Column, ...]:
    columns = [Column("kind", "Quantized"), Column("policy", "Policy")]
    for width in widths(found):
        columns.append(Column(f"{key}_{width}", "float" if width == FLOAT else f"{width} bits", "r"))
        columns += [Column(f"{key}_{width}_{name}", "", printed=False) for name in more]
    return tuple(columns)


def _names(one: Series) -> list[Cell]:
    return [Cell(one.kind, one.kind), Cell(one.policy, one.policy)]


def _shown(one: Series, width: int, study: Study) -> Run | None:
    return representative(one.runs[width], study.split) if width in one.runs else None


def _rates(one: Series, width: int, study: Study) -> list[Cell]:
    run = _shown(one, width, study)
    if run is None:
        return [Cell(""), Cell(""), Cell(""), Cell("")]
    scores = run.scores[study.split]
    lossless = run.policy != "float" and within(scores, study.float_scores)
    return [wer_cell(scores, lossless), Cell("", scores.low), Cell("", scores.high), Cell("", len(one.runs[width]))]


def within(scores: Scores, reference: Scores | None) -> bool:
    """Whether a rate is within the reference's interval, or below it."""
    return reference is not None and reference.interval is not None and scores.wer <= reference.interval[1]


def _costs(one: Series, width: int, study: Study) -> list[Cell]:
    run = _shown(one, width, study)
    if run is None:
        return [Cell(""), Cell("")]
    mib = run.size_bytes / MIB if run.size_bytes else None
    step = f"{number(run.step_ms)} ms" if run.step_ms else ""
    return [Cell(number(mib), mib, step), Cell("", run.step_ms)]


def _bold(reference: Scores | None) -> str:
    if reference is None or reference.interval is None:
        return ""
    cell = wer_cell(reference)
    return f" Bold: not above the float baseline's interval, {cell.text} {cell.interval}."
