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

MOST = 1_000_000
"""Utterances of a split at most: more than 500 hours."""
_RECIPE = "corpus.json"  # beside the manifests: what they were made from


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
    made = _made(out)
    present = all((out / f"{split}.jsonl").is_file() for split in made.get("manifests", ()))
    return present and {key: value for key, value in made.items() if key != "manifests"} == recipe


def is_unfinished(out: Path) -> bool:
    """Whether somebody who made a corpus in `out` was stopped."""
    return (out / _RECIPE).is_file() and not _made(out)


def require_recipe(out: Path, options: Mapping[str, Any]) -> None:
    """Refuse a corpus that was made from other options than are asked for.

    Args:
        out: its folder; manifests that this program did not make are taken as they are.
        options: all options of the corpus by name, and `corpus`; those that its recipe does not keep are free.

    Raises:
        UserError: an option differs.
    """
    made = _made(out)
    asked = {name: _KEPT_AS.get(name, _itself)(value) for name, value in options.items()}
    changed = [name for name in made if name in asked and made[name] != asked[name]]
    if changed:
        there = ", ".join(f"{name} {made[name]} there, {asked[name]} here" for name in changed)
        raise UserError(f"data.make: {out} holds a corpus of another recipe ({there}); choose another folder.")


def _itself(value: Any) -> Any:
    return value


_KEPT_AS: dict[str, Callable[[Any], Any]] = {
    "root": lambda root: str(root.resolve()),
    "unheard": lambda speakers: sorted(speakers or []),
}
"""How a recipe keeps an option, where not as it is."""


def _made(out: Path) -> dict[str, Any]:
    """The recipe beside the manifests; empty if there is none."""
    made = read_json(out / _RECIPE) if (out / _RECIPE).is_file() else {}
    if not isinstance(made, dict):
        raise UserError(f"{out / _RECIPE} is not the recipe of a corpus; choose another folder.")
    return made


def begin(out: Path, splits: Sequence[str]) -> None:
    """Remove old manifests before their audio is written over, so that an interrupted run leaves none that lies.

    Raises:
        UserError: there are manifests in `out` that this program did not make.
    """
    old = [path for path in (out / f"{split}.jsonl" for split in splits) if path.exists()]
    if old and not (out / _RECIPE).exists():
        raise UserError(f"--out: {old[0]} is there already and was made elsewhere; choose another folder.")
    write_json(out / _RECIPE, {})  # unfinished
    for path in old:
        path.unlink()


def finish(out: Path, splits: dict[str, list[Utterance]], recipe: Mapping[str, Any]) -> None:
    """Write `out/SPLIT.jsonl` for every split, train last, then the recipe: no part passes for the whole."""
    for split, utterances in reversed(splits.items()):
        write_manifest(out / f"{split}.jsonl", utterances)
    write_json(out / _RECIPE, {**recipe, "manifests": list(splits)})


def print_summary(out: Path) -> None:
    """Print one row per manifest in `out`, and what to do next."""
    table = Table("manifest", box=SIMPLE_HEAD)
    for column in ("utterances", "hours", "words", "distinct words", "speakers"):
        table.add_column(column, justify="right")
    paths = sorted(out.glob("*.jsonl"), key=lambda path: (path.stem != "train", path.stem != "dev", path.name))
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
