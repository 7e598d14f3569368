"""What word error rate is weighed against: packed size, and latency on an accelerator."""

from collections.abc import Callable
from dataclasses import dataclass

from analysis.records import Run
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
    unit: float
    """Divides raw values."""
    of: Callable[[Run], float | None]
    """Raw value of a run."""
    reference: float | None
    """Raw value of the float baseline."""
    budget: float | None
    """Raw value."""
    words: Callable[[float], str]
    """A raw value with its unit, for readers."""
    octaves: bool
    """Ticks at powers of two."""


def size_cost(study: Study) -> Cost:
    """Packed size in MiB, or in KiB where every model is small."""
    sizes = [run.size_bytes for run in study.runs if run.size_bytes]
    unit, name = (MIB, "MiB") if max(sizes, default=MIB) >= MIB else (1024, "KiB")
    return Cost(
        name="wer_vs_size",
        title="Word error rate against size",
        axis=f"Packed model size ({name})",
        unit=unit,
        of=lambda run: run.size_bytes or None,
        reference=study.reference.size_bytes if study.reference else None,
        budget=study.size_budget,
        words=size,
        octaves=True,
    )


def latency_cost(study: Study, accelerator: str) -> Cost:
    """Simulated latency on one accelerator, in ms; the first accelerator's figure has the plain file name."""
    first = accelerator == study.accelerators[0]
    return Cost(
        name="wer_vs_latency" if first else f"wer_vs_latency_{slug(accelerator)}",
        title=f"Word error rate against latency on {accelerator}",
        axis=f"Simulated latency on {accelerator} (ms)",
        unit=1.0,
        of=lambda run: run.latency_ms.get(accelerator) or None,
        reference=study.reference.latency_ms.get(accelerator) if study.reference else None,
        budget=study.latency_budgets.get(accelerator),
        words=lambda value: f"{number(value)} ms",
        octaves=False,
    )


def costs(study: Study) -> list[Cost]:
    """Size, then latency on every accelerator that runs were simulated on."""
    return [size_cost(study), *(latency_cost(study, name) for name in study.accelerators)]
