"""What a study comes to, in two or three figures and a sentence."""

from dataclasses import dataclass

from analysis.bits import describe
from analysis.pareto import best, smallest_lossless
from analysis.records import Run, Scores
from analysis.runs_table import compression
from analysis.study import Study
from analysis.text import DASH, counted, listed, number, percent, size


@dataclass(frozen=True)
class Fact:
    """One figure that the page shows large."""

    name: str
    value: str
    note: str


def facts(study: Study) -> list[Fact]:
    """The baseline, the best trial within the budgets, the smallest one that loses nothing measurable."""
    found = []
    if reference := study.reference:
        scores = reference.scores[study.split]
        found.append(Fact("Float baseline", _rate(scores), _joined(_ends(scores), size(reference.size_bytes))))
    if chosen := best(study):
        scores = chosen.scores[study.split]
        name = "Lowest WER within the budgets" if study.limited else "Lowest WER"
        note = _joined(_name(chosen), _ends(scores), size(chosen.size_bytes), _costs(chosen, study))
        found.append(Fact(name, _rate(scores), note))
    if chosen := smallest_lossless(study):
        scores = chosen.scores[study.split]
        note = _joined(_name(chosen), f"{_rate(scores)} {_ends(scores)}", _costs(chosen, study))
        found.append(Fact("Smallest within the float baseline’s interval", size(chosen.size_bytes), note))
    return found


def sentence(study: Study) -> str:
    """How many runs came to what end."""
    trials = [run for run in study.runs if not run.is_baseline]
    pruned, failed = (sum(run.state == state for run in trials) for state in ("pruned", "failed"))
    parts = [counted(len(study.trials), "trained trial")]
    parts += [f"{pruned} pruned"] * bool(pruned) + [f"{failed} failed"] * bool(failed)
    budgets = [size(study.size_budget)] * (study.size_budget is not None)
    budgets += [f"{number(limit)} ms on {name}" for name, limit in study.latency_budgets.items()]
    limited = f", under a budget of {listed(budgets)}" if budgets else ""
    return f"{listed(parts)}{limited}. Word error rates (WER) are on {study.described_split}."


def _name(run: Run) -> str:
    return f"{run.method} {describe(run)}"


def _costs(run: Run, study: Study) -> str:
    smaller = compression(run, study.reference)
    latency = next((f"{number(run.latency_ms[name])} ms" for name in study.accelerators if name in run.latency_ms), "")
    return _joined(f"{smaller:.1f}× smaller" if smaller else "", latency)


def _rate(scores: Scores) -> str:
    return f"{percent(scores.wer)} %"


def _ends(scores: Scores) -> str:
    return f"[{percent(scores.interval[0])}, {percent(scores.interval[1])}]" if scores.interval else ""


def _joined(*parts: str) -> str:
    return " · ".join(part for part in parts if part and part != DASH)
