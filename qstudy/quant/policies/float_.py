"""`float`: nothing is quantized; the baseline, and the control of every fine-tune."""

from qstudy.quant.policies.base import QuantPolicy


class Float(QuantPolicy):
    """All slots stay empty.

    YAML: `policy: {name: float}`
    """

    def __init__(self) -> None:
        super().__init__()
