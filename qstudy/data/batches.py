"""Batches: which utterances go together, and their features and labels as padded tensors.

Both are pure functions of (seed, epoch): a resumed run sees what the interrupted one would have seen.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from qstudy.data.augment import Augment
from qstudy.data.cache import FeatureSet
from qstudy.data.features import SILENCE

_JITTER = 0.05  # utterances whose lengths differ by less may change places from epoch to epoch


@dataclass
class Batch:
    """Padded utterances; F frames of D mel bins, U labels."""

    features: Tensor
    """(B, F, D) float32 raw log-mel energies; padded with SILENCE, like the tail, and only behind an utterance."""
    feature_lengths: Tensor
    """(B,) int64 frames."""
    targets: Tensor
    """(B, U) int64 labels, padded with 0."""
    target_lengths: Tensor
    """(B,) int64 labels."""
    texts: list[str]
    """What was said."""

    def to(self, device: torch.device | str) -> "Batch":
        """The batch on another device."""
        return Batch(
            features=self.features.to(device, non_blocking=True),
            feature_lengths=self.feature_lengths.to(device, non_blocking=True),
            targets=self.targets.to(device, non_blocking=True),
            target_lengths=self.target_lengths.to(device, non_blocking=True),
            texts=self.texts,
        )


class BatchSampler:
    """Utterances of similar length together; epoch 0 runs from short to long, later ones are shuffled."""

    def __init__(self, lengths: np.ndarray, batch_size: int, seed: int) -> None:
        """Plan batches of `batch_size` (the last one may be smaller) for utterances of `lengths` (items,) frames."""
        self.lengths, self.batch_size, self.seed = lengths, batch_size, seed

    def __len__(self) -> int:
        return -(-len(self.lengths) // self.batch_size)

    def batches(self, epoch: int) -> list[list[int]]:
        """The utterances of every batch of an epoch, in the order of training."""
        generator = np.random.default_rng((self.seed, epoch))
        order = np.argsort(self.lengths * generator.uniform(1 - _JITTER, 1 + _JITTER, len(self.lengths)), kind="stable")
        batches = [order[start : start + self.batch_size].tolist() for start in range(0, len(order), self.batch_size)]
        return batches if epoch == 0 else [batches[index] for index in generator.permutation(len(batches))]


def collate(
    features: FeatureSet, indices: Sequence[int], augment: Augment | None = None, seed: int = 0, epoch: int = 0
) -> Batch:
    """Make one batch.

    Args:
        features: the utterances.
        indices: those of the batch.
        augment: changes the features at random if given; what an utterance gets depends on (seed, epoch, its index)
            alone, not on its batch.
        seed: of the augmentation.
        epoch: of the augmentation.
    """
    frames = [_augmented(features, index, augment, (seed, epoch, index)) for index in indices]
    labels = [features.labels[index] for index in indices]
    lengths, target_lengths = [len(item) for item in frames], [len(item) for item in labels]
    padded = np.full((len(indices), max(lengths), features.settings.bins), SILENCE, dtype=np.float32)
    targets = np.zeros((len(indices), max(target_lengths)), dtype=np.int64)
    for row, (item, target) in enumerate(zip(frames, labels, strict=True)):
        padded[row, : len(item)] = item
        targets[row, : len(target)] = target
    return Batch(
        features=torch.from_numpy(padded),
        feature_lengths=torch.tensor(lengths),
        targets=torch.from_numpy(targets),
        target_lengths=torch.tensor(target_lengths),
        texts=[features.texts[index] for index in indices],
    )


def _augmented(features: FeatureSet, index: int, augment: Augment | None, seed: tuple[int, int, int]) -> np.ndarray:
    frames = features.frames(index)
    if augment is None:
        return frames
    generator = np.random.default_rng(seed)
    return augment(frames, generator, lambda: features.frames(int(generator.integers(len(features)))))
