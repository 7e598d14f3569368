"""Hypervolume against seconds of training, for every study."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.search.studies import Entry
from qstudy.data.metrics import word_errors
from qstudy.files import content_hash, file_hash, read_json, write_json
from qstudy.pareto import Point, hypervolume
from qstudy.recognize.recognizer import recognizer_from_packed
from qstudy.sweep.screening import FOLDER
from qstudy.sweep.space import fill, varied
from qstudy.sweep.storage import load, open_storage
from qstudy.sweep.trials import SCREENED, dev_wer, is_trained
from qstudy.training.assets import open_assets
from qstudy.training.checkpoint import CHECKPOINT_FILE, load_checkpoint, pack_at
from qstudy.training.conclude import recognize

WORST_WER = 0.5
"""Of the reference point, whose other coordinate is the study's budget in bytes."""


@dataclass(frozen=True)
class Curve:
    """One study."""

    way: str
    seed: int
    seconds: list[float]
    """Of training, before each of its models was there."""
    points: list[Point]
    """(dev WER, bytes) of these models, packed."""
    volumes: list[float]
    """Behind the front of the models so far, as a share of all below the reference point."""

    def volume_at(self, seconds: float) -> float:
        """Behind the front after so many seconds of training."""
        return max((v for s, v in zip(self.seconds, self.volumes, strict=True) if s <= seconds), default=0.0)

    def seconds_to(self, volume: float) -> float | None:
        """Of training until so large a volume is reached; None: never."""
        return next((s for s, v in zip(self.seconds, self.volumes, strict=True) if v >= volume), None)


def curve(entry: Entry, fine_step_s: float, switchable_step_s: float) -> Curve:
    """A study's curve.

    Args:
        entry: the study, which has run.
        fine_step_s: seconds of a step of a fine-tune.
        switchable_step_s: the same of the switchable model.
    """
    seconds, points, spent = list[float](), list[Point](), 0.0
    if entry.config.screening is not None:
        spent = switchable_step_s * (entry.config.screening.steps or 0)
        for point in packed_front(entry):
            seconds.append(spent)
            points.append(point)
    for point in trained(entry):
        spent += fine_step_s * entry.config.base_run.finetune.steps
        seconds.append(spent)
        points.append(point)
    limit = float(entry.config.budgets.size_bytes or 0)
    shares = [(wer / WORST_WER, size / limit) for wer, size in points]
    volumes = [hypervolume(shares[: index + 1], (1.0, 1.0)) for index in range(len(shares))]
    return Curve(entry.way, entry.seed, seconds, points, volumes)


def trained(entry: Entry) -> Iterator[Point]:
    """(dev WER, bytes) of a study's trained trials, in their order."""
    for _, point in trained_parameters(entry):
        yield point


def trained_parameters(entry: Entry) -> Iterator[tuple[dict[str, Any], Point]]:
    """The same with their parameters."""
    _, study = load(open_storage(None, entry.folder, create=False), entry.config.study)
    for trial in study.trials:
        if is_trained(trial):
            yield trial.params, (dev_wer(trial), trial.user_attrs["size_bytes"])


def packed_front(entry: Entry) -> Sequence[Point]:
    """(dev WER, bytes) of the models that the switchable one is packed to, at each allocation that screening put on
    the front; kept in a file."""
    _, study = load(open_storage(None, entry.folder, create=False), entry.config.study)
    checkpoint = entry.folder / FOLDER / CHECKPOINT_FILE
    file = entry.folder / FOLDER / "front.json"
    same = content_hash(study.user_attrs[SCREENED], file_hash(checkpoint))
    if not file.exists() or read_json(file)["identity"] != same:
        points = list(_pack_and_score(entry, checkpoint, study.user_attrs[SCREENED]))
        write_json(file, {"identity": same, "points": points})
    return [(float(wer), float(size)) for wer, size in read_json(file)["points"]]


def _pack_and_score(entry: Entry, checkpoint: Path, screened: Sequence[dict[str, Any]]) -> Iterator[Point]:
    model, policy, config, tokenizer = load_checkpoint(checkpoint)
    dev, template = open_assets(config).dev, entry.config.space[0]
    for parameters in screened:
        picked = {place.path: parameters[place.name] for place in varied(template)}
        packed = pack_at(model, policy, fill(template, picked)["policy"], config, tokenizer)
        texts, _ = recognize(recognizer_from_packed(packed).model, dev, tokenizer)
        yield word_errors(dev.texts, texts).rate, packed.size_bytes
