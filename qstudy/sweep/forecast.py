"""What a study is about to do and about how long that takes, told before it begins."""

import inspect
from collections.abc import Sequence
from math import prod
from pathlib import Path
from typing import NamedTuple

from qstudy.quant.policies import build_policy
from qstudy.sweep.config import StudyConfig
from qstudy.sweep.known import has_known, known_record
from qstudy.sweep.space import corners
from qstudy.sweep.summary import duration
from qstudy.training.assets import corpus_maker
from qstudy.training.baseline import trained_folder
from qstudy.training.config import RunConfig
from qstudy.training.price import price
from qstudy.training.record import RECORD_FILE

# Seconds of one core, from records of two AMD EPYCs, one 1.6 times faster: what a laptop has, within a factor of two.
UTTERANCE_S = 0.012  # synthesize or join one, and its features
FLOAT_STEP_S, QUANTIZED_STEP_S = 3.5e-9, 5.5e-9  # per parameter and utterance of a batch
LEAST_STEP_S = 0.02
UTTERANCE_SCORED_S = 0.004  # recognize one in an evaluation of screening
SCORING_S = 10.0  # start a trial, pack its model, recognize a few hundred utterances
FEW_HUNDRED = 300  # utterances of a dev set
CORES = 2


class Part(NamedTuple):
    """One line of a plan."""

    name: str
    what: str
    seconds: float
    """0: it is there already."""


def print_forecast(config: StudyConfig, folder: Path, done: int) -> None:
    """Print what a study will make, what is there already, and about how long each part takes.

    Args:
        config: the study.
        folder: where all of it goes.
        done: trials that have ended.

    Raises:
        UserError: its start file is missing.
    """
    starts = [again for run in config.started() if _starts(run, folder) for again in config.repeats(run)]
    unlike = {(run.start_file, repr(run.model), repr(run.training), run.seed): run for run in starts}
    baselines = list(dict.fromkeys(_baseline(run) for run in unlike.values()))
    parts = [_corpus(config.base_run), *baselines, *_screening(config, folder), _trials(config, folder, done)]
    whole = duration(sum(part.seconds for part in parts))
    print(f"Study {config.study}: {whole} on two CPU cores; all of it goes to {folder}.")
    print("\n".join(_lines(parts)), flush=True)


def _starts(run: RunConfig, folder: Path) -> bool:
    """Whether there is a file to start from, or must be one: that of known trials may be gone."""
    return run.start_file is None or Path(run.start_file).exists() or not has_known(folder)


def _lines(parts: Sequence[Part]) -> list[str]:
    width = max(len(part.what) for part in parts)
    times = [duration(part.seconds) if part.seconds else "done" for part in parts]
    return [f"  {part.name:<9} {part.what:<{width}}  {time}" for part, time in zip(parts, times, strict=True)]


def _corpus(run: RunConfig) -> Part:
    made = Path(run.data.train).exists()
    folder = Path(run.data.train).parent
    if made or not run.data.is_makeable:
        return Part("corpus", f"{folder} is there" if made else f"{run.data.train} (missing)", 0)
    options = dict(run.data.make)
    defaults = inspect.signature(corpus_maker(str(options.get("corpus")))).parameters
    asked = [options.get(split, defaults[split].default) for split in ("train", "dev", "test") if split in defaults]
    counts = [count for count in asked if isinstance(count, int)]  # an own corpus may mean something else
    return Part("corpus", f"make {sum(counts):,} utterances in {folder}", sum(counts) * UTTERANCE_S / CORES)


def _baseline(run: RunConfig) -> Part:
    """A run that trains from scratch needs none, but the others of its study do."""
    if run.start_file is not None:
        identity = str(run.start_identity)[:8]
        return Part("baseline", f"{run.start_file} ({identity}), scored on this study's sets", SCORING_S)
    if Path(run.data.train).exists() and (trained_folder(run) / RECORD_FILE).exists():
        return Part("baseline", f"{trained_folder(run)} is there", 0)
    seconds = run.training.steps * _step_s(run, _parameters(run), FLOAT_STEP_S) / CORES
    seed = f", seed {run.seed}" if run.seed else ""
    return Part("baseline", f"train a float model, {run.training.steps:,} steps{seed}", seconds + SCORING_S)


def _screening(config: StudyConfig, folder: Path) -> list[Part]:
    """What judges the candidates; nothing of it is known to be there but its model."""
    if (settings := config.screening) is None:
        return []
    run = config.run_of(corners(config.space)[0])
    steps = settings.steps or run.schedule.steps
    trains = settings.by == "switchable" and not (folder / "screening" / RECORD_FILE).exists()
    seconds = steps * _step_s(run, _parameters(run), QUANTIZED_STEP_S) / CORES if trains else 0.0
    seconds += settings.evaluations * (settings.utterances or FEW_HUNDRED) * UTTERANCE_SCORED_S
    trained = f", {steps:,} steps in all widths" if trains else ""
    return [Part("screening", f"up to {settings.evaluations:,} evaluations{trained}", seconds)]


def _trials(config: StudyConfig, folder: Path, done: int) -> Part:
    """The grid's trials, then the space's, whose first corner stands for all of them."""
    changes = config.combinations.changes[: config.wanted]
    changes += corners(config.space)[:1] * (config.wanted - len(changes))
    runs = [config.run_of(each) for each in changes]
    steps = max(run.schedule.steps for run in runs)
    seeds = f" with each of {config.seeds} seeds" if config.seeds > 1 else ""
    left = [run for run in runs[done:] if known_record(folder, run) is None]
    known = len(runs[done:]) - len(left)
    ready = [f", {number} {how}" for how, number in {"done": done, "known": known}.items() if number]
    what = f"{config.wanted} of up to {steps:,} steps{seeds}{''.join(ready)}"
    parameters = {model: _parameters(run) for model, run in {repr(run.model): run for run in runs}.items()}
    seconds = sum(_trial_s(run, parameters[repr(run.model)]) for run in left)
    return Part("trials", what, config.seeds * seconds / CORES)


def _trial_s(run: RunConfig, parameters: int) -> float:
    steps = run.schedule.steps if build_policy(run.policy).trains else 0
    return steps * _step_s(run, parameters, QUANTIZED_STEP_S) + SCORING_S


def _step_s(run: RunConfig, parameters: int, unit: float) -> float:
    """One optimizer step on one core."""
    return LEAST_STEP_S + unit * parameters * run.schedule.batch_size


def _parameters(run: RunConfig) -> int:
    return sum(prod(matrix) for shape in price(run).shapes for matrix in shape.matrices)
