"""A workload from whatever file the user has, in its own widths or in others."""

import re
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from qstudy.bits import FLOAT, BitMap, LayerShape, resolve
from qstudy.errors import UserError, naming
from qstudy.hardware.sizes import load_sizes
from qstudy.hardware.workload import Workload, workload
from qstudy.named import asked_by

WIDTH_FIELDS = ("weight", "activation")


def load_workload(model: Path, bits: str | None = None, beam: int | None = None) -> Workload:
    """The model's operators, whatever kind of file it is.

    Args:
        model: a packed model (.qst), a checkpoint (.ckpt), a run configuration, or a YAML of sizes alone.
        bits: widths instead of the model's own: w4a8 for all layers, or encoder.*=w4a8,joiner.*=w8a8 for those alone.
        beam: hypotheses that the decoder carries; the model's own or 1.

    Raises:
        UserError: the file is missing, damaged, or none of the kinds.
    """
    if not model.is_file():
        raise UserError(
            f"There is no model {model}; give a .qst file, a checkpoint, a run configuration or a YAML of sizes."
        )
    with naming(model):
        shapes, bit_map, own_beam = _READERS.get(model.suffix, _from_checkpoint)(model)
    if bits is not None:
        bit_map = with_widths(bit_map, bits)
    return workload(shapes, bit_map, beam=own_beam if beam is None else beam, name=model.stem)


def _from_packed(path: Path) -> tuple[Any, Any, int]:
    from qstudy.quant.packed.file import read

    contents = read(path)
    return contents.shapes, contents.bit_map, 1


def _from_yaml(path: Path) -> tuple[Any, Any, int]:
    """Sizes have a list `layers`; anything else is a run configuration."""
    from qstudy.yaml_file import load_yaml

    if "layers" in load_yaml(path):
        sizes = load_sizes(path)
        return sizes.shapes, sizes.bit_map, sizes.beam
    from qstudy.training.config import load_config
    from qstudy.training.price import price as price_run

    with asked_by(path):  # sizes may come from anyone, and a file can say that it is no such list
        priced = price_run(load_config(path))
    return priced.shapes, priced.bit_map, 1


def _from_checkpoint(path: Path) -> tuple[Any, Any, int]:
    from qstudy.training.checkpoint import load_checkpoint

    model, policy, _, _ = load_checkpoint(path)
    shapes = model.shapes()
    return shapes, policy.bit_map(shapes), 1


_READERS = {".qst": _from_packed, ".yaml": _from_yaml, ".yml": _from_yaml}


def with_widths(bit_map: BitMap, bits: str) -> BitMap:
    """Other widths for the layers that `bits` names; the rest of them, and all other layers, stay as they are."""
    patterns = _patterns(bits)
    asked = resolve(patterns, [LayerShape(name, "linear", ((1, 1),)) for name in bit_map])
    named = {name for name in bit_map if any(fnmatchcase(name, pattern) for pattern in patterns)}
    changed = {
        name: replace(bit_map[name], **{field: getattr(asked[name], field) for field in WIDTH_FIELDS}) for name in named
    }
    return bit_map | changed


def _patterns(text: str) -> dict[str, dict[str, int]]:
    """`w4a8`, or `encoder.*=w4a8,joiner.*=w8a8`, as glob patterns of widths."""
    patterns = {}
    for part in text.split(","):
        pattern, _, widths = part.rpartition("=")
        found = re.fullmatch(r"w([0-9]{1,2})a([0-9]{1,2})", widths.strip().lower())
        if found is None:
            raise UserError(f"bits: {text!r} is not like w4a8, or encoder.*=w4a8,joiner.*=w8a8 ({FLOAT} for float).")
        patterns[pattern.strip() or "*"] = dict(zip(WIDTH_FIELDS, map(int, found.groups()), strict=True))
    return patterns
