"""The common RNN-T, built from `quant`'s layers."""

from qstudy.model.rnnt import RNNT
from qstudy.settings import ModelConfig

__all__ = ["RNNT", "ModelConfig"]
