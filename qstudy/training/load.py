"""A recognizer, or its labels, from whatever file the user has."""

from pathlib import Path

from qstudy.data.tokenizer import Tokenizer, tokenizer_from_dict
from qstudy.errors import naming
from qstudy.quant.packed.model import PackedModel
from qstudy.recognize.recognizer import Recognizer, recognizer_from_packed


def load_recognizer(path: Path) -> Recognizer:
    """Load a packed model, or a run's checkpoint (`.ckpt`).

    Raises:
        UserError: the file is missing, damaged, or neither of the two.
    """
    if path.suffix == ".ckpt":
        from qstudy.training.checkpoint import recognizer_from_checkpoint

        return recognizer_from_checkpoint(path)
    return recognizer_from_packed(PackedModel.load(path))


def load_tokenizer(path: Path) -> Tokenizer:
    """The labels of a packed recognizer or language model, or of a recognizer's checkpoint (`.ckpt`).

    Raises:
        UserError: the file is missing, damaged, or has no labels.
    """
    if path.suffix == ".ckpt":
        from qstudy.training.checkpoint import tokenizer_from_checkpoint

        return tokenizer_from_checkpoint(path)
    with naming(path):
        return tokenizer_from_dict(PackedModel.load(path).header.get("tokenizer"))
