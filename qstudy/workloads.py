"""A workload from whatever files the user has: the model, in its own widths or in others, and the speech."""

import re
from collections.abc import Mapping
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING

from qstudy.bits import FLOAT, BitMap, LayerBits, LayerShape, resolve
from qstudy.data.manifest import read_manifest
from qstudy.errors import UserError, naming
from qstudy.hardware.model_shapes import Sizes, load_sizes
from qstudy.hardware.search import GREEDY, Search
from qstudy.hardware.stream import Speech
from qstudy.hardware.workload import Workload
from qstudy.named import asked_by

if TYPE_CHECKING:  # sentencepiece is for those who name a manifest
    from qstudy.data.tokenizer import Tokenizer

WIDTH_FIELDS = ("weight", "activation")
Fused = Mapping[str, Path | None]
"""What a language model's layers are called (`external_lm`) -> its file, of any kind that a recognizer's may be."""
NOTHING: Fused = {}


def load_workload(model: Path, bits: str | None = None, search: Search = GREEDY, fused: Fused = NOTHING) -> Workload:
    """The model's operators, whatever kind of file it is.

    Args:
        model: a packed model (.qst), a checkpoint (.ckpt), a run configuration, or a YAML of sizes alone.
        bits: widths instead of the model's own: w4a8 for all layers, or encoder.*=w4a8,joiner.*=w8a8 for those alone.
        search: the decoder's; where it says nothing, the file's own.
        fused: the language models.

    Raises:
        UserError: a file is missing, damaged, or none of the kinds.
    """
    sizes = with_language_models(load_model(model), fused)
    return sizes.workload(None if bits is None else with_widths(sizes.bit_map, bits), search)


def load_model(path: Path) -> Sizes:
    """A model's layers and their widths, from any of these files; raises as above."""
    if not path.is_file():
        raise UserError(
            f"There is no model {path}; give a .qst file, a checkpoint, a run configuration or a YAML of sizes."
        )
    with naming(path):
        return replace(_READERS.get(path.suffix, _from_checkpoint)(path), name=path.stem)


def with_language_models(sizes: Sizes, fused: Fused) -> Sizes:
    """A recognizer and the language models that score its hypotheses; raises as above."""
    for name, path in fused.items():
        if path is not None:
            scorer = load_model(path)
            with naming(path):
                sizes = sizes.fused_with(scorer, name)
    return sizes


def _from_packed(path: Path) -> Sizes:
    from qstudy.quant.packed.file import read

    contents = read(path)
    return Sizes(path.stem, tuple(contents.shapes), contents.bit_map)


def _from_yaml(path: Path) -> Sizes:
    """Sizes have a list `layers`; anything else is a run configuration."""
    from qstudy.yaml_file import load_yaml

    if "layers" in load_yaml(path):
        return load_sizes(path)
    from qstudy.training.config import load_config
    from qstudy.training.price import price as price_run

    with asked_by(path):  # sizes may come from anyone, and a file can say that it is no such list
        priced = price_run(load_config(path))
    return Sizes(path.stem, tuple(priced.shapes), priced.bit_map)


def _from_checkpoint(path: Path) -> Sizes:
    from qstudy.training.checkpoint import load_checkpoint

    model, policy, _, _ = load_checkpoint(path)
    shapes = model.shapes()
    return Sizes(path.stem, tuple(shapes), policy.bit_map(shapes))


def _from_arpa(path: Path) -> Sizes:
    raise UserError(f"{path}: an n-gram model is looked up, it has no layers to price; leave it out.")


_READERS = {".qst": _from_packed, ".yaml": _from_yaml, ".yml": _from_yaml, ".arpa": _from_arpa, ".gz": _from_arpa}


def speech_of(manifest: Path, model: Path) -> Speech:
    """Durations and label counts of a manifest's utterances; labels are the model's, or characters if it has none.

    Raises:
        UserError: a file is missing or damaged, or a text has a character that no label covers.
    """
    utterances, labels = read_manifest(manifest), []
    tokenizer = _tokenizer(model)
    for utterance in utterances:
        with naming(utterance.source):
            labels.append(len(utterance.text if tokenizer is None else tokenizer.encode(utterance.text)))
    return Speech(tuple(utterance.duration for utterance in utterances), tuple(labels))


def _tokenizer(model: Path) -> "Tokenizer | None":
    """A packed model's or a checkpoint's; None: the file has none."""
    if model.suffix not in _READERS:
        from qstudy.training.load import load_tokenizer

        return load_tokenizer(model)
    from qstudy.data.tokenizer import tokenizer_from_dict
    from qstudy.quant.packed.file import read

    described = read(model).header.get("tokenizer") if model.suffix == ".qst" else None
    with naming(model):
        return None if described is None else tokenizer_from_dict(described)


def with_widths(bit_map: BitMap, bits: str) -> BitMap:
    """Other widths for the layers that `bits` names; the rest of them, and all other layers, stay as they are.

    A codebook stays one where there are any of the width asked for; weights of another have scales instead.
    """
    patterns = _patterns(bits)
    asked = resolve(patterns, [LayerShape(name, "linear", ((1, 1),)) for name in bit_map])
    named = {name for name in bit_map if any(fnmatchcase(name, pattern) for pattern in patterns)}
    return bit_map | {name: _of_widths(bit_map[name], asked[name]) for name in named}


def _of_widths(own: LayerBits, asked: LayerBits) -> LayerBits:
    from qstudy.quant.quantizers.codebook import CODEBOOK_WIDTHS  # here: it imports torch

    quantizer = own.quantizer if asked.weight in CODEBOOK_WIDTHS else "uniform"
    return replace(own, quantizer=quantizer, **{field: getattr(asked, field) for field in WIDTH_FIELDS})


def _patterns(text: str) -> dict[str, dict[str, int]]:
    """`w4a8`, or `encoder.*=w4a8,joiner.*=w8a8`, as glob patterns of widths."""
    patterns: dict[str, dict[str, int]] = {}
    for part in text.split(","):
        pattern, _, widths = part.rpartition("=")
        found = re.fullmatch(r"w([0-9]{1,2})a([0-9]{1,2})", widths.strip().lower())
        if found is None:
            raise UserError(f"bits: {text!r} is not like w4a8, or encoder.*=w4a8,joiner.*=w8a8 ({FLOAT} for float).")
        name = pattern.strip() or "*"
        patterns.pop(name, None)  # given twice, it counts where it stands last
        patterns[name] = dict(zip(WIDTH_FIELDS, map(int, found.groups()), strict=True))
    return patterns
