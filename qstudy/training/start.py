"""A model file as the start of a training: its weights in float, if they fit the run."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from qstudy.data.tokenizer import Tokenizer
from qstudy.errors import UserError, naming
from qstudy.model import RNNT
from qstudy.model.encoders import ENCODERS, Encoder
from qstudy.model.joiners import JOINERS, Joiner
from qstudy.model.predictors import PREDICTORS, Predictor
from qstudy.named import asked_by, find
from qstudy.quant.packed.model import PackedModel, fill_float, fill_packed
from qstudy.recognize.recognizer import require_recognizer
from qstudy.training.checkpoint import load_checkpoint
from qstudy.training.config import RunConfig

PARTS: dict[str, tuple[Mapping[str, type], type]] = {
    "encoder": (ENCODERS, Encoder),
    "predictor": (PREDICTORS, Predictor),
    "joiner": (JOINERS, Joiner),
}
"""Those with a name, and what every one of them is."""


class ModelFile(NamedTuple):
    """What a model file holds."""

    features: dict[str, Any]
    model: dict[str, Any]
    tokenizer: dict[str, Any]
    load_weights: Callable[[RNNT], RNNT]
    """From a freshly built model of these settings to one with the file's weights, slots filled."""


def read_start(path: Path, config: RunConfig, tokenizer: Tokenizer) -> RNNT:
    """The float model that a checkpoint or a packed model of any widths stands for.

    Args:
        path: the file.
        config: the run that starts from it.
        tokenizer: the run's.

    Raises:
        UserError: the file is missing, damaged, or of other features, another tokenizer or model; the fields are named.
    """
    given = _READERS[path.suffix](path)
    _require_same(path, given, config, tokenizer.to_dict())
    model, same = (RNNT(config.model, config.features, tokenizer.size) for _ in range(2))
    fill_float(model, given.load_weights(same))
    return model.eval()


def require_fitting(path: Path, config: RunConfig) -> None:
    """Raise UserError as `read_start`, without building a model, and whatever the tokenizer, which may not be there."""
    given = _read_once(path, path.stat().st_mtime_ns)
    _require_same(path, given, config, given.tokenizer)


@lru_cache(maxsize=1)  # the candidates of a study share one
def _read_once(path: Path, written: int) -> ModelFile:
    return _READERS[path.suffix](path)


def _require_same(path: Path, given: ModelFile, config: RunConfig, tokenizer: Any) -> None:
    here = _settings(asdict(config.features), asdict(config.model), tokenizer)  # first: it names the user's own classes
    with asked_by(path):
        there = _settings(given.features, given.model, given.tokenizer)
    differing = [name for name in {**here, **there} if there.get(name) != here.get(name)]
    if differing:
        named = [f"{n} ({there.get(n)} there, {here.get(n)} here)" if "." in n else n for n in differing]
        raise UserError(f"start: {path} does not fit this run, which differs in {', '.join(named)}; change either.")


def _settings(features: Mapping[str, Any], model: Mapping[str, Any], tokenizer: Any) -> dict[str, Any]:
    """All that must be the same, by name, defaults spelled out."""
    settings = {f"features.{name}": value for name, value in features.items()}
    for part, (known, kind) in PARTS.items():
        options = {"name": "additive", **model[part]}  # of a joiner: the others have a name
        settings |= _options(f"model.{part}", options, known, kind)
    return {**settings, "tokenizer": tokenizer}


def _options(where: str, options: Mapping[str, Any], known: Mapping[str, type], kind: type) -> dict[str, Any]:
    """A part's, those of the parts in it included, without what matters while training only."""
    maker = _maker(where, options.get("name"), known, kind)
    parameters = inspect.signature(maker).parameters.values()
    defaults = {p.name: p.default for p in parameters if maker is not kind and p.default is not p.empty}
    found: dict[str, Any] = {}
    for name, value in {**defaults, **options}.items():
        place = f"{where}.{name}"
        if name not in getattr(maker, "training_only", ()):
            found |= _options(place, value, known, kind) if isinstance(value, Mapping) else {place: value}
    return found


def _maker(where: str, name: Any, known: Mapping[str, type], kind: type) -> Callable[..., Any]:
    """The class of this name; `kind` itself if that is the name of no such part, or of one that only the file names."""
    try:
        return find(name, known, where, kind)
    except UserError:
        return kind


def _from_packed(path: Path) -> ModelFile:
    packed = PackedModel.load(path)
    with naming(path):
        require_recognizer(packed)

    def load_weights(model: RNNT) -> RNNT:
        fill_packed(model, packed)
        return model

    return ModelFile(packed.header["features"], packed.header["model"], packed.header["tokenizer"], load_weights)


def _from_checkpoint(path: Path) -> ModelFile:
    source, _policy, config, tokenizer = load_checkpoint(path)
    return ModelFile(asdict(config.features), asdict(config.model), tokenizer.to_dict(), lambda _new_model: source)


_READERS = {".qst": _from_packed, ".ckpt": _from_checkpoint}
