"""What every corpus that we make shares: when to make it, its manifests, and what the user is told."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from qstudy.data.manifest import Utterance, read_manifest, write_manifest
from qstudy.errors import UserError
from qstudy.files import read_json, write_json

_RECIPE = "corpus.json"  # beside the manifests: what they were made from


def require_folder(root: Path, what: str) -> None:
    """Raise UserError unless `root` is a folder; `what` says what it should hold."""
    if not root.is_dir():
        raise UserError(f"--root: the folder {root} does not exist; it should hold {what}.")


def require_counts(**counts: int) -> None:
    """Raise UserError unless every split gets at least one utterance."""
    for split, count in counts.items():
        if count < 1:
            raise UserError(f"--{split}: {count} utterances cannot be made; give at least 1.")


def is_made(out: Path, recipe: Mapping[str, Any]) -> bool:
    """Whether `out` holds the corpus of exactly this recipe, whole; making it again would change nothing."""
    made = read_json(out / _RECIPE) if (out / _RECIPE).is_file() else {}
    present = all((out / f"{split}.jsonl").is_file() for split in made.get("manifests", ()))
    return present and {key: value for key, value in made.items() if key != "manifests"} == recipe


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
