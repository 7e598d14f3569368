"""The picture of `qstudy sensitivity`."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from qstudy.files import replacing
from qstudy.sweep.screening.sensitivity import Row

LEAST = 1e-3  # nats per label: what is less, or a gain, is drawn as nothing


def draw_sensitivity(rows: Sequence[Row], path: Path) -> None:
    """Draw places over values, coloured by the loss that they add, with the word error rate in each cell; as PNG.

    Raises:
        UserError: the folder cannot be written.
    """
    widest, changed = rows[0], rows[1:]
    places = list(dict.fromkeys(row.place for row in changed))
    values = sorted({row.value for row in changed}, key=_order)
    more = np.full((len(places), len(values)), np.nan)
    figure = Figure(figsize=(2.8 + 0.75 * len(values), 1.6 + 0.3 * len(places)), layout="constrained")
    axes = figure.subplots()
    for row in changed:
        cell = places.index(row.place), values.index(row.value)
        more[cell] = max(row.loss_increase, LEAST)
        axes.text(cell[1], cell[0], f"{100 * row.wer:.1f}", ha="center", va="center", fontsize=7)
    worst = max(float(np.nanmax(more)), 10 * LEAST)
    image = axes.imshow(more, aspect="auto", cmap="YlOrRd", norm=LogNorm(LEAST, 3 * worst))  # text stays readable
    figure.colorbar(image, label="Added loss (nats per label)")
    axes.set(xticks=range(len(values)), xticklabels=values, yticks=range(len(places)), yticklabels=places)
    axes.set_xlabel("Value; all else at its widest")
    axes.set_title(f"Dev WER (%); {100 * widest.wer:.1f} with all at their widest", fontsize=9)
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=150)


def _order(value: str) -> tuple[float, str]:
    return (-float(value), "") if value.isdigit() else (0.0, value)
