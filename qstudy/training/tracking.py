"""Weights & Biases beside a run: a mirror of its record that may fail without costing anything."""

import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from qstudy.files import read_json, write_json
from qstudy.training.config import RunConfig, to_dict
from qstudy.training.record import Record

if TYPE_CHECKING:  # Lightning takes seconds to import
    from qstudy.training.wandb_run import Tracker

ID_FILE = "wandb.json"
Job = Literal["train", "trial", "baseline", "candidate", "study"]
"""What a run is: of no study, of one; its float baseline; a candidate that was not trained; the study itself."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """How a run is entered in W&B."""

    folder: Path
    """Of the run; keeps its identity (`wandb.json`), so that a resumed run is the same one."""
    place: Path
    """Receives W&B's own folder: the study's, so that `wandb leet` shows its runs side by side; or the run's."""
    name: str
    config: Mapping[str, Any]
    study: str | None = None
    """W&B's group."""
    trial: int | None = None
    job: Job = "train"
    tags: tuple[str, ...] = ()

    @property
    def identity(self) -> str:
        """The run's id: study and trial, or what else it is, and some letters that make it the only one."""
        path = self.folder / ID_FILE
        if not path.exists():
            which = f"{self.trial:04d}" if self.trial is not None else self.job
            parts = (self.study or self.name, which, secrets.token_hex(4))
            write_json(path, {"id": "-".join(re.sub(r"[^\w.-]", "_", part)[:50] for part in parts)})
        return str(read_json(path)["id"])


def entry_of(
    config: RunConfig, folder: Path, bit_map: Mapping[str, Any], study: str | None = None, trial: int | None = None
) -> Entry:
    """The entry of a run.

    Args:
        config: the run.
        folder: `studies/NAME/runs/RUN`, or any folder if there is no study.
        bit_map: layer -> widths, as records have it: they become flat keys (`bits.joiner.output.weight`), which
            parallel coordinates can show.
        study: its study.
        trial: its number there.
    """
    widths = {
        f"bits.{layer}.{name}": bits[name]
        for layer, bits in bit_map.items()
        for name in ("weight", "activation")
        if name in bits
    }
    return Entry(
        folder=folder,
        place=_place(folder.resolve(), study),
        name=f"{study}/{folder.name}" if study else folder.name,
        config={**to_dict(config), **widths, "study": study, "trial": trial},
        study=study,
        trial=trial,
        job="train" if study is None else "trial",
        tags=(str(config.policy["name"]), str(config.model.encoder.get("name", ""))),
    )


def _place(folder: Path, study: str | None) -> Path:
    """The study's folder: above `runs/RUN` and `baselines/RUN`, and above what screening trains."""
    if study is None:
        return folder
    return folder.parents[1] if folder.parent.name in ("runs", "baselines") else folder.parent


def start_tracking(entry: Entry) -> "Tracker | None":
    """Start a run in W&B; None if W&B cannot (which is said)."""
    from qstudy.training.wandb_run import started  # here: Lightning's logger takes seconds to import

    return started(entry)


def mirror(entry: Entry, record: Record) -> None:
    """Enter a run that nothing more will be logged of: a float baseline, a candidate that was not trained."""
    if tracker := start_tracking(entry):
        tracker.finish(record)
