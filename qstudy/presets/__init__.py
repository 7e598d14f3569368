"""Models by name: `model: {preset: lstm}`, one YAML file each; what stands beside the name changes its parts.

A file has `about` (one line), the parts `encoder`, `predictor` and `joiner` as in a run's configuration, and may have
`labels`, where the model was published with a number of its own. It imports without torch.
"""

from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Annotated, Any

from annotated_types import Ge, Le

from qstudy.errors import UserError, naming
from qstudy.fields import Text, check_fields, fill
from qstudy.yaml_file import load_yaml

FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Preset:
    """A model as its file describes it."""

    about: Text
    """What it is, on one line."""
    encoder: dict[str, Any]
    """As in a run's configuration, like the others."""
    predictor: dict[str, Any]
    joiner: dict[str, Any] = field(default_factory=dict)
    labels: Annotated[int, Ge(2), Le(100_000)] | None = None
    """With blank; None: those of the characters."""

    def __post_init__(self) -> None:
        check_fields(self)

    @property
    def parts(self) -> dict[str, dict[str, Any]]:
        """The section `model` of a run's configuration."""
        return {"encoder": self.encoder, "predictor": self.predictor, "joiner": self.joiner}


def preset_names() -> list[str]:
    """All that there are."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


@cache
def load_preset(name: str) -> Preset:
    """
    Raises:
        UserError: there is none of this name.
    """
    if name not in preset_names():
        raise UserError(f"preset: {name!r} is not known; give one of {', '.join(preset_names())}.")
    path = FOLDER / f"{name}.yaml"
    with naming(path):
        return fill(Preset, load_yaml(path))
