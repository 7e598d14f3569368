"""What every corpus shares: writing its manifests and telling the user what came out."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from qstudy.data.manifest import Utterance, write_manifest
from qstudy.errors import UserError


def require_folder(root: Path, what: str) -> None:
    """Raise UserError unless `root` is a folder; `what` says what it should hold."""
    if not root.is_dir():
        raise UserError(f"--root: the folder {root} does not exist; it should hold {what}.")


def clear_manifests(out: Path, splits: Sequence[str]) -> None:
    """Remove old manifests before audio is written over, so that an interrupted run leaves none that lies."""
    for split in splits:
        (out / f"{split}.jsonl").unlink(missing_ok=True)


def write_manifests(out: Path, splits: Mapping[str, Sequence[Utterance]]) -> None:
    """Write `out/SPLIT.jsonl` for every split."""
    for split, utterances in splits.items():
        write_manifest(out / f"{split}.jsonl", utterances)


def print_summary(out: Path, splits: Mapping[str, Sequence[Utterance]]) -> None:
    """Print one row per split, and what to do next."""
    table = Table("", box=SIMPLE_HEAD)
    for column in ("utterances", "hours", "words", "distinct words", "speakers"):
        table.add_column(column, justify="right")
    for split, utterances in splits.items():
        words = [word for item in utterances for word in item.text.split()]
        hours = sum(item.duration for item in utterances) / 3600
        speakers = len({item.speaker for item in utterances} - {None})
        counts = (f"{len(utterances):,}", f"{hours:.2f}", f"{len(words):,}", f"{len(set(words)):,}", f"{speakers:,}")
        table.add_row(split, *counts)
    Console().print(table)
    print(f"Manifests: {', '.join(str(out / f'{split}.jsonl') for split in splits)}")
