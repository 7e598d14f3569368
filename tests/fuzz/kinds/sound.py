"""Controls: nothing is wrong, so that a refusal is. Files go through the writers that other kinds damage files with."""

from pathlib import Path
from random import Random

import soundfile

from .. import yaml_text
from ..case import Attempt
from ..mutate import shuffled
from ..originals import Originals
from ..values import values
from . import audio, checkpoint, packed, records, study


def make(random: Random, originals: Originals, folder: Path) -> Attempt:
    """Something that must be accepted."""
    way = random.choice([_packed, _checkpoint, _audio, _run, _study, _profile, _sizes, _records])
    argv, entry = way(random, originals, folder)
    return Attempt(argv, f"sound {way.__name__.lstrip('_')} ({argv[0]})", valid=True, entry=entry)


Command = tuple[list[str], str]
MAIN = "qstudy.cli:main"


def _packed(random: Random, originals: Originals, folder: Path) -> Command:
    header, tensors = packed.read(random.choice(list(originals.models.values())))
    (folder / packed.FILE).write_bytes(packed.written(shuffled(random, header), tensors))
    return packed.command(random, originals, packed.FILE), MAIN


def _checkpoint(random: Random, originals: Originals, folder: Path) -> Command:
    path = random.choice(list(originals.checkpoints.values()))
    (folder / checkpoint.FILE).write_bytes(checkpoint.saved(checkpoint.loaded(path)))
    export = ["export", checkpoint.FILE, "--out", "out.qst"]
    return random.choice([packed.command(random, originals, checkpoint.FILE), export]), MAIN


def _audio(random: Random, originals: Originals, folder: Path) -> Command:
    samples, rate = soundfile.read(random.choice(originals.sounds), dtype="float32")
    form = random.choice(list(audio.FORMATS))
    rate = random.choice([rate, 8000, 11025, 44100, 96000])
    (folder / f"a.{form}").write_bytes(audio.encoded(samples, rate, form))
    return ["transcribe", str(originals.folder / "fake_qat.qst"), f"a.{form}"], MAIN


def _run(random: Random, originals: Originals, folder: Path) -> Command:
    (folder / "run.yaml").write_bytes(yaml_text.dumped(shuffled(random, originals.run)))
    train = ["train", "--config", "run.yaml", "--training.steps", "1", "--finetune.steps", "1", "--out", "o"]
    return random.choice([["simulate", "run.yaml"], train]), MAIN


def _study(random: Random, originals: Originals, folder: Path) -> Command:
    (folder / "study.yaml").write_bytes(yaml_text.dumped(study.original(originals)))
    return ["sweep", "study.yaml"], "tests.fuzz.server:plan_only"


def _profile(random: Random, originals: Originals, folder: Path) -> Command:
    profile = originals.yaml("qstudy/hardware/profiles/edge_nna.yaml")
    (folder / "mine.yaml").write_bytes(yaml_text.dumped(shuffled(random, profile)))
    return ["simulate", str(originals.folder / "float.qst"), "--accelerator", "mine.yaml"], MAIN


def _sizes(random: Random, originals: Originals, folder: Path) -> Command:
    (folder / "sizes.yaml").write_bytes(yaml_text.dumped(shuffled(random, values("sizes"))))
    return ["simulate", "sizes.yaml", "--bits", "w4a8"], MAIN


def _records(random: Random, originals: Originals, folder: Path) -> Command:
    (folder / "study").mkdir()
    name, content = records.written(random, originals.records)
    (folder / "study" / name).write_bytes(content)
    return ["report", "study", "--out", "out"], MAIN
