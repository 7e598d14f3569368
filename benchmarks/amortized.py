"""Rows: a packed amortized encoder over one utterance, beside its full branch alone and the packed LSTM; one thread.

The arbitrators of untrained weights are shifted so that as many frames take the full branch as in a trained model. The
floor is the cheap branch alone.
"""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor

from benchmarks.row import Row
from benchmarks.timing import interleaved
from qstudy.model.encoders import AmortizedEncoder, Encoder, LSTMEncoder
from qstudy.quant.layers import Linear
from qstudy.quant.packed.model import fill_packed, pack_model
from qstudy.quant.policies import build_policy
from qstudy.quant.state import layer_shapes
from qstudy.settings import FeatureSettings

SHARE = 0.45
"""Of the frames that take the full branch: measured on digits, where nothing was lost by it."""
SIZES: dict[str, Any] = {"hidden": 256, "layers": 3, "stack": 4, "reduction": 2}
BRANCHES: dict[str, dict[str, Any]] = {
    "rank 40": {"branch": "lowrank", "rank": 40},
    "a fifth of the columns": {"branch": "sparse", "keep": 0.2},
}
WIDTHS = {"W8A8": 8, "W4A8": 4}
SECONDS, ROUNDS = 4, 40
AnyEncoder = TypeVar("AnyEncoder", bound=Encoder)


def rows() -> Iterable[Row]:
    """Both kinds of branches in every width."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for kind in BRANCHES:
            yield from branch_rows(kind)
    finally:
        torch.set_num_threads(threads)


def branch_rows(kind: str) -> Iterable[Row]:
    """Of one kind of cheap branch."""
    features = utterance(1)
    for width, bits in WIDTHS.items():
        chosen, cheap, full = (packed(partial(amortized, kind, share), bits) for share in (SHARE, 0.0, 1.0))
        full.stage.zero_()  # no arbitrator either
        sides = {"ours": chosen, "floor": cheap, "full branch alone": full, "LSTM": packed(lstm, bits)}
        times = interleaved({name: running(side, features) for name, side in sides.items()}, ROUNDS)
        saved = (chosen.usage() or {})["saved"]
        for peer in ("full branch alone", "LSTM"):
            what = f"amortized encoder, {kind}, {width}, {SECONDS} s: {saved:.0%} of the products saved"
            yield Row(what, "ms", peer, times["ours"], times[peer], "cheap branch alone", times["floor"])


def utterance(batch: int) -> Tensor:
    """Features (batch, F, D)."""
    settings = FeatureSettings()
    return torch.randn(batch, int(SECONDS * 1000 / settings.hop_ms), settings.bins)


def running(encoder: Encoder, features: Tensor) -> Callable[[], object]:
    """One call of a side."""
    return torch.no_grad()(lambda: encoder(features, torch.tensor([features.shape[1]])))


def lstm() -> LSTMEncoder:
    """The encoder without branches."""
    torch.manual_seed(0)
    return LSTMEncoder(FeatureSettings(), **SIZES)


def amortized(kind: str, share: float) -> AmortizedEncoder:
    """In float, at the end of its training, with this share of full frames."""
    torch.manual_seed(0)
    encoder = AmortizedEncoder(FeatureSettings(), **SIZES, **BRANCHES[kind]).eval()
    encoder.begin_step(1.0)

    def shift(arbitrator: Linear, _inputs: Any, logits: Tensor) -> Tensor:
        ordered = torch.cat([logits.flatten().sort().values, logits.max().view(1) + 1])
        least = ordered[round((1 - share) * logits.numel())] - 1e-6
        arbitrator.bias.data.sub_(least)
        return logits - least

    handles = [layer.arbitrator.register_forward_hook(shift) for layer in encoder.amortized]
    running(encoder, utterance(4))()
    for handle in handles:
        handle.remove()
    encoder.reset_usage()
    return encoder


def packed(build: Callable[[], AnyEncoder], bits: int) -> AnyEncoder:
    """What the device runs."""
    source, loaded = build(), build()
    policy = build_policy({"name": "native_int", "layers": {"*": {"weight": bits, "activation": 8}}})
    policy.prepare(source.train())
    policy.calibrate(source, (running(source, utterance(2))() for _ in range(1)))
    policy.project_(source.eval(), 0)
    shapes = layer_shapes(source)
    fill_packed(loaded, pack_model(source, policy.bit_map(shapes), shapes, {}))
    return loaded.eval()
