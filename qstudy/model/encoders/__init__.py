"""Encoders by the name that they have in a configuration, one file each."""

from qstudy.model.encoders.amortized import AmortizedEncoder
from qstudy.model.encoders.base import Encoder
from qstudy.model.encoders.lstm import LSTMEncoder

ENCODERS: dict[str, type[Encoder]] = {"amortized": AmortizedEncoder, "lstm": LSTMEncoder}

__all__ = ["ENCODERS", "Encoder"]
