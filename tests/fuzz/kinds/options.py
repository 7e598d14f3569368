"""The command line's options."""

import os
import shutil
from pathlib import Path
from random import Random
from typing import Any

from .. import yaml_text
from ..case import Attempt
from ..originals import ROOT, Originals
from ..values import values
from . import study

TABLE = values("options")
LARGE = 11  # from this one on, the numbers of the list NUMBERS are some program's way to write a whole number


def make(random: Random, originals: Originals, folder: Path) -> Attempt:
    """A command of which all but one option is fine."""
    shutil.copy(originals.folder / "fake_qat.qst", folder / "model.qst")
    shutil.copy(originals.folder / "run.yaml", folder / "run.yaml")
    (folder / "study.yaml").write_bytes(yaml_text.dumped(study.original(originals)))
    os.mkfifo(folder / "fifo")
    command = random.choice(list(TABLE["commands"]))
    option = random.choice(list(TABLE["commands"][command]["options"]))
    described = TABLE["commands"][command]["options"][option]
    value = str(random.choice(_listed(described["values"])))
    argv = [*command.split(), *_needed(command, option, originals), *([option] * bool(option)), value]
    if random.random() < 0.05:
        return Attempt(argv[: random.randrange(len(argv))], f"{command} without the rest", entry=_entry(command))
    invalid = value not in ("null", "~", " ", *_fine(described))  # YAML: the default
    return Attempt(argv, f"{command} {option} {value!r:.40}", invalid, entry=_entry(command))


def _entry(command: str) -> str:
    return "tests.fuzz.server:plan_only" if command in ("sweep", "worker") else "qstudy.cli:main"


def _listed(named: Any) -> list[Any]:
    return list(TABLE["lists"][named]) if isinstance(named, str) else named


def _fine(described: dict[str, Any]) -> list[Any]:
    match described.get("fine", []):
        case "ANY":
            return _listed(described["values"])
        case "LARGE":
            return _listed("NUMBERS")[LARGE:]
        case listed:
            return list(listed)


def _needed(command: str, option: str, originals: Originals) -> list[str]:
    """What the command needs beside the option."""
    places = {"corpus": originals.corpus, "sound": originals.sounds[0], "root": ROOT}
    places["checkpoint"] = originals.checkpoints["fake_qat"]
    needed = [each.format(**places) for each in TABLE["commands"][command]["needs"]]
    if option not in needed:
        return needed[:1] if option == "" else needed
    at = needed.index(option)
    return needed[:at] + needed[at + 2 :]
