"""How labels are searched, as users say it; imports without torch."""

import os
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Annotated, Any, Literal

from annotated_types import Ge, Le

from qstudy.errors import UserError, naming
from qstudy.fields import check_fields, fill
from qstudy.files import read_json, write_json

Width = Annotated[int, Ge(1), Le(1024)]
"""Of a beam."""
Emissions = Annotated[int, Ge(1), Le(100)]
"""Labels in one encoder frame."""
Weight = Annotated[float, Ge(0), Le(100)]
Reward = Annotated[float, Ge(-100), Le(100)]
BEAM = 8
MAX_LABELS_PER_FRAME = 8  # fewer cuts words when a label lags behind (2 breaks characters at 90 ms frames)


@dataclass(frozen=True)
class FusionSettings:
    """Which language models a search asks, and how much they count (see `fusion.py`)."""

    lm: Path | None = None
    """Language model of the texts to come: packed (.qst) or n-grams (.arpa, .arpa.gz)."""
    lm_weight: Weight | None = None
    """Factor of its log-probabilities; `qstudy tune-fusion` finds one."""
    source_lm: Path | None = None
    """Language model of the texts that the recognizer was trained on: density ratio fusion."""
    source_weight: Weight | None = None
    """Factor of its log-probabilities, which are subtracted."""
    length_reward: Reward | None = None
    """What every label adds to the score."""

    def __post_init__(self) -> None:
        check_fields(self)
        for model, weight in (("lm", "lm_weight"), ("source_lm", "source_weight")):
            given = [getattr(self, name) is not None for name in (model, weight)]
            if given == [True, False]:
                raise UserError(f"{weight}: it is missing; say how much --{model} counts, or use qstudy tune-fusion.")
            if given == [False, True]:
                raise UserError(f"{weight}: there is no language model for it to weight; use --{model} FILE.")


def save_fusion(path: Path, settings: FusionSettings, found: dict[str, Any]) -> None:
    """Write settings as JSON; files are named as seen from that file's folder.

    Args:
        path: the file.
        settings: what is used.
        found: how they were found, for readers.
    """
    values = {name: value for name, value in asdict(settings).items() if value is not None}
    folder = path.parent.resolve()  # `..` in a relative path climbs the real folders, not the links
    named = {
        name: os.path.relpath(value.parent.resolve() / value.name, folder) if isinstance(value, Path) else value
        for name, value in values.items()
    }
    write_json(path, {**named, "found": found})


def load_fusion(path: Path) -> FusionSettings:
    """Read what `save_fusion` wrote.

    Raises:
        UserError: the file is missing, or a field is not as it should be.
    """
    with naming(path):
        values = read_json(path)
        if isinstance(values, dict):
            values.pop("found", None)
        settings = fill(FusionSettings, values)
    files = {name: path.parent / file for name in ("lm", "source_lm") if (file := getattr(settings, name)) is not None}
    return FusionSettings(**{**asdict(settings), **files})


@dataclass(frozen=True)
class Decoding(FusionSettings):
    """How labels are searched."""

    decode: Literal["greedy", "beam"] = "greedy"
    """Greedy search follows the best label at each step; a beam search follows several hypotheses."""
    beam: Width | None = None
    """Hypotheses that a beam search keeps, by default 8."""
    search: Literal["time", "alignment"] | None = None
    """What the hypotheses of a beam have in common: all have seen the same frames (time, the default), or all have
    as many labels and blanks together (alignment)."""
    prune: Literal["expansion", "frame"] | None = None
    """Of a search by time: hypotheses compete after each label (expansion, the default), so that a beam of one is
    greedy search, or at the end of a frame (frame), which is slower and sometimes finds better ones."""
    max_labels: Emissions | None = None
    """Most labels in an encoder frame, by default 8; 1 is modified beam search."""
    fusion: Path | None = None
    """Language models and weights as `qstudy tune-fusion` wrote them, in place of the options above."""

    def __post_init__(self) -> None:
        super().__post_init__()
        given = [each.name for each in fields(self) if each.name != "decode" and getattr(self, each.name) is not None]
        if self.decode == "greedy" and given:
            raise UserError(f"{given[0]}: greedy search has none; use --decode beam, or leave --{given[0]} out.")
        if self.search == "alignment" and self.prune is not None:
            raise UserError("prune: only a search by time has a choice; use --search time, or leave --prune out.")
        twice = [each.name for each in fields(FusionSettings) if each.name in given]
        if self.fusion is not None and twice:
            raise UserError(f"{twice[0]}: the file of --fusion sets it already; leave one of the two out.")

    @property
    def width(self) -> int:
        """Hypotheses that are kept."""
        return 1 if self.decode == "greedy" else self.beam or BEAM

    def fusion_settings(self) -> FusionSettings:
        """Which language models, and how much they count.

        Raises:
            UserError: their file is not as it should be.
        """
        return self if self.fusion is None else load_fusion(self.fusion)


def told(decoding: Decoding) -> dict[str, Any]:
    """What was said, JSON-able."""
    return {
        name: str(value) if isinstance(value, Path) else value
        for name, value in asdict(decoding).items()
        if value is not None
    }
