"""The amortized encoder: LSTM layers that spend their computing on the frames that need it.

Source: Macoskey, Strimel, Su, Rastrow 2021, *Amortized Neural Networks*, arXiv 2108.01553.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Literal

import numpy as np
import torch
from annotated_types import Ge, Gt, Le
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from qstudy.errors import UserError
from qstudy.fields import Count, Dropout, Few, Share, Units
from qstudy.model.encoders.amortized_lstm import AmortizedLSTM, Usage
from qstudy.model.encoders.amortized_program import AmortizedProgram, amortized_program
from qstudy.model.encoders.branches import CheapBranch, LowRankBranch, SparseBranch
from qstudy.model.encoders.branching import Branching
from qstudy.model.encoders.stacked import StackedEncoder
from qstudy.quant.arithmetic import LSTMState, TrainingArithmetic
from qstudy.quant.layers import Rate, quantizable
from qstudy.settings import FeatureSettings

FULL, SOFT, HARD = range(3)
"""Stages of a training: the full branch alone; a mixture; one branch for each frame."""
REMEMBERED = 0.98
"""Of the measured share, from step to step: it is that of the last 50 steps."""
Strength = Annotated[float, Ge(0), Le(1e6)]
Temperature = Annotated[float, Gt(0), Le(100)]


class AmortizedEncoder(StackedEncoder, Branching):
    """`LSTMEncoder` of layers with two branches.

    Training has three stages. First the full branch alone; then the cheap one starts as its compressed copy, and the
    gates are a mixture whose weights are drawn from a binary concrete distribution (Jang et al. 2017, arXiv
    1611.01144; Maddison et al. 2017, arXiv 1611.00712) of falling temperature; last, one branch for each frame, as when
    evaluated, with a straight-through gradient (Bengio et al. 2013, arXiv 1308.3432). A training that starts from a
    trained model begins in the stage that it ended in.
    """

    training_only = (
        *StackedEncoder.training_only,
        "strength",
        "branch_from",
        "hard_from",
        "temperature",
        "last_temperature",
        "expected_share",
    )
    stage: Tensor
    decided: list[Tensor]
    """Of each layer, which frames took the full branch when it was last evaluated, (B, T) bool."""
    program: AmortizedProgram | None

    def __init__(
        self,
        features: FeatureSettings,
        hidden: Units = 256,
        layers: Few = 3,
        stack: Few = 3,
        reduction: Few = 3,
        running_mean: Count = 0,
        dropout: Dropout = 0.0,
        branch: Literal["lowrank", "sparse"] = "lowrank",
        rank: Units = 32,
        keep: Share = 0.25,
        strength: Strength = 1.0,
        branch_from: Share = 0.3,
        hard_from: Share = 0.7,
        temperature: Temperature = 1.0,
        last_temperature: Temperature = 0.2,
        expected_share: Share = 0.5,
    ) -> None:
        """
        Args:
            features: what the features are.
            hidden: H, size of each layer.
            layers: their number.
            stack: feature frames stacked into one frame of the layers.
            reduction: frames of the layers concatenated into one joiner frame.
            running_mean: prior frames of the causal per-utterance mean normalization; 0: none.
            dropout: of each layer's output, while training.
            branch: what makes the cheap branch cheap: `lowrank` factors, or `sparse` (pruned) columns.
            rank: of the cheap branch's factors.
            keep: share of inputs and hidden units that a sparse branch reads.
            strength: lambda, loss per unit of the expected cost (that of the full branch alone is 1).
            branch_from: share of the training with the full branch alone; 1: there is never another.
            hard_from: share of the training before every frame has one branch.
            temperature: of the mixture's weights at first.
            last_temperature: at its end, and of the straight-through gradient from then on.
            expected_share: of the frames that take the full branch, for prices before the training.

        Raises:
            UserError: a stage would end before it begins.
        """
        super().__init__(features, hidden, stack, reduction, running_mean)
        if hard_from < branch_from:
            raise UserError(f"hard_from: {hard_from} must not be below branch_from, {branch_from}.")
        self.frame_s = features.hop_ms * stack / 1000
        self.dropout, self.strength = dropout, strength
        self.branch_from, self.hard_from = branch_from, hard_from
        self.temperatures = temperature, last_temperature
        self.temperature = last_temperature
        rate = Rate(every_ms=features.hop_ms * stack)
        share = expected_share if branch_from < 1 else 1.0

        def layer(inputs: int) -> AmortizedLSTM:
            cheap: dict[str, Callable[[], CheapBranch]] = {
                "lowrank": lambda: LowRankBranch(inputs, hidden, rank, rate),
                "sparse": lambda: SparseBranch(inputs, hidden, keep, rate),
            }
            return AmortizedLSTM(inputs, hidden, cheap[branch](), share, rate)

        sizes = [features.bins * stack] + [hidden] * (layers - 1)
        self.layers = nn.ModuleList(layer(size) for size in sizes)
        self.register_buffer("stage", torch.tensor(FULL))
        self.register_load_state_dict_post_hook(_require_stage)
        self.decided, self.program = [], None
        self._costs: list[Tensor] = []

    @property
    def amortized(self) -> list[AmortizedLSTM]:
        """Its layers."""
        return [layer for layer in self.layers if isinstance(layer, AmortizedLSTM)]

    def run(self, x: Tensor, states: Sequence[LSTMState] | None, lengths: Tensor) -> tuple[Tensor, Sequence[LSTMState]]:
        whole = lengths // self.reduction * self.reduction  # what is left over becomes no frame
        valid = torch.arange(x.shape[1], device=x.device) < whole.unsqueeze(1)
        stage = int(self.stage)
        self.decided, self._costs = [], []
        if not self.training and self.program is not None and self.program.accepts(x):
            x, packed_states, full = self.program(x, states, forced=stage == FULL)
            for layer, taken in zip(self.amortized, full, strict=True):
                self._count(layer, taken.unsqueeze(0), valid, stage)
            return x, packed_states
        run_layer, after = self._trained if self.training or self._watched() else self._evaluated, []
        for index, layer in enumerate(self.amortized):
            zeros = x.new_zeros(1, len(x), layer.hidden_size)
            state = states[index] if states else (zeros, zeros)
            x, last = run_layer(layer, x, state, valid, stage)
            x = F.dropout(x, self.dropout, self.training)
            after.append(last)
        return x, after

    def _watched(self) -> bool:
        """Whether quantizers watch although it evaluates (`qstudy.quant.watching`): then all branches have to run."""
        slots = [layer.arithmetic for layer in quantizable(self).values()]
        return any(isinstance(slot, TrainingArithmetic) and slot.training for slot in slots)

    def before_quantization(self) -> None:
        if int(self.stage) == FULL:
            self._compress()

    def begin_step(self, progress: float) -> None:
        before = int(self.stage)
        stage = max(FULL if progress < self.branch_from else SOFT if progress < self.hard_from else HARD, before)
        if before == FULL < stage:
            self._compress()
        self.stage.fill_(stage)
        self.temperature = self._annealed(progress) if stage < HARD else self.temperatures[1]

    def _compress(self) -> None:
        """The cheap branches begin, and so do the quantizers of their weights; those of activations follow what they
        observe."""
        for layer in self.amortized:
            layer.cheap.compress(layer.full)
            layer.cheap.calibrate()

    def _annealed(self, progress: float) -> float:
        """The temperature before the last stage."""
        first, last = self.temperatures
        length = self.hard_from - self.branch_from
        done = max(progress - self.branch_from, 0.0) / length if length else 1.0
        return float(first * (last / first) ** done)

    def penalty(self) -> Tensor | None:
        """The cost of the last forward pass relative to the full branch alone, times `strength`."""
        return self.strength * torch.stack(self._costs).mean() if self._costs else None

    @torch.no_grad()
    def decisions(self, features: Tensor) -> Tensor:
        """Which frames of one utterance's features (F, D) take the full branch: (T, layers) bool; T may be 0."""
        if len(features) < self.chunk_frames:
            return torch.zeros(0, len(self.amortized), dtype=torch.bool)
        training = self.training
        self.eval()(features.unsqueeze(0), torch.tensor([len(features)], device=features.device))
        self.train(training)
        return torch.cat(self.decided).t()

    def frames_taken(self, features: Tensor) -> dict[str, NDArray[np.bool_]]:
        full = self.decisions(features).cpu().numpy()
        pairs = {"full": full, "cheap": ~full}
        return {
            f"layers.{layer}.{branch}.*": frames[:, layer]
            for layer in range(full.shape[1])
            for branch, frames in pairs.items()
        }

    def fuse(self) -> None:
        """Run packed integer layers as one program."""
        self.program = amortized_program(self.amortized)

    def usage(self) -> dict[str, Any] | None:
        """Counted while evaluating since `reset_usage`: multiply-accumulates per second of audio, those that the full
        branch alone would take, the share saved, and each layer's share of frames with the full branch."""
        counts: list[Usage] = [layer.usage for layer in self.amortized]
        seconds = counts[0].frames * self.frame_s
        if not seconds:
            return None
        alone = sum(count.frames * layer.full.macs for count, layer in zip(counts, self.amortized, strict=True))
        macs = sum(count.macs for count in counts)
        return {
            "audio_s": seconds,
            "macs_per_s": macs / seconds,
            "full_macs_per_s": alone / seconds,
            "saved": 1 - macs / alone,
            "full_share": [count.full / count.frames for count in counts],
        }

    def adopt_usage(self, usage: Mapping[str, Any]) -> None:
        for layer, share in zip(self.amortized, usage["full_share"], strict=True):
            layer.share.fill_(share)
            layer.expected_share = share  # for a model without numbers

    def reset_usage(self) -> None:
        """Count from 0 on."""
        for layer in self.amortized:
            layer.usage = Usage()

    def update_rates(self) -> None:
        """The share of each branch is what training measured in its last steps, on augmented utterances, until
        `adopt_usage` says better; of a model without numbers, what is expected."""
        for layer in self.amortized:
            unknown = layer.share.is_meta
            layer.set_rates(layer.expected_share if unknown else float(layer.share) if int(self.stage) else 1.0)

    def _evaluated(
        self, layer: AmortizedLSTM, x: Tensor, state: LSTMState, valid: Tensor, stage: int
    ) -> tuple[Tensor, LSTMState]:
        """One branch for each frame, counted."""
        full = layer.logits(x) > 0 if stage else torch.ones_like(valid)
        self._count(layer, full, valid, stage)
        return layer.chosen(x, full, state) if stage else layer.full_alone(x, state)

    def _count(self, layer: AmortizedLSTM, full: Tensor, valid: Tensor, stage: int) -> None:
        layer.count(full, valid, arbitrated=stage != FULL)
        self.decided.append(full)

    def _trained(
        self, layer: AmortizedLSTM, x: Tensor, state: LSTMState, valid: Tensor, stage: int
    ) -> tuple[Tensor, LSTMState]:
        """What the stage wants; without gradient, when quantizers are calibrated, all parts see the inputs."""
        calibrating = not torch.is_grad_enabled()
        if stage == FULL and not calibrating:
            return layer.full_alone(x, state)
        logits = layer.logits(x)
        p = torch.ones_like(logits) if stage == FULL else self._weights(logits, stage)
        if stage != FULL and not calibrating:
            self._measure(layer, logits, p, valid)
        return layer.mixed(x, p, state)

    def _weights(self, logits: Tensor, stage: int) -> Tensor:
        """Of the full branch, (B, T) in 0 to 1."""
        if stage == SOFT:
            uniform = torch.rand_like(logits).clamp_(1e-6, 1 - 1e-6)
            return torch.sigmoid((logits + torch.logit(uniform)) / self.temperature)
        soft = torch.sigmoid(logits / self.temperature)
        hard = (logits > 0).float()
        return hard + (soft - soft.detach())  # the second term is 0

    def _measure(self, layer: AmortizedLSTM, logits: Tensor, p: Tensor, valid: Tensor) -> None:
        """Note the expected cost, and the share of the full branch."""
        full, cheap = layer.costs()
        share = p[valid].mean()
        self._costs.append((share * full + (1 - share) * cheap) / layer.full.macs)
        with torch.no_grad():
            layer.share.lerp_((logits[valid] > 0).float().mean(), 1 - REMEMBERED)


def _require_stage(encoder: Any, _: Any) -> None:
    """Raise UserError if a loaded file names a stage that does not exist."""
    if int(encoder.stage) not in (FULL, SOFT, HARD):
        raise UserError(f"the stage of an amortized encoder is {int(encoder.stage)}, not 0 to 2; make the file again.")
