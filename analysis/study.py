"""The runs of one study, and what they share: the float baseline, the set reported on, the budgets."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from analysis.frames import Frames, load
from analysis.records import Problem, parsed
from analysis.text import by_number, counted
from qstudy.errors import UserError

MAKE = "config.data.make"
"""Columns of how a run's corpus was made."""
PER_RUN = ("trial", "seed")
"""Numbers that are not averaged over the seeds of a setting: the first run's stand for it."""


@dataclass(frozen=True)
class Study:
    """The runs of one study: the rows that `analysis.frames.Frames` has of it, with columns more.

    wer, low, high  error rate and interval on the reported set
    choice          the rate by which runs are chosen: on dev, so that no choice is made on what is reported
    latency_ms, rtf on the first of `accelerators`
    float_run, float_wer, float_bytes, float_parameters, float_choice
                    of the float baseline that it started from; of a run that names none, of the study's first, if
                    all of them are equally large: another model's tells nothing
    """

    name: str
    split: str
    """The set whose word error rate is reported."""
    chosen_on: str
    """The set by whose rate runs are chosen: `dev`, or the reported one where there is no other."""
    runs: pd.DataFrame
    layers: pd.DataFrame
    errors: pd.DataFrame
    samples: pd.DataFrame
    problems: tuple[Problem, ...] = ()

    @cached_property
    def finished(self) -> pd.DataFrame:
        """Finished runs with a rate on the reported set, baselines too."""
        return self.runs[(self.runs.state == "complete") & self.runs.wer.notna()]

    @cached_property
    def trials(self) -> pd.DataFrame:
        """The same without baselines."""
        return self.finished[~self.finished.is_baseline]

    @cached_property
    def unfinished(self) -> pd.DataFrame:
        """Everything else: pruned, failed, or without a rate."""
        return self.runs.drop(self.finished.index)

    @cached_property
    def settings(self) -> pd.DataFrame:
        """The trials, one row per setting: means over its seeds, their number `n`, the standard deviation `spread`."""
        return by_setting(self.trials)

    @cached_property
    def references(self) -> pd.DataFrame:
        """The float baseline that trials started from, a mean over seeds, one row for each architecture; none if nobody
        knows one. Those that share a seed are several models, and no mean of them is anything."""
        baselines = self.finished[self.finished.is_baseline]
        models = [name for name in baselines if name.startswith("config.model.")]
        told = baselines[models].notna().any(axis=1) | (not models)
        known = pd.Series([" ".join(map(str, one)) for one in baselines[models].to_numpy()], baselines.index, dtype=str)
        seeds = baselines.seed.groupby(known).agg(["nunique", "size"]).reindex(known)
        alone = (seeds["nunique"] < seeds["size"]).to_numpy()
        return by_setting(baselines.assign(setting=known.where(told & ~alone, baselines.run)))

    @property
    def reference(self) -> pd.Series | None:
        """The first row of `references`."""
        return first(self.references)

    @cached_property
    def corpus_options(self) -> list[str]:
        """Columns of the options by which the trials' corpora differ, if they do; without trials, the baselines'."""
        known = self.finished if self.trials.empty else self.trials
        return [name for name in known if name.startswith(f"{MAKE}.") and known[name].nunique() > 1]

    def runs_of(self, setting: pd.Series) -> pd.DataFrame:
        """The finished runs that a row of `settings` is the mean of."""
        return self.trials[self.trials.setting == setting.setting]

    def control_of(self, setting: pd.Series) -> pd.Series | None:
        """The float control of a setting: the row of `settings` that began with the same weights, of some seed, and was
        trained as it was, in everything but its policy; None: there is none."""
        floats = self.trials[(self.trials.policy == "float") & (self.trials.trained_as == setting.trained_as)]
        alike = floats[floats.float_run.isin(self.runs_of(setting).float_run)]
        return first(self.settings[self.settings.setting.isin(alike.setting)])

    def floats_of(self, runs: pd.DataFrame) -> pd.DataFrame:
        """The float baseline of each of the runs, as often as there are runs that started from it, as far as its record
        is there; it may not have been scored on the reported set."""
        baselines = self.runs[self.runs.is_baseline].set_index("run", drop=False)
        return baselines.loc[[run for run in runs.float_run if run in baselines.index]]

    @cached_property
    def size_budget(self) -> float | None:
        """Bytes that a model may have."""
        return next(iter(self.runs.size_budget.dropna()), None)

    @cached_property
    def latency_budgets(self) -> dict[str, float]:
        """Accelerator -> milliseconds that a model may take."""
        limits = {name: self.runs[f"budget_ms.{name}"].dropna() for name in _suffixes(self.runs, "budget_ms")}
        return {name: float(found.iloc[0]) for name, found in limits.items() if len(found)}

    @cached_property
    def accelerators(self) -> list[str]:
        """Accelerators that runs were simulated on; those with a budget first."""
        return _accelerators(self.runs)

    @property
    def splits(self) -> list[str]:
        """The reported set and the others; not the one that guided the training, if there is a test set."""
        names = [name for name in _suffixes(self.finished, "wer") if self.split != "test" or name != "dev"]
        return sorted(names, key=lambda name: (name != self.split, by_number(name)))

    @property
    def described_split(self) -> str:
        """The set with its counts: `test (300 utterances, 1,500 words)`."""
        known = first(self.finished[self.finished[f"words.{self.split}"] > 0])
        if known is None:
            return self.split
        counts = [(known[f"{noun}s.{self.split}"], noun) for noun in ("utterance", "word")]
        return f"{self.split} ({', '.join(counted(int(count), noun) for count, noun in counts if count > 0)})"

    @property
    def described_runs(self) -> str:
        """What finished, in words: `28 finished trials`; where nothing was trained from a float model, `36 searches`
        (`qstudy decode`) or `7 float models`."""
        known = self.finished[~self.finished.from_trials]
        if any("decoding" in (parsed(record).get("config") or {}) for record in known.record[:1]):
            return counted(len(known), "search")
        if self.trials.empty:
            return counted(len(known), "float model")
        return counted(len(self.trials), "finished trial")

    @cached_property
    def resampled(self) -> str:
        """What a bootstrap on the reported set draws: `utterances`, or `50 groups of utterances that share ...`."""
        told = self.errors[(self.errors.set == self.split) & (self.errors.group >= 0)]
        numbers = sorted(set(told.groupby("run", observed=True).group.nunique()) - {1})
        shared = "groups of utterances that share a speaker or recordings"
        return f"{' or '.join(map(str, numbers))} {shared}" if numbers else "utterances"

    def errors_of(self, run: str) -> pd.DataFrame:
        """Errors, words and group of a run on the reported set, by utterance; empty if its record has none."""
        return self.errors[(self.errors.run == run) & (self.errors.set == self.split)]


def load_studies(*folders: str | Path, split: str | None = None) -> list[Study]:
    """One `Study` for each that the records of the folders name.

    Args:
        folders: studies, or reports written earlier.
        split: the set to report on; by default `test`, else the first one that is not `dev`, else `dev`.

    Raises:
        UserError: there is no record, no finished run with a word error rate, or no such set.
    """
    frames = load(*folders)
    where = " and ".join(map(str, folders))
    if frames.runs.empty:
        lost = frames.problems
        broken = f" (and {len(lost)} that cannot be read: {lost[0].message})" if lost else ""
        raise UserError(f"{where} holds no run records{broken}; run `qstudy sweep` first, or name another folder.")
    names = list(frames.runs.study.unique())
    return [_study(frames, name, split, () if index else frames.problems, where) for index, name in enumerate(names)]


def by_setting(runs: pd.DataFrame) -> pd.DataFrame:
    """One row per setting, in order: means over its runs (texts: the first's), with their number `n`, and `spread`; on
    another set those of the runs that were scored on it."""
    grouped = runs.groupby("setting", sort=False)
    found = runs.drop_duplicates("setting").set_index("setting", drop=False)
    spreads = {f"spread.{name}": grouped[f"wer.{name}"].std() for name in _suffixes(runs, "wer")}
    numbers_of = {f"n.{name}": grouped[f"wer.{name}"].count() for name in _suffixes(runs, "wer")}
    found = found.assign(n=grouped.size(), spread=grouped.wer.std(), **spreads, **numbers_of)
    if len(found) < len(runs):
        numbers = runs.select_dtypes("number").columns.difference(PER_RUN)
        found[numbers] = grouped[numbers].mean()
    return found.reset_index(drop=True).copy()  # in one piece: columns came one by one


def middle(settings: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    """Of the settings that agree in `keys` the one in the middle by word error rate (of an even number, the worse),
    lowest rate first; no picking of lucky ones, but of those with the most seeds. `runs` says for how many runs it
    stands."""
    alike = settings.groupby(keys).n
    settings = settings.assign(runs=alike.transform("sum"))[settings.n == alike.transform("max")]
    ordered = settings.sort_values("wer", kind="stable", ignore_index=True)
    grouped = ordered.groupby(keys, sort=False)
    return ordered[grouped.cumcount() == grouped.n.transform("size") // 2]


def _study(frames: Frames, name: str, split: str | None, problems: tuple[Problem, ...], where: str) -> Study:
    several = frames.runs.study.nunique() > 1  # copies cost memory
    parts = (frames.runs, frames.layers, frames.errors, frames.samples)
    runs, layers, errors, samples = (part[part.study == name] if several else part for part in parts)
    complete = runs[runs.state == "complete"]
    found = [name for name in _suffixes(runs, "wer") if complete[f"wer.{name}"].notna().any()]
    splits = sorted(found, key=lambda name: {"test": 0, "dev": 2}.get(name, 1))
    if not splits:
        raise UserError(
            f"None of the {len(runs)} runs in {where} is complete with a word error rate; "
            "let the sweep finish at least one trial, or loosen its budgets."
        )
    if split is not None and split not in splits:
        raise UserError(f"split: no finished run in {where} was scored on {split!r}; there are {', '.join(splits)}.")
    split = split or splits[0]
    trials = complete[~complete.is_baseline & complete[f"wer.{split}"].notna()]
    chosen_on = "dev" if "wer.dev" in runs and trials["wer.dev"].notna().all() else split
    return Study(name, split, chosen_on, _extended(runs, split, chosen_on), layers, errors, samples, problems)


def _extended(runs: pd.DataFrame, split: str, chosen_on: str) -> pd.DataFrame:
    """With the columns that `Study` documents."""
    accelerator = next(iter(_accelerators(runs)), "")
    own = {"wer": f"wer.{split}", "low": f"low.{split}", "high": f"high.{split}", "choice": f"wer.{chosen_on}"}
    own |= {"latency_ms": f"latency_ms.{accelerator}", "rtf": f"rtf.{accelerator}"}
    runs = runs.assign(**{name: runs.get(column, np.nan) for name, column in own.items()})
    baselines = runs[runs.is_baseline & (runs.state == "complete")].set_index("run")
    names = runs.run.where(runs.is_baseline, runs.baseline)
    unnamed = next(iter(baselines.index), "") if baselines.parameters.nunique() <= 1 else ""
    names = names.where(names.isin(baselines.index), np.where(runs.baseline == "", unnamed, ""))
    of_float = baselines.rename(columns={"size_bytes": "bytes"})[["wer", "bytes", "parameters", "choice"]]
    return runs.assign(float_run=names).join(of_float.astype(float).add_prefix("float_"), on="float_run")


def _accelerators(runs: pd.DataFrame) -> list[str]:
    names = [name for name in _suffixes(runs, "latency_ms") if runs[f"latency_ms.{name}"].notna().any()]
    limited = set(_suffixes(runs, "budget_ms"))
    return sorted(names, key=lambda name: (name not in limited, name))


def _suffixes(frame: pd.DataFrame, prefix: str) -> list[str]:
    return [name.removeprefix(f"{prefix}.") for name in frame.columns if name.startswith(f"{prefix}.")]


def first(runs: pd.DataFrame) -> pd.Series | None:
    """The first row, if there is one."""
    return None if runs.empty else runs.iloc[0]
