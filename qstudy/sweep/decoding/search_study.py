"""A study of searches as its YAML file describes it."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from annotated_types import Ge, Le, MinLen

from qstudy.errors import UserError, naming
from qstudy.fields import Seed, Text, check_fields, fill
from qstudy.files import safe_name
from qstudy.recognize.options import Width
from qstudy.yaml_file import load_yaml

Form = Literal["none", "shallow", "density"]
"""Without language models; with the one of the texts to come; with the source's, whose share is taken out, too."""
ASKED: dict[Form, tuple[str, ...]] = {"none": (), "shallow": ("lm",), "density": ("lm", "source_lm")}
"""The language models that each form takes."""


@dataclass(frozen=True)
class Models:
    """A recognizer and its language models."""

    model: Text
    """The packed recognizer (.qst)."""
    lm: Text | None = None
    """Language model of the texts to come: packed (.qst), or n-grams (.arpa, .arpa.gz), which are not priced."""
    source_lm: Text | None = None
    """Language model of the texts that the recognizer was trained on, likewise."""
    widths: Text | None = None
    """Widths that it is priced in, instead of its own: w16a16, for float models that run in half precision."""

    def __post_init__(self) -> None:
        check_fields(self)

    def files(self, form: Form) -> dict[str, Path]:
        """The files that a form of fusion takes: `model`, and of `lm` and `source_lm` those that it asks for.

        Raises:
            UserError: there is none for it.
        """
        found = {}
        for name in ("model", *ASKED[form]):
            if (file := getattr(self, name)) is None:
                raise UserError(f"{name}: it is missing; fusion of the form {form} takes it.")
            found[name] = Path(file)
        return found


@dataclass(frozen=True)
class Tuning:
    """How weights of language models are found."""

    trials: Annotated[int, Ge(1), Le(100_000)] = 30
    """Weights to try, for each recognizer and each form of fusion."""
    beam: Width = 8
    """Of these trials."""

    def __post_init__(self) -> None:
        check_fields(self)


class Cell(NamedTuple):
    """One search of the study."""

    name: str
    """Of its models."""
    form: Form
    beam: int

    @property
    def run(self) -> str:
        """The name of its record."""
        return f"{self.name}-{self.form}-beam{self.beam:02d}"


@dataclass(frozen=True)
class SearchStudy:
    """A study as its YAML file describes it."""

    study: Text
    """Its name."""
    dev: Text
    """Manifest that weights are tuned on."""
    test: Text
    """Manifest that is reported."""
    models: Annotated[dict[str, Any], MinLen(1)]
    """Name -> `model`, `lm`, `source_lm`, `widths`."""
    fusion: Annotated[tuple[Form, ...], MinLen(1)] = ("none", "shallow", "density")
    """Forms of fusion."""
    beams: Annotated[tuple[Width, ...], MinLen(1)] = (1, 2, 4, 8, 16, 32)
    """Hypotheses that are kept."""
    search: Literal["time", "alignment"] = "time"
    """What the hypotheses of a beam have in common (see `qstudy evaluate`)."""
    tune: Tuning = field(default_factory=Tuning)
    """How weights are found."""
    accelerator: tuple[Text, ...] = ("int4_multicore", "mobile_npu")
    """Devices whose latency is simulated, the first one reported."""
    seed: Seed = 0
    """Of the tuning."""

    def __post_init__(self) -> None:
        check_fields(self)
        safe_name(self.study, "study")
        for name, values in self.models.items():
            safe_name(name, "models")
            models = fill(Models, values, f"models.{name}")
            with naming(f"models.{name}"):
                for form in self.fusion:
                    models.files(form)

    @property
    def entries(self) -> dict[str, Models]:
        """The models."""
        return {name: fill(Models, values) for name, values in self.models.items()}

    @property
    def cells(self) -> list[Cell]:
        """All searches; the others are held against the first."""
        return [Cell(name, form, beam) for name in self.models for form in self.fusion for beam in self.beams]


def load_search_study(path: Path) -> SearchStudy:
    """Read a study of searches.

    Raises:
        UserError: the file is missing or no YAML; a field is unknown, missing or wrong.
    """
    with naming(path):
        return fill(SearchStudy, load_yaml(path))
