"""An LSTM layer with a full and a cheap branch: an arbitrator picks one for each frame, both move the same state.

Source: Macoskey, Strimel, Su, Rastrow 2021, arXiv 2108.01553.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from qstudy.errors import UserError
from qstudy.model.encoders.branches import CheapBranch, FullBranch
from qstudy.quant.arithmetic import LSTMState
from qstudy.quant.layers import Linear, Rate
from qstudy.quant.operators import LSTMCell
from qstudy.quant.recurrence.cell import mixed_cell


@dataclass
class Usage:
    """What one layer did while it was evaluated; frames of padding do not count."""

    frames: int = 0
    full: int = 0
    """Frames that took the full branch."""
    macs: int = 0
    """Multiply-accumulates, the arbitrator's included."""


class AmortizedLSTM(nn.Module):
    """One layer; every product is a quantizable layer, the cell is in float."""

    share: Tensor

    def __init__(self, inputs: int, hidden: int, cheap: CheapBranch, share: float, rate: Rate) -> None:
        """
        Args:
            inputs: D.
            hidden: H.
            cheap: of the same sizes.
            share: of the frames that will take the full branch, as far as anyone knows before the training.
            rate: how often a frame comes.
        """
        super().__init__()
        self.arbitrator = Linear(inputs, 1, rate=rate)
        self.full = FullBranch(inputs, hidden, rate)
        self.cheap = cheap
        self.cell = LSTMCell(hidden, rate)
        self.hidden_size = hidden
        self.expected_share = share
        self.register_buffer("share", torch.tensor(share))  # becomes what training measures
        self.register_load_state_dict_post_hook(_require_share)
        self.usage = Usage()

    def logits(self, x: Tensor) -> Tensor:
        """The arbitrator's, of inputs (..., D): (...) float32; above 0 the full branch is worth it."""
        logits: Tensor = self.arbitrator(x).squeeze(-1).float()
        return logits

    def costs(self) -> tuple[int, int]:
        """Multiply-accumulates of a frame in either branch, the arbitrator's included."""
        arbitrator = self.arbitrator.in_features
        return arbitrator + self.full.macs, arbitrator + self.cheap.macs

    def mixed(self, x: Tensor, p: Tensor, state: LSTMState) -> tuple[Tensor, LSTMState]:
        """Compute both branches at every frame, and mix their gates: what trains.

        Args:
            x: (B, T, D).
            p: weight of the full branch (B, T) float32, 0 to 1.
            state: h and c, (1, B, H) each.

        Returns:
            Outputs (B, T, H) and the state after the last frame.
        """
        x = x.transpose(0, 1)
        (h, c), outputs = (each[0].float() for each in state), []
        frames = zip(self.full.project(x), self.cheap.project(x), p.t(), strict=True)
        with self.full.running() as full, self.cheap.running() as cheap:
            for of_full, of_cheap, share in frames:
                h, c = mixed_cell(full(of_full, h), cheap(of_cheap, h), share, c)
                outputs.append(h)
        return torch.stack(outputs, 1), (h.unsqueeze(0), c.unsqueeze(0))

    def chosen(self, x: Tensor, full: Tensor, state: LSTMState) -> tuple[Tensor, LSTMState]:
        """Compute at every frame one branch alone.

        Args:
            x: (B, T, D).
            full: whether it is the full one (B, T) bool.
            state: h and c, (1, B, H) each.

        Returns:
            As `mixed`.
        """
        x, full = x.transpose(0, 1), full.t()
        (h, c), outputs = (each[0].float() for each in state), []
        chosen, batch = full.sum(1).tolist(), len(h)
        of_full = self.full.project(x[full]).split(chosen)
        of_cheap = self.cheap.project(x[~full]).split([batch - count for count in chosen])
        with self.full.running() as run_full, self.cheap.running() as run_cheap:
            for t, count in enumerate(chosen):
                if count == batch:
                    gates = run_full(of_full[t], h)
                elif count == 0:
                    gates = run_cheap(of_cheap[t], h)
                else:
                    rows, gates = full[t], h.new_empty(batch, 4 * self.hidden_size)
                    gates[rows] = run_full(of_full[t], h[rows]).float()
                    gates[~rows] = run_cheap(of_cheap[t], h[~rows]).float()
                h, c = self.cell(gates, c)
                outputs.append(h)
        return torch.stack(outputs, 1), (h.unsqueeze(0), c.unsqueeze(0))

    def full_alone(self, x: Tensor, state: LSTMState) -> tuple[Tensor, LSTMState]:
        """As `chosen`, the full branch at every frame: without quantizers it is torch's LSTM."""
        layers = self.full.input, self.full.hidden
        if any(layer.arithmetic is not None for layer in layers):
            return self.chosen(x, torch.ones(x.shape[:2], dtype=torch.bool, device=x.device), state)
        weights = [*(layer.weight for layer in layers), layers[0].bias, torch.zeros_like(layers[0].bias)]
        y, h, c = torch._VF.lstm(x, state, weights, True, 1, 0.0, self.training, False, True)
        return y, (h, c)

    def count(self, full: Tensor, valid: Tensor, arbitrated: bool) -> None:
        """Add what was computed to `usage`.

        Args:
            full: which frames took the full branch (B, T) bool.
            valid: which frames are no padding (B, T) bool.
            arbitrated: whether the arbitrator was asked.
        """
        frames, chosen = int(valid.sum()), int((full & valid).sum())
        products = chosen * self.full.macs + (frames - chosen) * self.cheap.macs
        self.usage.frames += frames
        self.usage.full += chosen
        self.usage.macs += products + frames * arbitrated * self.arbitrator.in_features

    def set_rates(self, share: float) -> None:
        """Say which share of the frames takes the full branch."""
        for branch, part in ((self.full, share), (self.cheap, 1 - share)):
            for layer in branch.linears():
                layer.rate = layer.rate._replace(share=part)


def _require_share(layer: Any, _: Any) -> None:
    """Raise UserError if a loaded file says of a share of frames what cannot be."""
    if not 0 <= float(layer.share) <= 1:  # nor is it NaN
        raise UserError(f"the share of an amortized layer is {float(layer.share)}, not 0 to 1; make the file again.")
