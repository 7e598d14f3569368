"""Encoders by the name that they have in a configuration, one file each."""

from qstudy.model.encoders.amortized import AmortizedEncoder
from qstudy.model.encoders.base import Encoder
from qstudy.model.encoders.bilstm import BiLSTMEncoder
from qstudy.model.encoders.cascaded import CascadedEncoder
from qstudy.model.encoders.conformer import ConformerEncoder
from qstudy.model.encoders.lstm import LSTMEncoder
from qstudy.model.encoders.one_pass import ONE_PASS

ENCODERS: dict[str, type[Encoder]] = {**ONE_PASS, "cascaded": CascadedEncoder}

__all__ = [
    "ENCODERS",
    "AmortizedEncoder",
    "BiLSTMEncoder",
    "CascadedEncoder",
    "ConformerEncoder",
    "Encoder",
    "LSTMEncoder",
]
