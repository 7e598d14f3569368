"""What a study says of its trials: a line for each as it ends, and a table at the end."""

from collections.abc import Sequence
from pathlib import Path

from optuna.trial import FrozenTrial, TrialState
from rich.console import Console
from rich.table import Table

from qstudy.pareto import front
from qstudy.sweep.config import StudyConfig
from qstudy.sweep.queue import FAILED, FREE, OUTCOME, counts
from qstudy.training.record import RECORD_FILE

SHOWN = 12


def sentence(trial: FrozenTrial) -> str:
    """One line about a finished trial."""
    attributes = trial.user_attrs
    name = attributes.get("run", f"trial-{trial.number:04d}")
    costs = [f"{attributes['size_bytes']:,} bytes"] if "size_bytes" in attributes else []
    costs += [f"{attributes['latency_ms']:.3g} ms"] if "latency_ms" in attributes else []
    if attributes.get(OUTCOME) == "trained":
        return f"{name}: dev WER {attributes['dev_wer']:.1%}, {', '.join(costs)}"
    return f"{name}: {attributes.get('reason') or attributes.get(OUTCOME)}"


def print_summary(config: StudyConfig, trials: Sequence[FrozenTrial], folder: Path) -> None:
    """Print what came out of a study, where it lies, and what to do next."""
    trained = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    print(f"\nStudy {config.study}: {_account(trials)}.")
    if trained:
        Console(width=max(Console().width, 100)).print(_table(trained))
        best = min(trained, key=lambda trial: trial.user_attrs["dev_wer"])
        print(f"Best packed model: {_run(best, folder) / 'model.qst'}")
    elif trials:
        print(f"Nothing was trained; {_advice(trials)}")
    if given_up := [trial for trial in trials if trial.user_attrs.get(OUTCOME) == "given_up"]:
        names = ", ".join(trial.user_attrs["run"] for trial in given_up)
        print(f"Given up, because their process died again and again: {names}; see {folder / 'logs'}.")
    if elsewhere := [t for t in trials if t.state.is_finished() and "run" in t.user_attrs and not _is_here(t, folder)]:
        print(
            f"{len(elsewhere)} of {len(trials)} trials ran elsewhere (on another machine, or with another --root): "
            "copy their folders here before a report."
        )
    print(f"Records: {folder / 'runs'}/*/record.json")
    if trained:
        print(f"Next: qstudy report {folder} --out reports/{config.study}   (tables, plots, one HTML page)")
        print(f"      wandb leet {folder / 'wandb'}   (browse the runs in the terminal)")


def is_incomplete(trials: Sequence[FrozenTrial]) -> bool:
    """Whether trials were given up, or some failed and none was trained."""
    outcomes = {trial.user_attrs.get(OUTCOME) for trial in trials}
    return "given_up" in outcomes or ("failed" in outcomes and "trained" not in outcomes)


def _advice(trials: Sequence[FrozenTrial]) -> str:
    failed = [trial.user_attrs.get("reason") for trial in trials if trial.user_attrs.get(OUTCOME) in FAILED]
    if failed:
        return f"{len(failed)} failed, the last with: {failed[-1]}."
    smallest = min((t.user_attrs["size_bytes"] for t in trials if "size_bytes" in t.user_attrs), default=None)
    return f"the smallest candidate had {smallest} bytes. Loosen `budgets` or widen `space`."


def _run(trial: FrozenTrial, folder: Path) -> Path:
    return folder / "runs" / str(trial.user_attrs["run"])


def _is_here(trial: FrozenTrial, folder: Path) -> bool:
    return (_run(trial, folder) / RECORD_FILE).exists()


def _account(trials: Sequence[FrozenTrial]) -> str:
    kinds = [trial.user_attrs.get(OUTCOME, "unfinished") for trial in trials]
    parts = [f"{kinds.count('trained')} of {sum(map(counts, trials))} trials trained"]
    for kind in ("stopped", *FAILED, *FREE, "unfinished"):
        if kind in kinds:
            parts.append(f"{kinds.count(kind)} {kind.replace('_', ' ')}")
    return ", ".join(parts)


def _table(trained: Sequence[FrozenTrial]) -> Table:
    costs = [(trial.user_attrs["size_bytes"], trial.user_attrs["dev_wer"]) for trial in trained]
    best = [trained[place] for place in front(costs)]
    table = Table(title="Trials by dev WER; * on the Pareto front of WER and size", title_justify="left")
    for column in ("trial", "policy", "dev WER", "test WER", "bytes", "ms", ""):
        table.add_column(column, justify="left" if column in ("policy", "") else "right")
    for trial in sorted(trained, key=lambda trial: trial.user_attrs["dev_wer"])[:SHOWN]:
        values = trial.user_attrs
        latency = f"{values['latency_ms']:.3g}" if "latency_ms" in values else ""
        policy = values["run"].split("-", 2)[2]
        wers = (f"{values['dev_wer']:.2%}", f"{values['wer']:.2%}")
        table.add_row(
            str(trial.number), policy, *wers, f"{values['size_bytes']:,}", latency, "*" if trial in best else ""
        )
    return table
