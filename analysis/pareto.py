"""The Pareto front of runs, and the smallest and best of them."""

from collections.abc import Callable, Sequence

from analysis.records import Run
from analysis.study import Study


def front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Indices of the points that no other point beats, by the first coordinate; both are to be small.

    A point is beaten by one that is no larger in either coordinate and smaller in one. Of equal points the first stays.
    """
    order = sorted(range(len(points)), key=lambda index: (*points[index], index))
    kept: list[int] = []
    lowest = float("inf")
    for index in order:
        if points[index][1] < lowest:
            kept.append(index)
            lowest = points[index][1]
    return kept


def front_runs(study: Study, cost: Callable[[Run], float | None]) -> list[Run]:
    """The study's trials on the front of `cost` against word error rate, cheapest first."""
    known = [(value, run) for run in study.trials if (value := cost(run)) is not None]
    return [known[index][1] for index in front([(value, run.scores[study.split].wer) for value, run in known])]


def size_front(study: Study) -> list[Run]:
    """The trials on the front of packed size against word error rate, smallest first."""
    return front_runs(study, lambda run: run.size_bytes)


def best(study: Study) -> Run | None:
    """The trial with the lowest word error rate within the budgets; of equals the smallest."""
    fitting = [run for run in study.trials if run.policy != "float" and within_budget(study, run)]
    return min(fitting, key=lambda run: (run.scores[study.split].wer, run.size_bytes or 0.0), default=None)


def smallest_lossless(study: Study) -> Run | None:
    """The smallest trial whose word error rate lies within the float baseline's interval, or below it."""
    if not study.float_scores or not study.float_scores.interval:
        return None
    highest = study.float_scores.interval[1]
    kept = [run for run in study.trials if run.size_bytes and run.scores[study.split].wer <= highest]
    return min(kept, key=lambda run: (run.size_bytes or 0.0, run.scores[study.split].wer), default=None)


def within_budget(study: Study, run: Run) -> bool:
    """Whether the run keeps every budget of the study; what was not measured breaks none."""
    if study.size_budget is not None and (run.size_bytes or 0.0) > study.size_budget:
        return False
    return all(run.latency_ms.get(name, 0.0) <= limit for name, limit in study.latency_budgets.items())
