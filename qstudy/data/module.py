"""The LightningDataModule that deals a data set out in batches."""

import os
from dataclasses import dataclass, replace
from typing import Any

import lightning as L
import torch
from torch.utils.data import DataLoader, Dataset

from qstudy.data.augment import Augment
from qstudy.data.batches import Batch, collate, evaluation_batches
from qstudy.data.feature_set import FeatureSet
from qstudy.data.sampler import Piece, PieceSampler, split


@dataclass
class Pieces(Dataset[Batch]):
    """A map-style dataset whose items are whole batches: `Piece` to `Batch`."""

    features: FeatureSet
    augment: Augment | None
    seed: int

    def __getitem__(self, piece: Piece) -> Batch:
        augment = self.augment if piece.augmented else None
        batch = collate(self.features, piece.indices, augment, self.seed, piece.epoch)
        return replace(batch, weight=piece.weight)


class SpeechData(L.LightningDataModule):
    """Training batches from the trainer's step on, and the dev set; each device gets its share of both."""

    def __init__(
        self, train: FeatureSet, dev: FeatureSet, augment: Augment, pieces: PieceSampler, seed: int, workers: int
    ) -> None:
        """
        Args:
            train: utterances to train on.
            dev: utterances to evaluate while training.
            augment: of the training features.
            pieces: the plan of the training; rank and step are filled in here.
            seed: of the augmentation.
            workers: loader processes per device; 0: batches are made by the training process.
        """
        super().__init__()
        self.train, self.dev = train, dev
        self.augment, self.pieces, self.seed, self.workers = augment, pieces, seed, workers

    def train_dataloader(self) -> DataLoader[Batch]:
        """Batches for ever, beginning where the trainer stands (after a resume: at its checkpoint)."""
        assert self.trainer is not None
        rank, ranks, step = self.trainer.global_rank, self.trainer.world_size, self.trainer.global_step
        pieces = replace(self.pieces, rank=rank, ranks=ranks, step=step)
        return self._loader(Pieces(self.train, self.augment, self.seed), pieces)

    def val_dataloader(self) -> DataLoader[Batch]:
        """The dev set; every device has as many batches, as the trainer requires: some perhaps of weight 0."""
        assert self.trainer is not None
        rank, ranks = self.trainer.global_rank, self.trainer.world_size
        shares = [split(batch, ranks)[rank] for batch in evaluation_batches(self.dev.lengths)]
        pieces = [Piece(indices, 0, False, weight) for indices, weight in shares]
        return self._loader(Pieces(self.dev, None, self.seed), pieces)

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        """Move a batch."""
        return batch.to(device)

    def _loader(self, dataset: Pieces, sampler: PieceSampler | list[Piece]) -> DataLoader[Batch]:
        gpu = self.trainer is not None and self.trainer.strategy.root_device.type == "cuda"
        return DataLoader(
            dataset,
            batch_size=None,
            sampler=sampler,
            num_workers=self.workers,
            collate_fn=_as_it_is,
            pin_memory=gpu,
            worker_init_fn=_leave_group,
        )


def _leave_group(_: int) -> None:
    """A terminal's Ctrl-C, or a signal to the process group, is for the training, which ends its loaders itself: where
    they ended before it, it would take that for a failure."""
    os.setsid()


def _as_it_is(batch: Any) -> Any:
    return batch
