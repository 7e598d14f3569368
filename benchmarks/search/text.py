"""The report's words and tables."""

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.search.curves import WORST_WER, Curve
from benchmarks.search.exact import UTTERANCES
from benchmarks.search.studies import SCREENING

SHARE = 5
"""What plain samplers reach in N seconds is to be reached in a so much smaller part of it."""


def markdown(found: Mapping[str, Any], curves: Sequence[Curve]) -> str:
    """The page."""
    return "\n".join([*_bar(found, curves), *ranking(found["ranking"]), *_exact(found["exact"]), *_feasible(found)])


def _bar(found: Mapping[str, Any], curves: Sequence[Curve]) -> list[str]:
    fine, switchable = found["step_seconds"]["fine-tune"], found["step_seconds"]["switchable"]
    lines = [
        "# What a search costs",
        "",
        "Made by `make search` (`python -m benchmarks.search`), from `sweeps/search.yaml`: widths of five groups of"
        " layers of a small LSTM recognizer of digits, 576 allocations, at most 300,000 bytes; WER on numbers"
        " in noise, 5 dB."
        " Every candidate of plain Optuna (TPE, NSGA-II; constraints on) is fine-tuned on its own. *Screening* trains"
        f" one switchable model for {SCREENING.steps} steps, evaluates {SCREENING.evaluations} allocations on"
        f" {SCREENING.utterances} utterances of dev, packs those on the front from it, and fine-tunes a few of them.",
        "",
        f"Hypervolume: the share of the box below {WORST_WER:.0%} WER and the budget that the packed models'"
        f" front dominates. Seconds are those of training, counted as steps: a fine-tune's takes {fine:.3f} s"
        f" of one core, the switchable model's {switchable:.3f} s. Evaluations are not in them; both ways decode about"
        " as much (plain: the dev set twice per trial; screening: part of it per allocation, and the packed models).",
        "",
        "Of the first candidates, TPE and NSGA-II draw the same ones at random.",
        "",
        "![Hypervolume against seconds of training](search.png)",
        "",
        f"| seed | plain, best at its end | N (s) | screening at N/{SHARE} | as good after (s) | N over that |",
        "| ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for seed in sorted({one.seed for one in curves}):
        plain = [one for one in curves if one.seed == seed and one.way != "screening"]
        ours = next(one for one in curves if one.seed == seed and one.way == "screening")
        best, end = max(one.volumes[-1] for one in plain), max(one.seconds[-1] for one in plain)
        there = ours.seconds_to(best)
        reached = f"{there:.1f} | {end / there:.1f}" if there else "not reached | "
        lines.append(f"| {seed} | {best:.4f} | {end:.1f} | {ours.volume_at(end / SHARE):.4f} | {reached} |")
    lines += ["", "| way | seed | models | seconds | hypervolume |", "| --- | ---: | ---: | ---: | ---: |"]
    for one in curves:
        lines.append(f"| {one.way} | {one.seed} | {len(one.points)} | {one.seconds[-1]:.1f} | {one.volumes[-1]:.4f} |")
    return [*lines, ""]


def ranking(seeds: Sequence[Mapping[str, Any]]) -> list[str]:
    """How well evaluations rank, by seed."""
    numbers = sorted({len(one["allocations"]) for one in seeds})
    ways = ["switchable", "rounding", "fewer bytes"]
    lines = [
        "## Does evaluation alone rank as fine-tunes do?",
        "",
        f"Spearman's rank correlation of dev WER with that of separate fine-tunes, over"
        f" {' or '.join(map(str, numbers))} allocations per seed (those that the plain studies trained first);"
        f" *rounding*: the same without training;"
        " *fewer bytes*: as if the smaller model were always the worse.",
        "",
        "| seed | " + " | ".join(ways) + " |",
        "| ---: |" + " ---: |" * len(ways),
    ]
    for one in seeds:
        found = one["correlation"]
        lines.append(f"| {one['seed']} | " + " | ".join(f"{found[w]:.2f}" if w in found else "" for w in ways) + " |")
    return [*lines, ""]


def _exact(exact: Mapping[str, Any]) -> list[str]:
    lines = [
        "## The exact front of a small space",
        "",
        f"{exact['members']} allocations, all evaluated by rounding on {UTTERANCES} utterances: {exact['front']} of"
        " them are the front. Evaluations until all of these were met (repeated candidates of a sampler are not"
        " counted):",
        "",
        "| way | evaluations, one per seed |",
        "| --- | ---: |",
    ]
    for way, counts in exact["evaluations"].items():
        lines.append(f"| {way} | {', '.join('not met' if count is None else str(count) for count in counts)} |")
    met = ", ".join(map(str, exact["screening_met"]))
    return [*lines, "", f"Screening met them at its evaluations {met}; the first nine change one place each.", ""]


def _feasible(found: Mapping[str, Any]) -> list[str]:
    shares = ", ".join(f"{share:.0%}" for share in found["feasible"])
    return [
        "## Candidates within the budgets",
        "",
        f"Of TPE's candidates 21 to 100 on `sweeps/digits-search.yaml`, {shares} are within 900 kB and 8 ms (three"
        " seeds; nothing is trained, and what stands in for the WER falls with every byte). Those over budget cost no"
        " training.",
        "",
    ]
