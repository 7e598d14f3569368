"""Runs that quantize every layer alike, in one series per method and kind; and the rows of tables by bit width."""

from collections.abc import Sequence
from dataclasses import dataclass

from analysis.bits import uniform
from analysis.records import FLOAT, Run
from analysis.study import Study
from analysis.style import order

ALONE = "weights alone"
SAME = "activations as weights"
PART = "encoder"


@dataclass(frozen=True)
class Series:
    """One method at several weight widths, its activations treated alike."""

    policy: str
    """The method: a policy, and its variant if the study has several."""
    kind: str
    """`weights alone`, `activations as weights`, or `8-bit activations`; of a table's other rows what they are."""
    runs: dict[int, list[Run]]
    """Weight bits -> runs, most bits first."""

    @property
    def trained(self) -> bool:
        """Whether training steps went into these runs."""
        return any(run.raw.get("steps") for runs in self.runs.values() for run in runs)


def series(study: Study) -> list[Series]:
    """The study's uniform runs in series of two widths or more, weights alone first."""
    runs = [(widths, run) for run in study.trials if (widths := uniform(run))]
    kinds = _kinds({widths for widths, _ in runs})
    grouped: dict[tuple[str, str], dict[int, list[Run]]] = {}
    for widths, run in runs:
        for kind in kinds[widths]:
            grouped.setdefault((kind, run.method), {}).setdefault(widths[0], []).append(run)
    kept = [key for key, inside in grouped.items() if len(inside) > 1]  # one width is no series
    places = order(method for _, method in kept)
    keys = sorted(kept, key=lambda key: (key[0] != ALONE, key[0] == SAME, key[0], places.index(key[1])))
    return [Series(method, kind, dict(sorted(grouped[kind, method].items(), reverse=True))) for kind, method in keys]


def rows(study: Study) -> list[Series]:
    """The rows of a table by width: float runs for reference, the series, and runs with few bits in the encoder."""
    floats = [Series(run.title, "float", {FLOAT: [run]}) for run in study.finished if run.policy == "float"]
    parts: dict[tuple[str, str], dict[int, list[Run]]] = {}
    for run in study.trials:
        if found := _encoder(run):
            parts.setdefault((found[1], run.method), {}).setdefault(found[0], []).append(run)
    encoders = [
        Series(method, kind, dict(sorted(runs.items(), reverse=True))) for (kind, method), runs in parts.items()
    ]
    return [*floats, *series(study), *encoders]


def _encoder(run: Run) -> tuple[int, str] | None:
    """(weight bits of the encoder, what the rest has) if `encoder_only` made the run and its encoder is uniform."""
    inside, outside = (
        {width.weight for name, width in run.widths.items() if name.startswith("encoder.") == whether}
        for whether in (True, False)
    )
    if run.policy != "encoder_only" or len(inside) != 1 or len(outside) != 1:
        return None
    rest = outside.pop()
    return inside.pop(), f"{PART}; rest " + ("in float" if rest == FLOAT else f"at {rest} bits")


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


def representative(runs: Sequence[Run], split: str) -> Run:
    """The run in the middle by word error rate (of an even number, the better): no picking of lucky ones."""
    ordered = sorted(runs, key=lambda run: run.scores[split].wer)
    return ordered[(len(ordered) - 1) // 2]


def widths(found: Sequence[Series]) -> list[int]:
    """Every width that occurs, most bits first."""
    return sorted({width for one in found for width in one.runs}, reverse=True)
