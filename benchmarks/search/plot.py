"""The figure: hypervolume against seconds of training."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from benchmarks.search.curves import Curve
from qstudy.files import replacing

# Okabe and Ito's colours: told apart by colour-blind readers, and in grey by their dashes.
LOOKS = {"TPE": ("#0072B2", "--"), "NSGA-II": ("#E69F00", ":"), "screening": ("#009E73", "-")}


def draw(curves: Sequence[Curve], path: Path) -> None:
    """Draw one line per study, steps where a model was finished, and write it to `path` as PNG."""
    figure = Figure(figsize=(6.6, 3.4), layout="constrained")
    axes = figure.subplots()
    for one in curves:
        color, line = LOOKS[one.way]
        label = one.way if one.seed == 0 else None
        axes.step(one.seconds, one.volumes, where="post", color=color, ls=line, lw=1.4, label=label)
        axes.plot(one.seconds[-1:], one.volumes[-1:], color=color, marker="o", ms=4)
    axes.set(xlabel="Seconds of training (one core)", ylabel="Hypervolume (share of the box)", xlim=(0, None))
    axes.grid(alpha=0.3)
    figure.legend(title="one line per seed", loc="outside right")
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=150)
