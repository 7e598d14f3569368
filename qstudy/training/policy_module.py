"""What training any model under a policy shares: the policy's changes, the clipped gradient, the optimizer."""

import math
from typing import Any

import lightning as L
import numpy as np
import torch
from torch import Tensor, nn

from qstudy.errors import Diverged
from qstudy.quant.policies import QuantPolicy
from qstudy.training.config import Optimization

PASS_LOSS = "loss_of_pass"
"""What a pass says for `qstudy.training.fit.Progress`; trackers get the `loss` of a step from there."""


class PolicyModule(L.LightningModule):
    """Trains one model, whose slots a policy has filled; a subclass says what the loss is."""

    model: nn.Module

    def __init__(self, policy: QuantPolicy, schedule: Optimization, seed: int) -> None:
        """Args: the policy, how to train, the seed of dropout and the like."""
        super().__init__()
        self.policy = policy
        self.schedule = schedule
        self.seed = seed

    def seed_pass(self, index: int) -> None:
        """Before pass `index`: a resumed run goes on as if nothing had happened, and devices draw numbers of their
        own."""
        torch.manual_seed(_seed(self.seed, self.global_step, index % self.schedule.accumulate, self.global_rank))

    def tell_loss(self, loss: Tensor, items: int) -> None:
        """A pass's share of its step's loss, averaged over devices."""
        self.log(PASS_LOSS, loss.detach(), sync_dist=True, batch_size=items, logger=False)

    def on_train_start(self) -> None:
        """Let the policy take up where it was: a checkpoint is written before the policy's change after that step."""
        self.policy.project_(self.model, self.global_step)

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Let the policy change the model after the optimizer's step, which may take several passes."""
        if (batch_idx + 1) % self.schedule.accumulate == 0:
            self.policy.project_(self.model, self.global_step)

    def configure_gradient_clipping(
        self, optimizer: Any, gradient_clip_val: float | None = None, gradient_clip_algorithm: str | None = None
    ) -> None:
        """Clip the gradient's norm, as Lightning does.

        Raises:
            Diverged: a gradient is no number, or a weight: integer arithmetic would make some number of it.
        """
        norms = {
            "The gradient": nn.utils.clip_grad_norm_(self.parameters(), gradient_clip_val or math.inf),
            "A weight": nn.utils.get_total_norm(list(self.parameters())),
        }
        self.log("gradient_norm", norms["The gradient"])  # before it was clipped
        for what, norm in norms.items():
            if not norm.isfinite():
                raise Diverged(
                    f"{what} became infinite or not a number at step {self.global_step}; lower the learning rate or "
                    "the policy's penalty, and start again."
                )

    def configure_optimizers(self) -> Any:
        """AdamW; linear warm-up, then a cosine to 1 %.

        Not torch's fused one: it changes parameters without their `_version`, by which quantized weights are kept.
        """
        schedule = self.schedule
        optimizer = torch.optim.AdamW(
            self.parameters(), lr=schedule.learning_rate, betas=(0.9, 0.98), weight_decay=schedule.weight_decay
        )

        def factor(step: int) -> float:
            progress = (step + 1) / schedule.steps
            if progress < schedule.warmup:
                return progress / schedule.warmup
            rest = (progress - schedule.warmup) / max(1 - schedule.warmup, 1e-9)
            return max(0.5 * (1 + math.cos(math.pi * min(rest, 1.0))), 0.01)

        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step", "name": "learning_rate"},
        }


def _seed(*parts: int) -> int:
    """One seed from several whole numbers."""
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0])
