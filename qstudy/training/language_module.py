"""The LightningModule of a language model, and its batches."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import lightning as L
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from qstudy.data.sampler import Piece, PieceSampler
from qstudy.model.language import LSTMLanguageModel
from qstudy.quant.policies import QuantPolicy
from qstudy.training.config import Optimization
from qstudy.training.policy_module import PolicyModule

IGNORED = -100
"""Where a text has ended, in `TextBatch.following`."""


@dataclass
class TextBatch:
    """Padded texts; N texts, U labels."""

    targets: Tensor
    """(N, U) int64 labels, padded with 0."""
    following: Tensor
    """(N, U + 1) int64: what follows the start and each label; 0 at the end of a text, then IGNORED."""
    weight: float = 1.0
    """Of this batch's loss, if it is a device's share of a larger one."""

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "TextBatch":
        """The batch on another device."""
        moved = {name: getattr(self, name).to(device, non_blocking=non_blocking) for name in ("targets", "following")}
        return replace(self, **moved)


def collate(texts: Sequence[Sequence[int]], weight: float = 1.0) -> TextBatch:
    """Make one batch."""
    longest = max(map(len, texts))
    targets = np.zeros((len(texts), longest), np.int64)
    following = np.full((len(texts), longest + 1), IGNORED, np.int64)
    for row, text in enumerate(texts):
        targets[row, : len(text)] = text
        following[row, : len(text) + 1] = [*text, 0]
    return TextBatch(torch.from_numpy(targets), torch.from_numpy(following), weight)


class LanguageModule(PolicyModule):
    """Trains one language model: cross-entropy of the next label, the policy's penalty."""

    model: LSTMLanguageModel

    def __init__(self, model: LSTMLanguageModel, policy: QuantPolicy, schedule: Optimization, seed: int) -> None:
        """Args: the model with filled slots, its policy, how to train, the seed of dropout."""
        super().__init__(policy, schedule, seed)
        self.model = model

    def training_step(self, batch: TextBatch, index: int) -> Tensor:
        """A piece's part of its batch's loss, which is per label."""
        self.seed_pass(index)
        logits = self.model(batch.targets).float()
        loss = F.cross_entropy(logits.flatten(0, 1), batch.following.flatten(), ignore_index=IGNORED)
        loss = batch.weight * loss + self.policy.penalty(self.model, self.global_step)
        self.tell_loss(loss, len(batch.targets))
        return loss


@dataclass
class TextPieces(Dataset[TextBatch]):
    """A map-style dataset whose items are whole batches: `Piece` to `TextBatch`."""

    texts: Sequence[Sequence[int]]

    def __getitem__(self, piece: Piece) -> TextBatch:
        return collate([self.texts[index] for index in piece.indices], piece.weight)


class TextData(L.LightningDataModule):
    """Training batches from the trainer's step on; each device gets its share."""

    def __init__(self, texts: Sequence[Sequence[int]], pieces: PieceSampler) -> None:
        """Args: labels of each text; the plan of the training, whose rank and step are filled in here."""
        super().__init__()
        self.texts, self.pieces = texts, pieces

    def train_dataloader(self) -> DataLoader[TextBatch]:
        """Batches for ever, beginning where the trainer stands (after a resume: at its checkpoint)."""
        assert self.trainer is not None
        rank, ranks, step = self.trainer.global_rank, self.trainer.world_size, self.trainer.global_step
        pieces = replace(self.pieces, rank=rank, ranks=ranks, step=step)
        return DataLoader(TextPieces(self.texts), batch_size=None, sampler=pieces)
