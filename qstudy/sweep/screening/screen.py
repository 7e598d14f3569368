"""Candidates judged before any is trained: the best go first, and hopeless ones are not trained at all."""

from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from tqdm import tqdm

from qstudy.data.manifest import identity
from qstudy.files import content_hash
from qstudy.locks import locked
from qstudy.pareto import Point, by_volume
from qstudy.sweep.config import Screening, StudyConfig
from qstudy.sweep.screening.allocations import Allocations, Member
from qstudy.sweep.screening.exploration import explore, foretell, on_front
from qstudy.sweep.screening.judge import Judge, Judged
from qstudy.sweep.space import Label
from qstudy.training.assets import make_corpus, open_assets
from qstudy.training.baseline import trained_folder
from qstudy.training.checkpoint import CHECKPOINT_FILE, load_checkpoint, steps_done
from qstudy.training.config import RunConfig, to_dict
from qstudy.training.devices import join
from qstudy.training.record import RECORD_FILE
from qstudy.training.run import calibrated, run

_screens: dict[tuple[Path, str], "Screen"] = {}
FOLDER = "screening"


class Screen:
    """The screening of one study, in its folder; goes on where it was interrupted."""

    def __init__(self, config: StudyConfig, folder: Path) -> None:
        """Args: a study with `screening`; its folder."""
        assert config.screening is not None
        self._study, self._settings, self._folder = config, config.screening, folder / FOLDER
        self.allocations = Allocations(config)
        self._judge = judge_of(config, self._settings, self.allocations, self._folder)

    def ranked(self) -> list[dict[str, Label]]:
        """Parameters of the candidates to train first: those on the front of errors and costs, the one that adds most
        to it first; where the error rate is all that is minimized, that with the fewest errors first."""
        errors = self._errors_alone()
        points = {member: (errors[member], *cost) for member, cost in self._costs.items() if member in errors}
        members = list(points)
        if self._study.objectives == ("wer",):
            best = sorted(on_front(self._costs, errors), key=lambda member: errors[member])
        else:
            best = [members[index] for index in by_volume(list(points.values()))]
        return [self.allocations.parameters(member) for member in best]

    def hopeless(self, parameters: Mapping[str, Any], costs: Mapping[str, float]) -> str | None:
        """Why a candidate within the budgets is not worth its training; None: it may be."""
        if (share := self._settings.hopeless) is None:
            return None
        member, bound = self.allocations.member(parameters), self._point(costs)
        errors = self._errors_alone()
        own = errors[member] if member in errors else self._error(member)
        for other, error in errors.items():
            cheaper = other in self._costs and all(a <= b for a, b in zip(self._costs[other], bound, strict=True))
            if cheaper and own > error * (1 + share):
                named = self.allocations.named(other)
                return f"hopeless: an error of {own:.3g} before training; {named} costs no more and has {error:.3g}"
        return None

    def _errors_alone(self) -> dict[Member, float]:
        """`_errors`, for which one process alone trains the model and judges; the others find what it made."""
        with locked(self._folder / "lock", "Waiting for another process, which screens the same candidates."):
            return self._errors

    @cached_property
    def _costs(self) -> dict[Member, Point]:
        """Those within the budgets."""
        return {member: self._point(costs) for member, costs in self.allocations.affordable().items()}

    def _point(self, costs: Mapping[str, float]) -> Point:
        names = dict.fromkeys([*self._study.objectives[1:], *self._study.budgets.limits])
        return tuple(costs[name] for name in names or ["size_bytes"])

    @cached_property
    def _errors(self) -> dict[Member, float]:
        """Of those that were judged; by `sensitivity` of all within the budgets."""
        most = self._settings.evaluations
        with tqdm(total=most, desc="screening", unit="candidate", disable=None) as bar:

            def error(member: Member) -> float:
                bar.update()
                return self._error(member)

            starts = list(self.allocations.star())
            if self._settings.by != "sensitivity":
                return explore(self._costs, starts, error, most)
            judged = {member: error(member) for member in starts}
            members = list(self._costs)
            return dict(zip(members, foretell(members, judged), strict=True))

    def _error(self, member: Member) -> float:
        return self._judge.score(self.allocations.named(member), self.allocations.bit_map(member)).error


def screen_of(config: StudyConfig, folder: Path) -> Screen:
    """The screening of a study, one for all of its trials in this process: its model is made once."""
    key = folder, content_hash(config.to_dict())
    if key not in _screens:
        _screens[key] = Screen(config, folder)
    return _screens[key]


def started(run: RunConfig, config: StudyConfig, folder: Path) -> RunConfig:
    """A trial of the study's space, from where the study wants it to start."""
    if config.screening is None or config.screening.start != "switchable":
        return run
    return replace(run, start=str(folder / FOLDER / CHECKPOINT_FILE))


def judge_of(config: StudyConfig, settings: Screening, allocations: Allocations, folder: Path) -> Judge:
    """What judges the members of a study's space, its scores and its model in `folder`."""
    base, trained = config.base_run, settings.by == "switchable"
    make_corpus(base)  # whose manifests name the scores
    own = replace(base, policy=allocations.switchable, data=replace(base.data, test={}))
    if settings.steps is not None:
        own = replace(own, finetune=replace(own.finetune, steps=settings.steps))

    def open_model() -> Judged:
        return trained_model(own, folder, config.study) if trained else untrained_model(own)

    values = to_dict(own)
    parts = values if trained else [values[key] for key in ("features", "tokenizer", "model", "policy", "seed")]
    begun = own.start_identity if own.start_file else trained_folder(own).name
    places = [place.name for place in allocations.places]  # scores are named by values in this order
    same = content_hash(parts, places, begun, identity(Path(own.data.dev)), settings.utterances)
    return Judge(open_model, settings.utterances, folder / f"scores-{same[:8]}.json", same)


def untrained_model(config: RunConfig) -> Judged:
    """A switchable model that was calibrated alone."""
    model, policy = calibrated(config)
    assets = open_assets(config)
    return Judged(model, policy, assets.dev, assets.tokenizer)  # type: ignore[arg-type]


def trained_model(config: RunConfig, folder: Path, study: str) -> Judged:
    """A switchable model, trained in a folder of its own unless it is there.

    Raises:
        UserError: it is there, but of a study that was planned otherwise.
    """
    if (folder / RECORD_FILE).exists():
        steps_done(folder / CHECKPOINT_FILE, config)
    else:
        run(config, folder, name=f"{study}-switchable", study=study)
    model, policy, _, tokenizer = load_checkpoint(folder / CHECKPOINT_FILE)
    return Judged(model.to(join(config.trainer).device), policy, open_assets(config).dev, tokenizer)  # type: ignore[arg-type]
