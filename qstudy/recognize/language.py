"""Language models as files: what their header says, and a language model from what stands there."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from qstudy.data.tokenizer import Tokenizer, tokenizer_from_dict
from qstudy.errors import UserError, naming
from qstudy.fields import fill
from qstudy.model.arpa import read_arpa
from qstudy.model.language import LanguageModel, LSTMLanguageModel
from qstudy.model.ngram import NgramLanguageModel
from qstudy.model.shapes_only import shapes_only
from qstudy.quant.packed.model import PackedModel, fill_packed
from qstudy.settings import LanguageModelConfig

KEY = "language_model"
"""In the header of a packed language model, and of no other: its sizes."""
ARPA = (".arpa", ".arpa.gz")
"""Ends of the names of n-gram models."""


def describe(config: LanguageModelConfig, tokenizer: Tokenizer, policy: dict[str, Any]) -> dict[str, Any]:
    """The header of a packed language model: all that is needed to build it again."""
    return {KEY: asdict(config), "tokenizer": tokenizer.to_dict(), "policy": policy}


def is_arpa(path: Path) -> bool:
    """Whether a file is an n-gram model, by its name."""
    return path.name.endswith(ARPA)


def load_language_model(path: Path, tokenizer: Tokenizer) -> LanguageModel:
    """Load a packed language model (.qst) or an n-gram model (.arpa, .arpa.gz) that speaks a recognizer's labels.

    Args:
        path: the file.
        tokenizer: the recognizer's.

    Raises:
        UserError: the file is missing, damaged or no language model, or its labels are others.
    """
    model: LanguageModel
    if is_arpa(path):
        with naming(path):
            model = NgramLanguageModel(read_arpa(path, tokenizer.names())).eval()
        model.name = str(path)
        return model
    if path.suffix == ".ckpt":
        raise UserError(f"{path} is a checkpoint; name the packed language model beside it (model.qst).")
    packed = PackedModel.load(path)
    model, own = language_from_packed(packed)
    if own.to_dict() != tokenizer.to_dict():
        raise UserError(
            f"{path} has other labels than the recognizer; train a language model with "
            "`qstudy train-lm --like RECOGNIZER`."
        )
    model.name = str(path)
    return model


def language_from_packed(packed: PackedModel) -> tuple[LSTMLanguageModel, Tokenizer]:
    """Build the language model that a packed model describes.

    Raises:
        UserError: the header does not describe one, or not the one whose layers and tensors follow.
    """
    with naming(packed.source):
        if KEY not in packed.header:
            raise UserError("this is not a language model; make one with `qstudy train-lm`.")
        config = fill(LanguageModelConfig, packed.header[KEY], KEY)
        tokenizer = tokenizer_from_dict(packed.header.get("tokenizer"))
        with shapes_only():  # nothing is allocated before the file was seen to hold such a model
            packed.require_layers(LSTMLanguageModel(tokenizer.size, config).shapes())
        model = LSTMLanguageModel(tokenizer.size, config)
        fill_packed(model, packed)
    return model.eval(), tokenizer
