"""What a study says of its trials: a line for each as it ends, and a table at the end."""

from collections.abc import Sequence
from pathlib import Path

from optuna.trial import FrozenTrial
from rich.console import Console
from rich.table import Table

from qstudy.pareto import front
from qstudy.sweep.trials import FAILED, FREE, counts, dev_wer, is_trained, outcome_of
from qstudy.training.record import MODEL_FILE, RECORD_FILE

SHOWN = 12
COLUMNS = ("trial", "policy", "bits", "seed", "dev WER", "test WER", "bytes", "ms", "")
WORDS = ("policy", "bits", "")


def sentence(trial: FrozenTrial) -> str:
    """One line about a finished trial."""
    attributes = trial.user_attrs
    name = attributes.get("run", f"trial-{trial.number:04d}")
    costs = [f"{attributes['size_bytes']:,} bytes"] if "size_bytes" in attributes else []
    costs += [f"{attributes['latency_ms']:.3g} ms"] if "latency_ms" in attributes else []
    if is_trained(trial):
        return f"{name}: dev WER {rate(trial)}, {', '.join(costs)}"
    return f"{name}: {attributes.get('reason') or outcome_of(trial)}"


def rate(trial: FrozenTrial) -> str:
    """The dev WER of a trained trial in per cent, and of several seeds their standard deviation."""
    told = trial.user_attrs
    spread = f" ± {100 * told['dev_wer_spread']:.2f} ({told['seeds']} seeds)" if "seeds" in told else ""
    return f"{dev_wer(trial):.2%}{spread}"


def duration(seconds: float) -> str:
    """About so long: `20 s`, `4 min`, `1.5 h`."""
    if seconds < 50:
        return f"about {max(round(seconds, -1), 10):.0f} s"
    if seconds < 5400:
        return f"about {max(round(seconds / 60), 1)} min"
    return f"about {seconds / 3600:.1f} h"


def print_summary(study: str, trials: Sequence[FrozenTrial], folder: Path) -> None:
    """Print what came out of a study, where it lies, and what to do next."""
    trained = [trial for trial in trials if is_trained(trial)]
    print(f"\nStudy {study}: {_account(trials)}.")
    if trained:
        print_table(trained)
        model = _run(min(trained, key=dev_wer), folder) / MODEL_FILE
        print(f"Best packed model: {model}{'' if model.exists() else ' (it lies where it was trained)'}")
    elif trials:
        print(f"Nothing was trained; {_advice(trials)}")
    if failed := [trial.user_attrs["run"] for trial in trials if outcome_of(trial) == "failed"]:
        named = ", ".join([*failed[:3], "..."] if len(failed) > 3 else failed)
        print(f"Failed: {named} (why: reason in record.json). Once that is mended, --retry lets them wait again.")
    if given_up := [trial for trial in trials if outcome_of(trial) == "given_up"]:
        names = ", ".join(trial.user_attrs["run"] for trial in given_up)
        print(f"Given up, because their process died again and again: {names}; see {folder / 'logs'}.")
    if elsewhere := [t for t in trials if t.state.is_finished() and "run" in t.user_attrs and not _is_here(t, folder)]:
        print(
            f"{len(elsewhere)} of {len(trials)} trials ran elsewhere (on another machine, or with another --root): "
            "copy their folders here before a report."
        )
    print(f"Records: {folder / 'runs'}/*/record.json")
    if trained:
        print(f"Next: qstudy report {folder} --out reports/{study}   (tables, plots, one HTML page)")
        print(f"      wandb leet {folder / 'wandb'}   (browse the runs in the terminal)")


def is_incomplete(trials: Sequence[FrozenTrial]) -> bool:
    """Whether trials were given up, or some failed and none was trained."""
    outcomes = set(map(outcome_of, trials))
    return "given_up" in outcomes or ("failed" in outcomes and "trained" not in outcomes)


def pareto(trained: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """Those on the front of dev WER and size, smallest first."""
    return [trained[place] for place in front([(one.user_attrs["size_bytes"], dev_wer(one)) for one in trained])]


def print_table(trained: Sequence[FrozenTrial]) -> None:
    """Print the best trained trials, those on the front marked."""
    table, best = Table(title="Trials by dev WER; * on the Pareto front of WER and size"), pareto(trained)
    table.title_justify = "left"
    for column in COLUMNS:
        table.add_column(column, justify="left" if column in WORDS else "right")
    for trial in sorted(trained, key=dev_wer)[:SHOWN]:
        table.add_row(*_row(trial), "*" if trial in best else "")
    Console(width=max(Console().width, 110)).print(table)


def _row(trial: FrozenTrial) -> list[str]:
    told = trial.user_attrs
    test = f"{told['test_wer']:.2%}" if "test_wer" in told else ""
    latency = f"{told['latency_ms']:.3g}" if "latency_ms" in told else ""
    policy = str(told["run"]).split("-", 2)[2]
    first, count = told.get("seed", ""), told.get("seeds", 1)
    seed = f"{first}–{first + count - 1}" if count > 1 else str(first)
    return [
        str(trial.number),
        policy,
        told.get("bits", ""),
        seed,
        rate(trial),
        test,
        f"{told['size_bytes']:,}",
        latency,
    ]


def _advice(trials: Sequence[FrozenTrial]) -> str:
    failed = [trial.user_attrs.get("reason") for trial in trials if outcome_of(trial) in FAILED]
    if failed:
        return f"{len(failed)} failed, the last with: {failed[-1]}."
    smallest = min((t.user_attrs["size_bytes"] for t in trials if "size_bytes" in t.user_attrs), default=None)
    if smallest is None:
        return f"the last candidate: {trials[-1].user_attrs.get('reason')}"
    return f"the smallest candidate had {smallest} bytes. Loosen `budgets` or widen `space`."


def _run(trial: FrozenTrial, folder: Path) -> Path:
    return folder / "runs" / str(trial.user_attrs["run"])


def _is_here(trial: FrozenTrial, folder: Path) -> bool:
    return (_run(trial, folder) / RECORD_FILE).exists()


def _account(trials: Sequence[FrozenTrial]) -> str:
    kinds = [outcome_of(trial) or "unfinished" for trial in trials]
    parts = [f"{kinds.count('trained')} of {sum(map(counts, trials))} trials trained"]
    for kind in ("stopped", "overrun", *FAILED, *FREE, "unfinished"):
        if kind in kinds:
            parts.append(f"{kinds.count(kind)} {kind.replace('_', ' ')}")
    return ", ".join(parts)
