"""The command line's options."""

import os
import shutil
from pathlib import Path
from random import Random

from .case import Attempt
from .originals import ROOT, Originals

NUMBERS = ["-1", "0", "x", "1.5", "nan", "inf", "", " ", "\u0663", "8\u00b2", "1" * 5000, str(10**30), "0x10", "1_000", "1e3",
           "true", "null", "[1]", "{}", "--", "-", "\x00"]  # fmt: skip
WORDS = ["", " ", "zzz", "3", "null", "[]", "{}", "os.system", "../../x", "\x1b[31m", "x" * 5000, "\ud800", "--", "a\nb", "\u0663"]
PATHS = ["", ".", "..", "fifo", "/dev/null/x", "nowhere/x", "x" * 300, "\ud800", "-", "~", "a\x00b", "/proc/x/y", "model.qst",
         "run.yaml", "http://127.0.0.1:9/x"]  # fmt: skip
BITS = ["w4", "a8", "w4a", "wa", "w9a8", "w4a8,", "zzz=w4a8", "*=w\u0664a8", "w\u00b2a8", "w-4a8", "w4a8=w4a8", "=", ",", "w04a08", "W4A8 ",
        "w4a8w4a8", "encoder.*=", "*=*", "w" + "4" * 5000 + "a8", "w1a1", "w4.0a8", "[=w4a8"]  # fmt: skip

Option = tuple[str, list[str], tuple[str, ...]]
"""Name, values, and those of them that are fine."""
SOME = ("1" * 5000, str(10**30))  # a whole number, however large, is one
OPTIONS: dict[str, list[Option]] = {
    "simulate": [
        ("--bits", BITS, ("W4A8 ", "w04a08")), ("--beam", NUMBERS, (*SOME, "null")), ("--accelerator", WORDS, ()),
        ("--manifest", PATHS, ("null",)), ("--plot", PATHS, ()), ("--compare", [*WORDS, *BITS], ("W4A8 ", "w04a08", "null")),
    ],
    "transcribe": [("--stream", ["x", "false"], ()), ("--zzz", WORDS, ()), ("", PATHS, ("model.qst",))],
    "evaluate": [
        ("--decode", WORDS, ()), ("--manifest", PATHS, ()), ("--hypotheses", PATHS, WORDS), ("--cache", PATHS, tuple(PATHS)),
        ("--skip_broken", ["x"], ()),
    ],
    "export": [("--out", PATHS, ("nowhere/x", "-", "~", "http://127.0.0.1:9/x", "model.qst"))],
    "report": [("--split", WORDS, ()), ("--out", PATHS, tuple(PATHS)), ("--also", PATHS, ())],
    "sweep": [
        ("--workers", NUMBERS, (*SOME, "null")), ("--trials", NUMBERS, (*SOME, "null")), ("--root", PATHS, tuple(PATHS)),
        ("--storage", [*WORDS, "sqlite:///x.db", "sqlite:////nowhere/x.db", "postgresql://u:PW@127.0.0.1:port/d",
                       "postgresql://u:PW@127.0.0.1:9/d", "mysql://x", "http://x", "postgresql://", "sqlite://", "://"],
         ("null", "sqlite:///x.db", "sqlite://", "")),
    ],
    "worker": [("--study", WORDS, ()), ("--storage", WORDS, ("null",)), ("--root", PATHS, ())],
    "train": [
        ("--seed", NUMBERS, ("0", "1_000", "1e3", "0x10", "1.5")), ("--training.steps", NUMBERS[:14], ("1_000",)),
        ("--training.learning_rate", ["-1", "0", "x", "nan", "inf", ""], ()), ("--policy", [*WORDS, "ptq", "{name: []}", "{name: ptq"], ()),
        ("--policy.name", WORDS, ()), ("--name", [*WORDS, "../x", "a/b"], tuple(WORDS)), ("--out", PATHS, tuple(PATHS)),
        ("--accelerator", [*WORDS, "[zzz]", "[]", "[3]"], ("[]", "null")), ("--config", PATHS, ("run.yaml",)),
        ("--data.train", PATHS, ()), ("--start", WORDS, ("null",)), ("--model.encoder", WORDS, ()),
        ("--model.encoder.hidden", NUMBERS[:13], ()), ("--track", ["x", "3", ""], ()), ("--trainer.devices", ["0", "-1", "x", "", "99"], ()),
        ("--trainer.accelerator", WORDS, ()), ("--trainer.strategy", WORDS, ()), ("--cache", PATHS, tuple(PATHS)),
        ("--data.workers", ["-1", "x", "1.5", "nan", ""], ()), ("--training.precision", WORDS, ()), ("--augment", WORDS, ("{}", "null")),
    ],
    "cache": [("--days", NUMBERS, ("0", "1.5", "1e3", "1_000", "0x10", *SOME)), ("--cache", PATHS, tuple(PATHS)), ("--zzz", WORDS, ()), ("--prune", ["x"], ())],
    "data commands": [
        ("--train", NUMBERS[:12], ()), ("--dev", NUMBERS[:12], ()), ("--seed", NUMBERS, SOME), ("--processes", NUMBERS[:11], ()),
        ("--out", PATHS, tuple(PATHS)),
    ],
    "data digits": [("--root", PATHS, ()), ("--unheard", WORDS, ()), ("--train", NUMBERS[:11], ())],
    "data librispeech": [("--root", PATHS, ())],
    "data ljspeech": [("--root", PATHS, ())],
}  # fmt: skip


def make(random: Random, originals: Originals, folder: Path) -> Attempt:
    """A command whose other options are fine."""
    shutil.copy(originals.folder / "fake_qat.qst", folder / "model.qst")
    shutil.copy(originals.folder / "run.yaml", folder / "run.yaml")
    os.mkfifo(folder / "fifo")
    command = random.choice(list(OPTIONS))
    option, values, fine = random.choice(OPTIONS[command])
    value = random.choice(values)
    argv = [*command.split(), *_others(command, option, originals, folder), *([option] * bool(option)), value]
    if random.random() < 0.05:
        return Attempt(argv[: random.randrange(len(argv))], f"{command} without the rest")
    entry = "tests.fuzz.server:plan_only" if command in ("sweep", "worker") else "qstudy.cli:main"
    return Attempt(argv, f"{command} {option} {value!r:.40}", value not in fine, entry=entry)


def _others(command: str, option: str, originals: Originals, folder: Path) -> list[str]:
    """What the command needs beside the option."""
    from . import study, yaml_text

    manifest, sound = str(originals.corpus / "test.jsonl"), str(originals.sounds[0])
    (folder / "study.yaml").write_bytes(yaml_text.dumped(study.original(originals)))
    needed = {
        "simulate": ["model.qst", "--json"],
        "transcribe": ["model.qst", *[sound] * bool(option)],
        "evaluate": ["model.qst", "--manifest", manifest],
        "export": [str(originals.checkpoints["fake_qat"])],
        "report": [str(ROOT / "reports" / "digits-search"), "--out", "report"],
        "sweep": ["study.yaml"],
        "worker": [],
        "train": ["--config", "run.yaml", "--training.steps", "1", "--out", "o"],
        "cache": [],
        "data commands": ["--out", "corpus", "--train", "2", "--dev", "1", "--test", "1"],
        "data digits": ["--out", "corpus"],
        "data librispeech": ["--out", "corpus"],
        "data ljspeech": ["--out", "corpus"],
    }[command]
    if option in needed:
        at = needed.index(option)
        needed = needed[:at] + needed[at + 2 :]
    return needed
