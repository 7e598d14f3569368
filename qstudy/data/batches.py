"""Batches of a data set: padded utterances, and which of them go together where nothing is trained."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from qstudy.data.augment import Augment
from qstudy.data.feature_set import FeatureSet
from qstudy.data.features import SILENCE

EVALUATED = 64
"""Utterances per batch where nothing is trained."""
EVALUATED_FRAMES = EVALUATED * 4000
"""Frames of such a batch at most, padding included: a full one has utterances of up to 40 s. A layer's values of them
all are in memory at once, which would not hold those of 64 hours. One longer utterance is a batch of its own."""


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
    weight: float = 1.0
    """Of this batch's mean loss, if it is a device's share of a larger one."""

    def to(self, device: torch.device | str) -> "Batch":
        """The batch on another device."""
        return self._each(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> "Batch":
        """The batch in memory that a GPU copies from while it computes; the DataLoader asks for it."""
        return self._each(Tensor.pin_memory)

    def _each(self, change: Callable[[Tensor], Tensor]) -> "Batch":
        return replace(
            self,
            features=change(self.features),
            feature_lengths=change(self.feature_lengths),
            targets=change(self.targets),
            target_lengths=change(self.target_lengths),
        )


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


def evaluation_batches(lengths: np.ndarray) -> list[list[int]]:
    """All utterances, given the frames of each (N,), those of similar length together."""
    order = np.argsort(lengths, kind="stable").tolist()
    batches: list[list[int]] = [[]]
    for index in order:  # the longest so far
        if len(batches[-1]) >= min(EVALUATED, max(EVALUATED_FRAMES // max(int(lengths[index]), 1), 1)):
            batches.append([])
        batches[-1].append(index)
    return batches if order else []
