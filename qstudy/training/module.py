"""The LightningModule: an RNN-T under a policy."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics.text import WordErrorRate

from qstudy.data.batches import Batch
from qstudy.data.tokenizer import Tokenizer
from qstudy.loss.head import head_loss
from qstudy.loss.rnnt import rnnt_loss
from qstudy.model import RNNT
from qstudy.model.joiners import Joiner
from qstudy.model.predictors import BLANK
from qstudy.quant.policies import QuantPolicy
from qstudy.recognize.greedy import greedy_labels
from qstudy.training.config import Schedule
from qstudy.training.policy_module import PolicyModule


class TransducerModule(PolicyModule):
    """Trains one transducer: RNN-T loss, an auxiliary CTC head that is never exported, the policy's penalty."""

    model: RNNT
    schedule: Schedule

    def __init__(self, model: RNNT, policy: QuantPolicy, schedule: Schedule, tokenizer: Tokenizer, seed: int) -> None:
        """Args: the model with filled slots, its policy, how to train, its labels, the seed of dropout and the like."""
        super().__init__(policy, schedule, seed)
        self.model = model
        self.tokenizer = tokenizer
        self.dev_wer = WordErrorRate()
        with_ctc = max(schedule.ctc_weight, schedule.ctc_late, schedule.ctc_only) > 0
        frame = model.encoder.output_size // model.encoder.reduction
        self.ctc = nn.Linear(frame, tokenizer.size) if with_ctc else None

    def training_step(self, batch: Batch, index: int) -> Tensor:
        """One batch's loss."""
        progress = self.global_step / self.schedule.steps
        self.seed_pass(index)
        encoder = self.model.encoder
        if branching := encoder.branching:
            branching.begin_step(progress)
        passes, lengths = encoder.passes(batch.features, batch.feature_lengths)
        pairs = zip(encoder.pass_weights, passes, strict=True)
        losses = [weight * self._loss(batch, encoded, lengths, progress) for weight, encoded in pairs if weight]
        penalty = self.policy.penalty(self.model, self.global_step)
        loss = batch.weight * torch.stack(losses).sum() + penalty
        if penalty.requires_grad:  # else it is none
            self._tell("loss_penalty", penalty, batch)
        if branching and (own := branching.penalty()) is not None:
            loss = loss + batch.weight * own
            self._tell("loss_encoder_penalty", own, batch)
        self.tell_loss(loss, len(batch.texts))
        return loss

    def _tell(self, name: str, value: Tensor, batch: Batch) -> None:
        """A curve of the training, averaged over devices; of an encoder with several passes the last one's."""
        self.log(name, value.detach(), sync_dist=True, batch_size=len(batch.texts))

    def _loss(self, batch: Batch, encoded: Tensor, lengths: Tensor, progress: float) -> Tensor:
        """Of the encoder's frames (B, T, .): RNN-T and CTC as the schedule weighs them, () float32."""
        loss = encoded.new_zeros((), dtype=torch.float32)
        if progress >= self.schedule.ctc_only:
            rnnt = self._rnnt_loss(batch, encoded, lengths)
            self._tell("loss_rnnt", rnnt, batch)
            loss = loss + rnnt
        if (weight := self._ctc_weight(progress)) and self.ctc is not None:
            ctc = self._ctc_loss(self.ctc, batch, encoded, lengths)
            self._tell("loss_ctc", ctc, batch)
            loss = loss + weight * ctc
        return loss

    def _rnnt_loss(self, batch: Batch, encoded: Tensor, lengths: Tensor) -> Tensor:
        predicted = self.model.predictor(batch.targets)
        return joiner_loss(self.model.joiner, encoded, predicted, batch.targets, lengths, batch.target_lengths)

    def validation_step(self, batch: Batch, index: int) -> None:
        """Decode some of the dev set."""
        found = greedy_labels(self.model, batch.features, batch.feature_lengths)
        if batch.weight:  # else another device decodes them
            self.dev_wer.update([self.tokenizer.decode(labels) for labels in found], batch.texts)

    def on_validation_epoch_end(self) -> None:
        """The word error rate of the whole dev set, over all devices."""
        self.log("dev_wer", self.dev_wer.compute())
        self.dev_wer.reset()

    def _ctc_weight(self, progress: float) -> float:
        if progress < self.schedule.ctc_only:
            return 1.0
        return self.schedule.ctc_weight if progress < 0.5 else self.schedule.ctc_late

    def _ctc_loss(self, head: nn.Linear, batch: Batch, encoded: Tensor, lengths: Tensor) -> Tensor:
        frames = encoded.reshape(len(encoded), -1, head.in_features)
        lengths = lengths * self.model.encoder.reduction
        log_probabilities = F.log_softmax(head(frames).float(), -1).transpose(0, 1)
        losses = F.ctc_loss(
            log_probabilities, batch.targets, lengths, batch.target_lengths, BLANK, "none", zero_infinity=True
        )
        return losses.mean()  # per utterance, as the RNN-T loss


def joiner_loss(
    joiner: Joiner, encoded: Tensor, predicted: Tensor, targets: Tensor, frames: Tensor, labels: Tensor
) -> Tensor:
    """The RNN-T loss of encoder frames (B, T, .) and predictor vectors (B, U + 1, .), () float32.

    In tiles if the joiner can be taken in parts, else over all logits; `targets`, `frames` and `labels` are
    those of `rnnt_loss`.
    """
    if joint := joiner.joint(encoded, predicted):
        return head_loss(*joint, targets, frames, labels, BLANK)
    return rnnt_loss(joiner(encoded, predicted).float(), targets, frames, labels, BLANK)
