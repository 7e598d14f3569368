"""What word error rate is weighed against: packed size, and latency on an accelerator."""

from collections.abc import Callable
from dataclasses import dataclass

from analysis.study import Study
from analysis.text import MIB, number, size, slug


@dataclass(frozen=True)
class Cost:
    """One horizontal axis."""

    name: str
    """File name of its figure."""
    title: str
    axis: str
    """Axis label with its unit."""
    column: str
    """Of the runs."""
    unit: float
    """Divides raw values."""
    budget: float | None
    """Raw value."""
    words: Callable[[float], str]
    """A raw value with its unit, for readers."""
    octaves: bool
    """Ticks at powers of two."""


def costs(study: Study) -> list[Cost]:
    """Size, then latency on every accelerator that runs were simulated on."""
    return [_size(study), *(_latency(study, name) for name in study.accelerators)]


def _size(study: Study) -> Cost:
    """Packed size in MiB, or in KiB where every model is small."""
    largest = study.runs.size_bytes.max()
    unit, name = (1024, "KiB") if largest < MIB else (MIB, "MiB")
    return Cost(
        name="wer_vs_size",
        title="Word error rate against size",
        axis=f"Packed model size ({name})",
        column="size_bytes",
        unit=unit,
        budget=study.size_budget,
        words=size,
        octaves=True,
    )


def _latency(study: Study, accelerator: str) -> Cost:
    """Simulated latency on one accelerator, in ms; the first accelerator's figure has the plain file name."""
    first = accelerator == study.accelerators[0]
    return Cost(
        name="wer_vs_latency" if first else f"wer_vs_latency_{slug(accelerator)}",
        title=f"Word error rate against latency on {accelerator}",
        axis=f"Simulated latency on {accelerator} (ms)",
        column=f"latency_ms.{accelerator}",
        unit=1.0,
        budget=study.latency_budgets.get(accelerator),
        words=lambda value: f"{number(value)} ms",
        octaves=False,
    )
