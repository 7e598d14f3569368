"""Encoders with one pass, which a cascaded one may begin with."""

from qstudy.model.encoders.amortized import AmortizedEncoder
from qstudy.model.encoders.base import Encoder
from qstudy.model.encoders.bilstm import BiLSTMEncoder
from qstudy.model.encoders.conformer import ConformerEncoder
from qstudy.model.encoders.lstm import LSTMEncoder

ONE_PASS: dict[str, type[Encoder]] = {
    "lstm": LSTMEncoder,
    "bilstm": BiLSTMEncoder,
    "conformer": ConformerEncoder,
    "amortized": AmortizedEncoder,
}
