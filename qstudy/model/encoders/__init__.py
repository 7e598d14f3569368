"""Encoders by the name that they have in a configuration, one file each."""

from qstudy.model.encoders.base import Encoder
from qstudy.model.encoders.conformer import ConformerEncoder
from qstudy.model.encoders.lstm import LSTMEncoder

ENCODERS: dict[str, type[Encoder]] = {"lstm": LSTMEncoder, "conformer": ConformerEncoder}

__all__ = ["ENCODERS", "Encoder"]
