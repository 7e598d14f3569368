"""Batches: every utterance once, of similar lengths, the same again for the same seed and epoch."""

import json
from itertools import pairwise

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qstudy.data.augment import Augment, AugmentSettings
from qstudy.data.batches import EVALUATED, EVALUATED_FRAMES, collate, evaluation_batches
from qstudy.data.feature_set import FeatureSet, mean_std
from qstudy.data.features import SILENCE, FeatureSettings
from qstudy.data.sampler import BatchSampler
from qstudy.data.tokenizer import CharTokenizer

TEXTS = ["a", "bc d", "efg", "h", "ij kl", "m n"]


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> FeatureSet:
    folder = tmp_path_factory.mktemp("corpus")
    lines = []
    for number, text in enumerate(TEXTS):
        samples = np.random.default_rng(number).standard_normal(4000 + 3000 * number) * 0.1
        soundfile.write(folder / f"{number}.wav", samples, 16000)
        lines.append({"audio_filepath": f"{number}.wav", "duration": len(samples) / 16000, "text": text})
    (folder / "all.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return FeatureSet.open(folder / "all.jsonl", FeatureSettings(), CharTokenizer(), folder / "cache")


@settings(deadline=None)
@given(
    st.lists(st.integers(30, 3000), min_size=1, max_size=200), st.integers(1, 40), st.integers(0, 9), st.integers(0, 9)
)
def test_every_utterance_once_and_repeatable(lengths: list[int], size: int, seed: int, epoch: int) -> None:
    sampler = BatchSampler(np.array(lengths), size, seed)
    batches = sampler.batches(epoch)
    assert sorted(index for batch in batches for index in batch) == list(range(len(lengths)))
    assert len(batches) == len(sampler)
    assert max(map(len, batches)) <= size
    assert batches == BatchSampler(np.array(lengths), size, seed).batches(epoch)


def test_order_of_epochs() -> None:
    lengths = np.random.default_rng(0).integers(100, 1000, 500)
    sampler = BatchSampler(lengths, 16, seed=1)
    first, second, third = (sampler.batches(epoch) for epoch in range(3))
    longest = [lengths[batch].max() for batch in first]
    assert all(late > early * 0.9 for early, late in pairwise(longest))  # short to long
    assert second != third
    assert second != BatchSampler(lengths, 16, seed=2).batches(1)
    shuffled = np.array([lengths[batch].mean() for batch in second])
    assert abs(np.corrcoef(shuffled, np.arange(len(shuffled)))[0, 1]) < 0.5
    padding = [lengths[batch].max() * len(batch) / lengths[batch].sum() for batch in second]
    assert np.mean(padding) < 1.15


@given(st.lists(st.integers(0, EVALUATED_FRAMES // EVALUATED), max_size=300))
def test_ordinary_utterances_are_evaluated_in_full_batches(lengths: list[int]) -> None:
    order = np.argsort(lengths, kind="stable").tolist()
    full = [order[i : i + EVALUATED] for i in range(0, len(order), EVALUATED)]
    assert evaluation_batches(np.array(lengths)) == full


@given(st.lists(st.integers(1, 2 * EVALUATED_FRAMES), min_size=1, max_size=300))
def test_long_recordings_are_evaluated_in_smaller_batches(lengths: list[int]) -> None:
    batches = evaluation_batches(np.array(lengths))
    assert [index for batch in batches for index in batch] == np.argsort(lengths, kind="stable").tolist()
    for batch in batches:
        longest = max(lengths[index] for index in batch)
        assert len(batch) == 1 or len(batch) * longest <= EVALUATED_FRAMES
    for batch, following in pairwise(batches):  # none is smaller than it has to be
        assert len(batch) == EVALUATED or (len(batch) + 1) * lengths[following[0]] > EVALUATED_FRAMES


def test_padding(features: FeatureSet) -> None:
    batch = collate(features, [4, 0, 2])
    assert batch.texts == [TEXTS[4], TEXTS[0], TEXTS[2]]
    assert batch.features.dtype == torch.float32
    assert batch.features.shape == (3, features.lengths[4], 40)
    assert batch.feature_lengths.tolist() == features.lengths[[4, 0, 2]].tolist()
    for row, item in enumerate([4, 0, 2]):
        length, labels = features.lengths[item], features.labels[item]
        np.testing.assert_array_equal(batch.features[row, :length], features.frames(item))
        assert (batch.features[row, length:] == SILENCE).all()
        assert batch.targets[row, : batch.target_lengths[row]].tolist() == labels
        assert (batch.targets[row, len(labels) :] == 0).all()


def test_augmentation_depends_on_seed_epoch_and_utterance_alone(features: FeatureSet) -> None:
    augment = Augment(AugmentSettings(speed=1, babble=1), FeatureSettings(), mean_std(features)[0])

    def utterance(indices: list[int], item: int, **of: int) -> torch.Tensor:
        batch = collate(features, indices, augment, **of)
        row = indices.index(item)
        return batch.features[row, : batch.feature_lengths[row]]

    here = utterance([1, 3, 5], 3, seed=1, epoch=2)
    assert torch.equal(here, utterance([3, 0], 3, seed=1, epoch=2))
    assert not torch.equal(here, utterance([1, 3, 5], 3, seed=1, epoch=3))
    assert not torch.equal(here, utterance([1, 3, 5], 3, seed=2, epoch=2))
    np.testing.assert_array_equal(collate(features, [3]).features[0], features.frames(3))  # the cache stays as it was


def test_to_another_device(features: FeatureSet) -> None:
    batch = collate(features, [0, 1]).to("meta")
    assert batch.features.is_meta
    assert batch.target_lengths.is_meta
    assert batch.texts == TEXTS[:2]
