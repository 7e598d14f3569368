"""The pictures of `qstudy simulate` (a roofline and where the time goes) and `qstudy beams` (latency over beams)."""

from math import atan, degrees
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.patches import Patch
from matplotlib.ticker import ScalarFormatter

from qstudy.files import replacing
from qstudy.hardware.accelerator import Accelerator
from qstudy.hardware.beams import BeamCurves
from qstudy.hardware.simulator import UNKNOWN, OperatorReport, Report

# Okabe and Ito's colours: told apart by colour-blind readers, and in grey by their lightness.
COLOURS = {
    "compute": "#009E73",
    "bandwidth": "#0072B2",
    "on-chip bandwidth": "#56B4E9",
    "element-wise": "#E69F00",
    "expansion": "#CC79A7",
    "hand-over": "#D55E00",
}


def write_plot(reports: list[Report], accelerators: list[Accelerator], path: Path) -> None:
    """Draw a roofline and a bar chart per report, side by side, and write them to `path`.

    Raises:
        UserError: the folder cannot be written.
    """
    bars = max(len(_layers(report)) for report in reports)
    figure, axes = plt.subplots(
        2,
        len(reports),
        figsize=(7.5 * len(reports), 5.4 + 0.34 * bars),
        height_ratios=[4.2, 1 + 0.34 * bars],
        squeeze=False,
        sharex="row",
        layout="constrained",
    )
    limits = _limits(reports)
    for report, accelerator, (top, bottom) in zip(reports, accelerators, axes.T, strict=True):
        top.set_title(_plain(f"{report.model} on {report.accelerator}"), loc="left", fontweight="bold")
        _roofs(top, accelerator, limits)
        _points(top, report)
        _bars(bottom, report)
        bottom.invert_yaxis()
    for top in axes[0, 1:]:
        top.sharey(axes[0, 0])
    axes[0, 0].autoscale(axis="y")
    figure.legend(handles=_legend(reports), loc="outside lower center", ncols=6, frameon=False)
    with replacing(path) as temporary:
        figure.savefig(temporary, format=path.suffix[1:], dpi=150)
    plt.close(figure)


def write_beam_plot(curves: BeamCurves, path: Path) -> None:
    """Draw latencies over beams, one line for each of the widths that the device computes in; raises as above."""
    figure, axis = plt.subplots(figsize=(6.4, 4.2), layout="constrained")
    for (name, latencies), colour, marker in zip(curves.latency_ms.items(), COLOURS.values(), "osD^vP", strict=False):
        points = [(beam, ms) for beam, ms in zip(curves.beams, latencies, strict=True) if ms is not None]
        axis.plot(*zip(*points, strict=True) if points else ([], []), color=colour, marker=marker, label=_plain(name))
    axis.set_xscale("log", base=2)
    if any(ms for latencies in curves.latency_ms.values() for ms in latencies):
        axis.set_yscale("log")
    else:
        axis.text(0.5, 0.5, "unknown", transform=axis.transAxes, ha="center")
    axis.set_xticks(curves.beams, [str(beam) for beam in curves.beams])
    axis.yaxis.set_major_formatter(ScalarFormatter())
    axis.yaxis.set_minor_formatter(ScalarFormatter())
    axis.tick_params(axis="y", which="minor", labelsize=7)
    axis.set_title(_plain(f"{curves.model} on {curves.accelerator}"), loc="left", fontweight="bold")
    axis.set(xlabel="beam, hypotheses", ylabel="user-perceived latency, ms")
    axis.grid(alpha=0.25)
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(frameon=False)
    with replacing(path) as temporary:
        figure.savefig(temporary, format=path.suffix[1:], dpi=150)
    plt.close(figure)


def _plain(name: str) -> str:
    """A name that is drawn as it is: between two dollars matplotlib reads a formula."""
    return name.replace("$", r"\$")


def _legend(reports: list[Report]) -> list[Patch]:
    seen = {operator.bound for report in reports for operator in report.operators if operator.load}
    return [Patch(color=colour, label=f"bound by {name}") for name, colour in COLOURS.items() if name in seen]


def _products(report: Report) -> list[OperatorReport]:
    return [operator for operator in report.operators if operator.macs and operator.load and operator.sram_bytes]


def _limits(reports: list[Report]) -> tuple[float, float]:
    """Range of multiply-accumulates per byte, with room for the labels."""
    found = [op.macs / op.sram_bytes for report in reports for op in _products(report)] or [1.0]
    return min(found) / 4, max(*found, 8.0) * 5


def _roofs(axis: Axes, accelerator: Accelerator, limits: tuple[float, float]) -> None:
    """What stays on chip can rise to the roof of the on-chip memory; what streams in is held down by DRAM's."""
    low, high = limits
    processor, memory = accelerator.processor, accelerator.memory
    cells = processor.rows * processor.columns * processor.cores * processor.clock_mhz * 1e6
    peaks = {f"W{mode.weight}A{mode.activation}": cells * mode.macs / 1e9 for mode in processor.modes}
    top = max(peaks.values())
    for name, peak in peaks.items():
        start = min(max(low, peak / memory.sram_gb_per_s), high)
        axis.plot([start, high], [peak, peak], color="0.35", lw=1)
        axis.text(high, peak, f" {name}\n {peak:g} GMAC/s", fontsize=8, color="0.3", va="center")
    for name, rate, style in (("on-chip", memory.sram_gb_per_s, "--"), ("DRAM", memory.dram_gb_per_s, "-")):
        end = min(high, top / rate)
        axis.plot([low, end], [rate * low, rate * end], color="0.35", lw=1, ls=style)
        axis.text(
            low * 1.1,
            rate * low * 1.2,
            f"{name} {rate:g} GB/s",
            fontsize=8,
            color="0.3",
            rotation_mode="anchor",
            rotation=degrees(atan(rate)),
            transform_rotates_text=True,
            va="bottom",
        )
    axis.set(
        xscale="log",
        yscale="log",
        xlim=limits,
        xlabel="multiply-accumulates per byte of weights and activations",
        ylabel="GMAC/s (area: share of the time)",
    )
    axis.grid(alpha=0.25, which="major")


def _points(axis: Axes, report: Report) -> None:
    """One circle per matrix product; the heaviest are named, as far as their names do not collide."""
    named: list[tuple[float, float]] = []
    total = sum(operator.load or 0.0 for operator in report.operators)
    for rank, operator in enumerate(sorted(_products(report), key=lambda operator: -(operator.load or 0.0))):
        at = (operator.macs / operator.sram_bytes, operator.macs / operator.us / 1000)
        axis.scatter(
            *at,
            s=25 + 600 * (operator.load or 0.0) / total,
            color=COLOURS[operator.bound],
            edgecolor="white",
            zorder=3 + rank,
            alpha=0.9,
        )
        alone = all(max(at[1] / other[1], other[1] / at[1]) > 1.25 for other in named)
        if alone and len(named) < 3:
            axis.annotate(
                _plain(operator.name),
                at,
                fontsize=7,
                color="0.15",
                xytext=(13, -3),
                textcoords="offset points",
                zorder=20 + rank,
            )
            named.append(at)


def _layers(report: Report) -> dict[str, list[OperatorReport]]:
    layers: dict[str, list[OperatorReport]] = {}
    for operator in report.operators:
        if operator.load:
            layers.setdefault(operator.layer, []).append(operator)
    return layers


def _bars(axis: Axes, report: Report) -> None:
    """Milliseconds of computing per second of speech, by layer, coloured by what bounds each operator."""
    layers = _layers(report)
    for row, operators in enumerate(layers.values()):
        left = 0.0
        for operator in sorted(operators, key=lambda op: list(COLOURS).index(op.bound)):
            width_ms = 1000 * (operator.load or 0.0)
            axis.barh(row, width_ms, left=left, color=COLOURS[operator.bound], edgecolor="white", lw=0.5)
            left += width_ms
        first = operators[0]
        width = (
            "float"
            if first.weight_bits == first.activation_bits == 32
            else f"W{first.weight_bits}A{first.activation_bits}"
        )
        mark = " on the CPU" if any(op.processor == "cpu" for op in operators) else ""
        axis.annotate(
            f"{width}{mark}",
            (left, row),
            fontsize=7,
            va="center",
            color="0.3",
            xytext=(3, 0),
            textcoords="offset points",
        )
    axis.set_yticks(range(len(layers)), [_plain(name) for name in layers], fontsize=8)
    total = UNKNOWN if report.rtf is None else f"{1000 * report.rtf:.1f}"
    latency = UNKNOWN if report.latency_ms is None else f"{report.latency_ms:.1f} ms"
    axis.set_xlabel(f"ms of computing per second of speech (all: {total}; latency {latency})")
    axis.margins(x=0.12)
    axis.spines[["top", "right"]].set_visible(False)
