"""A study as its YAML file describes it."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Le, MinLen

from qstudy.errors import UserError, naming
from qstudy.fields import Seed, Text, check_fields, fill, merged, with_order
from qstudy.files import safe_name
from qstudy.sweep.budget import Budgets
from qstudy.sweep.space import Grid, Template, sample, screened_policy, size
from qstudy.training.config import RunConfig, config_from_dict, to_dict
from qstudy.yaml_file import load_yaml

Objective = Literal["wer", "size_bytes", "latency_ms"]
SamplerName = Literal["tpe", "random", "nsga2"]
Trials = Annotated[int, Ge(0), Le(100_000)]

MOST_COMBINATIONS = 10_000
"""Of a grid, all of which are trained."""


@dataclass(frozen=True)
class Sampler:
    """What proposes candidates."""

    name: SamplerName = "tpe"
    """`tpe`, `random`, or `nsga2` (of a `space` of one entry, without `grid` and `screening`)."""
    seed: Seed = 0
    """Same seed, same proposals, as long as the results are the same."""
    startup: Trials = 8
    """`tpe`: candidates at random before it starts to learn; those over budget count, it learns from them too."""
    population: Annotated[int, Ge(2), Le(10_000)] = 12
    """`nsga2`: candidates per generation."""

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True)
class Pruning:
    """When a trial is stopped early, by its dev WER each `evaluate_every` steps of its schedule."""

    name: Literal["median", "halving"] = "median"
    """`median`: its dev WER is worse than the median of the others at the same step; `halving`: at each rung, of which
    every next one is `factor` times as far, it is not among the best 1/`factor` of those that came there (asynchronous
    successive halving, Li et al. 2018, arXiv 1810.05934)."""
    startup: Trials = 4
    """`median`: trials that must finish before one is stopped."""
    warmup: Annotated[int, Ge(0), Le(10**8)] = 0
    """`median`: steps before which no trial is stopped; `halving`: of the first rung, 0 for the first evaluation."""
    factor: Annotated[int, Ge(2), Le(100)] = 2
    """`halving`: one in so many goes on at each rung."""

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True)
class Screening:
    """How candidates are judged before any is trained; those on the front of errors and costs are trained first."""

    by: Literal["switchable", "rounding", "sensitivity"] = "switchable"
    """`switchable`: one model that is trained in all widths, then evaluated at each candidate's; `rounding`: the policy
    without any training, likewise; `sensitivity`: the sum of what each layer's widths alone do to it (`rounding`)."""
    steps: Annotated[int, Ge(1), Le(10**8)] | None = None
    """`switchable`: steps of its training; None: those of a trial."""
    evaluations: Annotated[int, Ge(1), Le(100_000)] = 200
    """Candidates to judge, at most; those over budget are not, but for the widest and those in which one layer or
    group has other widths, which are judged first; `sensitivity`: these are all that is judged."""
    utterances: Annotated[int, Ge(1), Le(1_000_000)] | None = 100
    """Of the dev set, which they are judged on, spread over it; None: all."""
    hopeless: Annotated[float, Gt(0), Le(1000)] | None = None
    """A candidate that the sampler proposes afterwards is judged, too, and not trained if its error here is by this
    share of it above that of one which costs no more; None: it is trained. Every machine then screens for itself."""
    start: Literal["base", "switchable"] = "base"
    """What trials of the space start from: `base`, what the base says; `switchable`, that model's weights, which know
    low widths already (AdaBits, Jin et al. 2019). Their baseline in tables is then the same weights in float."""

    def __post_init__(self) -> None:
        check_fields(self)
        if self.start == "switchable" and self.by != "switchable":
            raise UserError(f"start: `by: {self.by}` trains no switchable model; leave `start` out, or change `by`.")


@dataclass(frozen=True)
class StudyConfig:
    """A study: a base run, what varies, what it may cost, and how much of it to try."""

    study: Text
    """Its name, and its folder below `studies`."""
    base: dict[str, Any]
    """The run configuration that every trial starts from."""
    grid: tuple[Annotated[Template, MinLen(1)], ...] = ()
    """Changes to the base of which every combination is tried, first and in this order. A list means each of these."""
    space: tuple[Annotated[Template, MinLen(1)], ...] = ()
    """Changes to the base that are searched after the grid. A list means one of these."""
    budgets: Budgets = field(default_factory=Budgets)
    """What a candidate may cost; one that costs more is not trained."""
    trials: Annotated[int, Ge(1), Le(10_000)] | None = None
    """Trials to train, the grid's included. Candidates over budget, repeated ones and those whose values do not go
    together cost no training and do not count. None: the whole grid, nothing else."""
    candidates: Annotated[int, Ge(1), Le(1_000_000)] | None = None
    """Candidates to look at, over-budget ones included, before giving up; None: 20 per trial."""
    seeds: Annotated[int, Ge(1), Le(100)] = 1
    """Runs of every trial, with as many seeds from the base's `seed` on; the sampler sees the mean of their rates. What
    depends on the seed is made for each: a float baseline too, unless the base starts from a model file."""
    objectives: Annotated[tuple[Objective, ...], MinLen(1)] = ("wer",)
    """What the sampler minimizes: `wer` (on the dev set), or several: `[wer, size_bytes]`."""
    sampler: Sampler = field(default_factory=Sampler)
    pruning: Pruning | None = None
    """None: every trial is trained to its end."""
    screening: Screening | None = None
    """None: what is trained first is the sampler's choice."""

    def __post_init__(self) -> None:
        check_fields(self)
        safe_name(self.study, "study")
        if not self.grid and not self.space:
            raise UserError("space: a study needs a `space` to search, or a `grid` to try.")
        if self.space and self.trials is None:
            raise UserError("trials: say how many trials to train, e.g. `trials: 20`.")
        if (combinations := size(self.grid)) > MOST_COMBINATIONS:
            raise UserError(
                f"grid: {combinations:,} combinations are more than the {MOST_COMBINATIONS:,} that are allowed; make "
                "its lists shorter, or move them to `space`, which is searched."
            )
        if self.seeds > 1 and any("seed" in template for template in self.templates):
            raise UserError("seeds: the grid or the space sets `seed`; leave it out there, or `seeds` at 1.")
        if self.objectives[:1] != ("wer",) or len(set(self.objectives)) < len(self.objectives):
            raise UserError("objectives: the first one must be wer, and each can be there only once.")
        if self.pruning and len(self.objectives) > 1:
            raise UserError("pruning: trials are stopped early by wer alone; remove `pruning` or the other objectives.")
        if self.screening and not screened_policy(self.space):
            raise UserError(
                "screening: it judges widths; give a `space` of one entry, in which nothing varies but policy.layers."
            )

    @cached_property
    def base_run(self) -> RunConfig:
        """The run configuration that every trial starts from."""
        return config_from_dict(self.base)

    @cached_property
    def combinations(self) -> Grid:
        """Those of the grid, in order."""
        return Grid(self.grid, self.space)

    def run_of(self, changes: Mapping[str, Any]) -> RunConfig:
        """The run configuration of a trial.

        Raises:
            UserError: a field is unknown or wrong.
        """
        values = merged(self.base, changes)
        if list(changes) == ["policy"]:  # the usual case: a policy checks its own options, so spare the rest
            return replace(self.base_run, policy=values["policy"])
        return config_from_dict(values)

    def repeats(self, config: RunConfig) -> list[RunConfig]:
        """The runs of a trial: the same with one seed after the other."""
        return [replace(config, seed=(config.seed + index) % 2**32) for index in range(self.seeds)]

    @cached_property
    def needs_baseline(self) -> bool:
        """Whether some candidate starts from the base's float model; else it is not made. Others are on first use."""
        return any(_float_model(run) == _float_model(self.base_run) for run in self.started())

    def started(self) -> Iterator[RunConfig]:
        """Candidates that start from a float model: the grid's, and some of the space's."""
        return (run for run in self._candidates() if not run.from_scratch)

    def _candidates(self) -> Iterator[RunConfig]:
        """The grid's, and some of the space's."""
        return (self.run_of(changes) for changes in chain(self.combinations.changes, sample(self.space)))

    @cached_property
    def evaluate_every(self) -> int:
        """Steps between two evaluations of a candidate that trains; 0: none is evaluated before its end."""
        return next((steps for run in self._candidates() if (steps := run.schedule.evaluate_every)), 0)

    @property
    def templates(self) -> tuple[Template, ...]:
        """Those of the grid and of the space."""
        return (*self.grid, *self.space)

    @property
    def wanted(self) -> int:
        """Trials to train."""
        return size(self.grid) if self.trials is None else self.trials

    @property
    def most_candidates(self) -> int:
        """Candidates to look at, at most."""
        return self.candidates or 20 * self.wanted

    def to_dict(self) -> dict[str, Any]:
        """The resolved study, JSON-able; `study_from_dict` reads it."""
        values = asdict(self)
        return {**values, **{name: list(values[name]) for name in ("grid", "space", "objectives")}}

    def differences(self, other: "StudyConfig") -> list[str]:
        """Fields that make this another study than `other`; how much of it to try may change, and a field of the base
        that came with a later version is as it would be if nobody named it."""
        free = ("trials", "candidates", "base")
        own, others = (
            {f.name: with_order(getattr(study, f.name)) for f in fields(self) if f.name not in free}
            for study in (self, other)
        )
        found = [name for name in own if own[name] != others[name]]
        return found if self._has_base_of(other) else ["base", *found]

    def _has_base_of(self, other: "StudyConfig") -> bool:
        if with_order(self.base) == with_order(other.base):
            return True
        try:
            return bool(with_order(to_dict(self.base_run)) == with_order(to_dict(other.base_run)))
        except UserError:  # a field that this version no longer has
            return False


def _float_model(run: RunConfig) -> list[Any]:
    """What the float model that a run starts from depends on; but for the seed, which is repeated."""
    values = to_dict(run)
    trained = [] if run.start_file else ["augment", "training"]
    return [values[name] for name in ("start", "features", "tokenizer", "model", *trained)]


def load_study(path: Path, trials: int | None = None, fresh: bool = False) -> StudyConfig:
    """Read a study's YAML file; `trials` overrides its own, `fresh` trains a baseline where a model file is given.

    `like: other.yaml` takes the fields that the file does not name from another study. `base: run.yaml` takes the base
    from a run configuration; `base: {from: run.yaml, finetune: {steps: 200}}` changes some of its fields.

    Raises:
        UserError: the file is missing or not YAML, or a field is unknown, missing or wrong.
    """
    from qstudy.quant.policies import build_policy  # here: it needs torch, and who reads a study may be in a hurry

    values = load_yaml(path)
    if trials is not None:
        values["trials"] = trials
    with naming(path):
        study = _resolved(study_from_dict(_whole(path, values)), fresh)
        for changes in [*study.combinations.changes, *sample(study.space)]:  # before anything is made for any of them
            build_policy(study.run_of(changes).policy)
    return study


def _whole(path: Path, own: dict[str, Any]) -> dict[str, Any]:
    """A study's fields, with those of the files that it names."""
    values, other = own, own.pop("like", None)
    if other:
        alike = path.parent / str(other)
        there = load_yaml(alike)
        if "like" in there:
            raise UserError(f"like: {other} is itself like another study; name that one.")
        values = {**_with_base(alike, there), **values}
    return _with_base(path, values)


def _with_base(path: Path, values: dict[str, Any]) -> dict[str, Any]:
    """The fields that a file gives, with those of the run configuration that it names, by a path from where it lies."""
    base = {"from": values["base"]} if isinstance(values.get("base"), str) else values.get("base")
    if not isinstance(base, Mapping) or "from" not in base:
        return values
    changes = {name: value for name, value in base.items() if name != "from"}
    return {**values, "base": merged(load_yaml(path.parent / str(base["from"])), changes)}


def study_from_dict(values: Mapping[str, Any]) -> StudyConfig:
    """Fill a `StudyConfig` from plain values.

    Raises:
        UserError: a field is unknown, missing or wrong.
    """
    optional = ("grid", "space", "budgets", "sampler")
    given = {name: value for name, value in values.items() if value not in (None, "", [], {}) or name not in optional}
    for name in ("grid", "space", "objectives"):  # one stands for a list of one
        if name in given and isinstance(given[name], Mapping | str):
            given[name] = [given[name]]
    if isinstance(sampler := given.get("sampler"), str):
        given["sampler"] = {"name": sampler}
    return fill(StudyConfig, given)


def _resolved(study: StudyConfig, fresh: bool) -> StudyConfig:
    """The same study with every default of its base spelled out, so that it can be compared and sent elsewhere."""
    base = config_from_dict(dict(study.base))
    if (base.trainer.devices, base.trainer.num_nodes) != (1, 1):
        raise UserError(
            "base: trainer: a study trains every trial on one device, and several trials at once with --workers; leave"
            " devices and num_nodes at 1."
        )
    if study.sampler.name == "nsga2" and (study.grid or study.screening or len(study.space) > 1):
        raise UserError(
            "sampler: nsga2 crosses candidates that it proposed itself, all with the same parameters, and would propose"
            " at random here; give a `space` of one entry without `grid` and `screening`, or take tpe."
        )
    if study.pruning and not study.evaluate_every:
        field = f"base.{study.run_of(sample(study.templates)[0]).schedule_name}.evaluate_every"
        raise UserError(f"pruning: nothing is seen of a trial before its end, because {field} is 0.")
    if fresh and base.start_file is not None:
        base = replace(base, start="baseline")
    budgets = study.budgets
    if budgets.latency_ms is not None and budgets.accelerator is None:
        budgets = replace(budgets, accelerator=next(iter(base.accelerator), None))
    plain = json.loads(json.dumps(to_dict(base)))  # tuples become lists, as they will when read back from the storage
    return replace(study, base=plain, budgets=budgets)
