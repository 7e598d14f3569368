"""The LightningModule: an RNN-T under a policy."""

import math
from typing import Any

import lightning as L
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from qstudy.data.batches import Batch
from qstudy.errors import Diverged
from qstudy.loss import rnnt_loss
from qstudy.model import RNNT
from qstudy.model.predictor import BLANK
from qstudy.quant.policies import QuantPolicy
from qstudy.training.config import Schedule


class TransducerModule(L.LightningModule):
    """Trains one transducer: RNN-T loss, an auxiliary CTC head that is never exported, the policy's penalty."""

    def __init__(self, model: RNNT, policy: QuantPolicy, schedule: Schedule, labels: int) -> None:
        """Args: the model with filled slots, its policy, how to train, V labels with blank."""
        super().__init__()
        self.model = model
        self.policy = policy
        self.schedule = schedule
        self.ctc = nn.Linear(model.encoder.hidden, labels) if max(schedule.ctc_weight, schedule.ctc_only) > 0 else None

    def training_step(self, batch: Batch, index: int) -> Tensor:
        """One batch's loss."""
        progress = self.global_step / self.schedule.steps
        encoded, lengths, _ = self.model.encoder(batch.features, batch.feature_lengths)
        loss = encoded.new_zeros((), dtype=torch.float32)
        if progress >= self.schedule.ctc_only:
            logits = self.model.joiner(encoded, self.model.predictor(batch.targets))
            loss = loss + rnnt_loss(logits.float(), batch.targets, lengths, batch.target_lengths, blank=BLANK)
        if (weight := self._ctc_weight(progress)) and self.ctc is not None:
            loss = loss + weight * self._ctc_loss(self.ctc, batch, encoded, lengths)
        loss = loss + self.policy.penalty(self.model, self.global_step)
        if not torch.isfinite(loss):
            raise Diverged(
                f"The loss became {loss.item()} at step {self.global_step}; lower training.learning_rate or the"
                " policy's penalty, and start again."
            )
        return loss

    def on_train_start(self) -> None:
        """Let the policy take up where it was: a checkpoint is written before the policy's change after that step."""
        self.policy.project_(self.model, self.global_step)

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Let the policy change the model after the optimizer's step."""
        self.policy.project_(self.model, self.global_step)

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        """Move a batch."""
        return batch.to(device)

    def configure_optimizers(self) -> Any:
        """AdamW; linear warm-up, then a cosine to 1 %."""
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
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def _ctc_weight(self, progress: float) -> float:
        if progress < self.schedule.ctc_only:
            return 1.0
        return self.schedule.ctc_weight if progress < 0.5 else self.schedule.ctc_late

    def _ctc_loss(self, head: nn.Linear, batch: Batch, encoded: Tensor, lengths: Tensor) -> Tensor:
        frames, frame_lengths = self.model.encoder.frames(encoded, lengths)
        log_probabilities = F.log_softmax(head(frames).float(), -1).transpose(0, 1)
        losses = F.ctc_loss(
            log_probabilities, batch.targets, frame_lengths, batch.target_lengths, BLANK, "none", zero_infinity=True
        )
        return losses.mean()  # per utterance, as the RNN-T loss
