"""The pictures of the claims: one figure per paper, the paper's figure as a line."""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter, ScalarFormatter

from benchmarks.paper_claims.aat import AAT, HANDOVERS_US
from benchmarks.paper_claims.aat import PAPER_SAVING as AAT_SAVING
from benchmarks.paper_claims.e2e_int4 import PAPER_RTF, PAPER_SPEEDUP, E2EInt4
from benchmarks.paper_claims.s8bqat import BANDWIDTHS, S8BQAT
from benchmarks.paper_claims.s8bqat import PAPER_SAVING as S8BQAT_SAVING
from benchmarks.paper_claims.search import Searched

# Okabe and Ito's colours, told apart by colour-blind readers; markers tell them apart in grey.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9")
MARKERS = "osD^vP"
CLAIM = {"color": "0.25", "lw": 1.2, "ls": "--", "zorder": 1}


def save(figure: Figure, path: Path) -> None:
    """Write one picture."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
    plt.close(figure)


def _tidy(axis: Axes, title: str, x: str, y: str) -> None:
    axis.set_title(title, loc="left", fontsize=11)
    axis.set(xlabel=x, ylabel=y)
    axis.grid(alpha=0.25)
    axis.spines[["top", "right"]].set_visible(False)


def e2e_int4(result: E2EInt4, path: Path) -> None:
    """Real-time factor and speed-up over the beam, with tiles that follow each other or overlap."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.4), layout="constrained")
    for (fill, priced), style in zip(result.filled.items(), ("-", ":"), strict=True):
        for (form, rtf), colour, marker in zip(priced.rtf.items(), COLOURS, MARKERS, strict=False):
            line = {"color": colour, "marker": marker, "ls": style}
            left.plot(list(rtf), list(rtf.values()), **line, label=f"{form}, {fill}")
            if form != "FP16":
                speedups = [priced.speedup(form, beam) for beam in rtf]
                right.plot(list(rtf), speedups, **line, label=f"FP16 to {form}, {fill}")
    left.axhline(PAPER_RTF, **CLAIM)
    left.text(1, PAPER_RTF, f"paper, INT4: {PAPER_RTF}", va="bottom", fontsize=9)
    right.axhline(PAPER_SPEEDUP, **CLAIM)
    right.text(1, PAPER_SPEEDUP, f"paper, FP16 to INT4: {PAPER_SPEEDUP}x", va="bottom", fontsize=9)
    _logarithmic(left)
    for axis in (left, right):
        _beams(axis, list(result.filled["serial"].rtf["FP16"]))
    right.set_ylim(0)
    _tidy(left, "Real-time factor, language model fusion included", "beam", "seconds of computing per second")
    _tidy(right, "Speed-up", "beam", "times faster")
    for axis in (left, right):
        axis.legend(frameon=False, fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=3)
    save(figure, path)


def search(results: list[Searched], path: Path) -> None:
    """Latency of the whole search over the beam."""
    figure, axes = plt.subplots(2, -(-len(results) // 2), figsize=(15, 7.5), layout="constrained")
    for axis in axes.flat[len(results) :]:
        axis.set_axis_off()
    for axis, result in zip(axes.flat, results, strict=False):
        curves = result.curves
        for (form, latencies), colour, marker in zip(curves.latency_ms.items(), COLOURS, MARKERS, strict=False):
            axis.plot(curves.beams, latencies, color=colour, marker=marker, label=form)
        axis.axhline(curves.latency_ms["FP16"][0], color="0.6", lw=1, ls=":")
        _logarithmic(axis)
        _beams(axis, list(curves.beams))
        _tidy(axis, f"{result.title}\non {curves.accelerator}", "beam", "")
    for axis in axes[:, 0]:
        axis.set_ylabel("user-perceived latency, ms")
    axes[0, 0].legend(frameon=False, fontsize=9)
    save(figure, path)


def _logarithmic(axis: Axes) -> None:
    axis.set_yscale("log")
    axis.yaxis.set_major_formatter(ScalarFormatter())
    axis.yaxis.set_minor_formatter(ScalarFormatter())
    axis.tick_params(axis="y", which="minor", labelsize=7)


def _beams(axis: Axes, beams: list[int]) -> None:
    axis.set_xscale("log", base=2)
    axis.set_xticks(beams, [str(beam) for beam in beams])


def s8bqat(results: list[S8BQAT], path: Path) -> None:
    """Latency saved by narrower weights, over the bandwidth of the memory behind the chip."""
    figure, axes = plt.subplots(1, len(results), figsize=(11, 4.2), sharey=True, layout="constrained")
    for axis, result in zip(axes, results, strict=True):
        for (bits, curve), colour, marker in zip(result.curve.items(), COLOURS, MARKERS, strict=True):
            axis.plot(BANDWIDTHS, curve, color=colour, marker=marker, ms=4, label=f"{bits} bits")
        axis.axhline(S8BQAT_SAVING, **CLAIM)
        axis.axvline(result.dram_gb_per_s, color="0.6", lw=1, ls=":")
        axis.text(
            result.dram_gb_per_s,
            0.97,
            " the profile",
            fontsize=8,
            color="0.4",
            va="top",
            transform=axis.get_xaxis_transform(),
        )
        axis.text(BANDWIDTHS[0], S8BQAT_SAVING, "paper: 5 %, and a larger model", va="bottom", fontsize=8)
        axis.set_xscale("log")
        axis.xaxis.set_major_formatter(ScalarFormatter())
        axis.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        _tidy(axis, f"{result.model} on {result.accelerator}", "DRAM bandwidth, GB/s", "")
    axes[0].set_ylabel("latency saved over 8-bit weights")
    axes[0].set_ylim(0, 1)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=6, frameon=False, fontsize=9)
    save(figure, path)


def aat(results: list[AAT], path: Path) -> None:
    """Latency saved by bringing operators back from the CPU, over the cost of a hand-over."""
    figure, axes = plt.subplots(1, len(results), figsize=(11, 4.2), sharey=True, layout="constrained")
    for axis, result in zip(axes, results, strict=True):
        axis.axhspan(*AAT_SAVING, color="0.85", zorder=0)
        axis.text(HANDOVERS_US[0], AAT_SAVING[1], "paper: 5-7 %", fontsize=8, va="bottom")
        for (placement, curve), colour, marker in zip(result.curve.items(), COLOURS, MARKERS, strict=False):
            axis.plot(HANDOVERS_US, curve, color=colour, marker=marker, ms=4, markevery=3, label=placement)
        axis.axvline(result.handover_us, color="0.6", lw=1, ls=":")
        axis.text(
            result.handover_us,
            0.97,
            " the profile",
            fontsize=8,
            color="0.4",
            va="top",
            transform=axis.get_xaxis_transform(),
        )
        axis.set_xscale("log")
        axis.xaxis.set_major_formatter(ScalarFormatter())
        axis.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        _tidy(axis, f"{result.model} on {result.accelerator}", "one hand-over, µs", "")
    axes[0].set_ylabel("latency saved by leaving the CPU")
    axes[0].set_ylim(0, 0.4)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False, fontsize=9)
    save(figure, path)
