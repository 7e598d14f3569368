"""The common RNN-T, built from `quant`'s layers."""

from qstudy.model.encoders import Encoder
from qstudy.model.joiners import Joiner
from qstudy.model.predictors import Predictor
from qstudy.model.rnnt import RNNT
from qstudy.settings import ModelConfig

__all__ = ["RNNT", "Encoder", "Joiner", "ModelConfig", "Predictor"]
