"""A recognizer from whatever file the user has."""

from pathlib import Path

from qstudy.quant.packed.model import PackedModel
from qstudy.recognize.recognizer import Recognizer, recognizer_from_packed


def load_recognizer(path: Path) -> Recognizer:
    """Load a packed model, or a run's checkpoint (`.ckpt`).

    Raises:
        UserError: the file is missing, damaged, or neither of the two.
    """
    if path.suffix == ".ckpt":
        from qstudy.training.checkpoint import recognizer_from_checkpoint  # Lightning takes a second to import

        return recognizer_from_checkpoint(path)
    return recognizer_from_packed(PackedModel.load(path))
