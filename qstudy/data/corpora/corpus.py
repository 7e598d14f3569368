"""What every corpus that we make shares: when to make it, its manifests, and what the user is told."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from qstudy.data.manifest import Utterance, read_manifest, write_manifest
from qstudy.errors import UserError
from qstudy.files import read_json, write_json
from qstudy.locks import locked

MOST = 1_000_000
"""Utterances of a split at most: more than 500 hours."""
_RECIPE = "corpus.json"
"""Beside the manifests: what they were made from (the recipe), and `files`: everything that was ever written there."""


def require_folder(root: Path, what: str) -> None:
    """Raise UserError unless `root` is a folder; `what` says what it should hold."""
    if not root.is_dir():
        raise UserError(f"--root: the folder {root} does not exist; it should hold {what}.")


def require_counts(**counts: int) -> None:
    """Raise UserError unless every split gets at least one utterance, and no more than can be made."""
    for split, count in counts.items():
        if not 1 <= count <= MOST:
            raise UserError(f"--{split}: {count} utterances cannot be made; give 1 to {MOST}.")


def require_seed(seed: int) -> None:
    """Raise UserError unless `seed` is one."""
    if not 0 <= seed < 2**32:
        raise UserError(f"--seed: {seed} must lie between 0 and {2**32 - 1}.")


def is_made(out: Path, recipe: Mapping[str, Any]) -> bool:
    """Whether `out` holds the corpus of exactly this recipe, whole; making it again would change nothing."""
    made = _made(out) or {}
    present = all((out / f"{split}.jsonl").is_file() for split in made.get("manifests", ()))
    return present and {key: value for key, value in made.items() if key not in ("manifests", "files")} == recipe


def make_once(out: Path, recipe: Mapping[str, Any], make: Callable[[], None]) -> None:
    """Make a corpus unless it is there, one process at a time, and say what `out` holds then."""
    there = is_made(out, recipe)
    if not there:
        with locked(out / "making.lock", f"Waiting for another process, which makes a corpus in {out}."):
            there = is_made(out, recipe)
            if not there:
                make()
    if there:
        print(f"{out} already holds this corpus.")
    print_summary(out)


def is_unfinished(out: Path) -> bool:
    """Whether somebody who made a corpus in `out` was stopped."""
    made = _made(out)
    return made is not None and "manifests" not in made


def require_recipe(out: Path, options: Mapping[str, Any]) -> None:
    """Refuse a corpus that was made from other options than are asked for.

    Args:
        out: its folder; manifests that this program did not make are taken as they are.
        options: all options of the corpus by name, and `corpus`; those that its recipe does not keep are free.

    Raises:
        UserError: an option differs.
    """
    made = _made(out)
    made = {} if made is None else {**UNSAID, **made}
    asked = {name: _KEPT_AS.get(name, _itself)(value) for name, value in options.items()}
    changed = [name for name in made if name in asked and made[name] != asked[name]]
    if changed:
        there = ", ".join(f"{name} {made[name]} there, {asked[name]} here" for name in changed)
        raise UserError(f"data.make: {out} holds a corpus of another recipe ({there}); choose another folder.")


def _itself(value: Any) -> Any:
    return value


UNSAID = {
    **{"domain": "all", "test_domain": None, "shared": 0.0},  # of commands
    **{"unheard_all": False, "takes": False, "test_strings": "random", "synthetic": 0},  # of digits
}
"""Options that a recipe leaves out where they have this value, so that older corpora are what they were."""
_KEPT_AS: dict[str, Callable[[Any], Any]] = {
    "root": lambda root: str(root.resolve()),
    "unheard": lambda speakers: sorted(speakers or []),
}
"""How a recipe keeps an option, where not as it is."""


def begin(out: Path, splits: Sequence[str], audio: Sequence[Path] = ()) -> None:
    """Remove old manifests before their audio is written over, so that an interrupted run leaves none that lies; where
    there is audio, those of another recipe too, whose sound may be written over.

    Args:
        out: the corpus.
        splits: manifests that will be written.
        audio: sound files below `out` that will be written.

    Raises:
        UserError: one of these files is in `out`, and this program did not make it.
    """
    made = _made(out)
    planned = [*(f"{split}.jsonl" for split in splits), *(path.relative_to(out).as_posix() for path in audio)]
    ours = set[str]() if made is None else {*made.get("files", planned)}  # older versions kept no list
    for name in planned:
        if name not in ours and (out / name).exists():
            raise UserError(f"--out: {out / name} already exists and was made elsewhere; choose another folder.")
    write_json(out / _RECIPE, {"files": sorted({*planned, *ours})})  # unfinished
    older = (made or {}).get("manifests", ()) if audio else ()
    for split in {*splits, *older}:
        (out / f"{split}.jsonl").unlink(missing_ok=True)


def finish(out: Path, splits: dict[str, list[Utterance]], recipe: Mapping[str, Any]) -> None:
    """Write `out/SPLIT.jsonl` for every split, train last, then the recipe: no part passes for the whole."""
    for split, utterances in reversed(splits.items()):
        write_manifest(out / f"{split}.jsonl", utterances)
    files = (_made(out) or {}).get("files", [])
    write_json(out / _RECIPE, {**recipe, "manifests": list(splits), "files": files})


def _made(out: Path) -> dict[str, Any] | None:
    """What `out` says of a corpus that this program made there, or began to make; None if it says nothing.

    Raises:
        UserError: the file that should say so is somebody else's.
    """
    path = out / _RECIPE
    if not path.is_file():
        return None
    made = read_json(path)
    if not isinstance(made, dict) or (made and not {"corpus", "files"} & made.keys()):
        raise UserError(f"--out: {path} already exists and was made elsewhere; choose another folder.")
    return made


def print_summary(out: Path) -> None:
    """Print one row per manifest that this program made in `out`, and what to do next."""
    table = Table("manifest", box=SIMPLE_HEAD)
    for column in ("utterances", "hours", "words", "distinct words", "speakers"):
        table.add_column(column, justify="right")
    made = [out / f"{name}.jsonl" for name in (_made(out) or {}).get("manifests", ())]
    paths = sorted(made, key=lambda path: (path.stem != "train", path.stem != "dev", path.name))
    for path in paths:
        utterances = read_manifest(path)
        words = [word for item in utterances for word in item.text.split()]
        hours = sum(item.duration for item in utterances) / 3600
        speakers = len({item.speaker for item in utterances} - {None})
        counts = (f"{len(utterances):,}", f"{hours:.2f}", f"{len(words):,}", f"{len(set(words)):,}", f"{speakers:,}")
        table.add_row(path.name, *counts)
    Console().print(table)
    print(f"The manifests are in {out}.")
    if {"train.jsonl", "dev.jsonl"} <= {path.name for path in paths}:
        print(f"Next: qstudy train --data.train {out / 'train.jsonl'} --data.dev {out / 'dev.jsonl'}")
    else:
        print(f"Next: qstudy evaluate MODEL --manifest {paths[0]}")
