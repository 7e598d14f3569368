"""`encoder_only`: few bits in the encoder; predictor and joiner in float, or at widths of their own."""

from collections.abc import Mapping
from typing import Any

from qstudy.errors import UserError

PAPER = {"name": "native_int", "activation_range": "row"}
"""What `base: paper` stands for."""


def encoder_only(
    encoder: Mapping[str, Any], decoder: Mapping[str, Any] | None = None, base: str = "fake_qat", **options: Any
) -> dict[str, Any]:
    """The configuration of the policy `base` on the encoder, and on the decoder only if asked.

    Source: Ding et al. 2022, arXiv 2203.15952 (encoders at 4 bits, the rest in float or at 8), in native integers with
    the activation scales of patent US20230298569A1: `base: paper`.

    YAML: `policy: {name: encoder_only, encoder: {weight: 4, activation: 8}, base: paper}`

    Args:
        encoder: widths of every encoder layer.
        decoder: widths of predictor and joiner; None: float.
        base: the policy that says in which arithmetic the widths are meant; `paper`: `native_int` with scales by row.
        options: that policy's other options.

    Raises:
        UserError: `layers`, which is what this policy writes.
    """
    if "layers" in options:
        raise UserError("policy.layers: encoder_only has `encoder` and `decoder` instead; use mixed for other layers.")
    rest = {"predictor.*": decoder, "joiner.*": decoder} if decoder else {}
    chosen = PAPER if base == "paper" else {"name": base}
    return {**chosen, "layers": {"encoder.*": encoder, **rest}, **options}
