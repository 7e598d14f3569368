"""Word error rate by bit width: runs that quantize every layer alike, in one series per policy and kind."""

from dataclasses import dataclass

from analysis.bits import uniform
from analysis.records import FLOAT, Run
from analysis.runs_table import wer_cell
from analysis.study import Study
from analysis.tables import Cell, Column, Table
from analysis.text import DASH

ALONE = "weights alone"
SAME = "activations as weights"


@dataclass(frozen=True)
class Series:
    """One policy at several weight widths, its activations treated alike."""

    policy: str
    kind: str
    """`weights alone`, `activations as weights`, or `8-bit activations`."""
    runs: dict[int, list[Run]]
    """Weight bits -> runs, most bits first."""


def series(study: Study) -> list[Series]:
    """The study's uniform runs in series of two widths or more, weights alone first."""
    runs = [(widths, run) for run in study.trials if (widths := uniform(run))]
    kinds = _kinds({widths for widths, _ in runs})
    grouped: dict[tuple[str, str], dict[int, list[Run]]] = {}
    for widths, run in runs:
        for kind in kinds[widths]:
            grouped.setdefault((kind, run.policy), {}).setdefault(widths[0], []).append(run)
    order = {name: index for index, name in enumerate(("ptq", "fake_qat"))}
    kept = [key for key, inside in grouped.items() if len(inside) > 1]  # one width is no series
    keys = sorted(kept, key=lambda key: (key[0] != ALONE, key[0], order.get(key[1], 9), key[1]))
    return [Series(policy, kind, dict(sorted(grouped[kind, policy].items(), reverse=True))) for kind, policy in keys]


def _kinds(widths: set[tuple[int, int]]) -> dict[tuple[int, int], list[str]]:
    """What each (weight, activation) pair belongs to; 8/8 ends both the series of equal widths and that of 8 bits."""
    same = any(weight == activation != 8 for weight, activation in widths)
    kinds: dict[tuple[int, int], list[str]] = {}
    for weight, activation in widths:
        fixed = f"{activation}-bit activations"
        if activation == FLOAT:
            kinds[weight, activation] = [ALONE]
        elif weight != activation:
            kinds[weight, activation] = [fixed]
        else:
            others = any(other != activation == act for other, act in widths)
            kinds[weight, activation] = ([SAME] if same or not others else []) + (
                [fixed] if others and weight == 8 else []
            )
    return kinds


def representative(runs: list[Run], split: str) -> Run:
    """The run in the middle by word error rate (of an even number, the better): no picking of lucky ones."""
    ordered = sorted(runs, key=lambda run: run.scores[split].wer)
    return ordered[(len(ordered) - 1) // 2]


def widths_table(study: Study, found: list[Series]) -> Table:
    """Series by width."""
    widths = sorted({width for one in found for width in one.runs}, reverse=True)
    columns = [Column("kind", "Quantized"), Column("policy", "Policy")]
    for width in widths:
        columns.append(Column(f"wer_{width}", f"{width} bits", "r"))
        columns += [Column(f"wer_{width}_{end}", "", printed=False) for end in ("low", "high", "runs")]
    rows = [_row(one, widths, study.split) for one in found]
    caption = (
        f"WER (%) on {study.split} by weight width, every layer alike, with 95 % intervals{_reference(study)}. Where "
        "several runs share a cell, it shows the one in the middle; bold: the better policy at that width."
    )
    best = {(kind, column): min(values) for (kind, column), values in _values(rows, columns).items() if len(values) > 1}
    emphasized = [
        tuple(_emphasized(cell, best.get((str(row[0].value), index)))
              for index, cell in enumerate(row)) for row in rows
    ]  # fmt: skip
    return Table("wer_by_width", "Word error rate by bit width", caption, tuple(columns), tuple(emphasized))


def _row(one: Series, widths: list[int], split: str) -> list[Cell]:
    row = [Cell(one.kind, one.kind), Cell(one.policy, one.policy)]
    for width in widths:
        if width not in one.runs:
            row += [Cell(DASH), Cell(""), Cell(""), Cell("")]
            continue
        scores = representative(one.runs[width], split).scores[split]
        row += [wer_cell(scores), Cell("", scores.low), Cell("", scores.high), Cell("", len(one.runs[width]))]
    return row


def _values(rows: list[list[Cell]], columns: list[Column]) -> dict[tuple[str, int], list[float]]:
    values: dict[tuple[str, int], list[float]] = {}
    for row in rows:
        for index, column in enumerate(columns):
            if column.align == "r" and isinstance(value := row[index].value, float):
                values.setdefault((str(row[0].value), index), []).append(value)
    return values


def _emphasized(cell: Cell, lowest: float | None) -> Cell:
    bold = lowest is not None and cell.value == lowest
    return Cell(cell.text, cell.value, cell.interval, bold) if bold else cell


def _reference(study: Study) -> str:
    if study.float_scores is None:
        return ""
    cell = wer_cell(study.float_scores)
    return f"; float baseline: {cell.text} {cell.interval}".rstrip()
