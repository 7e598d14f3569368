"""What a study comes to, in two or three figures and a sentence."""

from typing import NamedTuple

import pandas as pd

from analysis.measures import best, compression, smallest_near_float
from analysis.study import Study
from analysis.tables.table import interval
from analysis.text import counted, listed, number, percent, size


class Fact(NamedTuple):
    """One figure that the page shows large."""

    name: str
    value: str
    note: str


def facts(study: Study) -> list[Fact]:
    """The baseline, the best setting within the budgets, the smallest one within a tenth of the baseline's rate."""
    found = []
    chosen = "" if study.chosen_on == study.split else f", chosen on {study.chosen_on}"
    floats = study.references
    if len(floats) > 1:
        ends = [f(floats.wer) for f in (min, max)]
        models = f"of {len(floats)} models" + " that trials started from" * (not study.trials.empty)
        found.append(Fact("Float baselines", f"{percent(ends[0])} to {percent(ends[1])} %", models))
    elif (one := study.reference) is not None:
        found.append(Fact("Float baseline", _rate(one), _joined(_ends(one), _size(one))))
    if (one := best(study)) is not None:
        limited = study.size_budget is not None or study.latency_budgets
        name = "Lowest WER within the budgets" if limited else "Lowest WER"
        found.append(Fact(name + chosen, _rate(one), _joined(_name(one), _ends(one), _size(one), *_costs(one))))
    if (one := smallest_near_float(study)) is not None:
        name = f"Smallest within a tenth of {'its' if len(floats) > 1 else 'the'} float baseline’s WER{chosen}"
        of = f"from {percent(one.float_wer)} %" if len(floats) > 1 else ""
        found.append(Fact(name, _size(one), _joined(_name(one), f"{_rate(one)} {_ends(one)}", of, *_costs(one))))
    return found


def sentence(study: Study) -> str:
    """How many runs came to what end."""
    states = study.runs.state[~study.runs.is_baseline].value_counts()
    trained = int((study.trials.steps > 0).sum())
    parts = [study.described_runs + f" ({trained} trained)" * (0 < trained < len(study.trials))]
    parts += [counted(len(study.settings), "setting")] * (len(study.settings) < len(study.trials))
    parts += [f"{states[state]} {state}" for state in ("pruned", "failed") if state in states]
    budgets = [size(study.size_budget)] if study.size_budget is not None else []
    budgets += [f"{number(limit)} ms on {name}" for name, limit in study.latency_budgets.items()]
    limited = f", under a budget of {listed(budgets)}" if budgets else ""
    return f"{listed(parts)}{limited}. Word error rates (WER) are on {study.described_split}."


def _name(one: pd.Series) -> str:
    return f"{one.method} {one.bits}"


def _size(one: pd.Series) -> str:
    return size(one.size_bytes) if one.size_bytes > 0 else ""


def _costs(one: pd.Series) -> tuple[str, str]:
    smaller = compression(one.to_frame().T).iloc[0]
    latency = f"{number(one.latency_ms)} ms" if one.latency_ms > 0 else ""
    return f"{smaller:.1f}× smaller" if smaller > 0 else "", latency


def _rate(one: pd.Series) -> str:
    return f"{percent(one.wer)} %"


def _ends(one: pd.Series) -> str:
    return interval(one.low, one.high, one.spread, one.n)


def _joined(*parts: str) -> str:
    return " · ".join(filter(None, parts))
