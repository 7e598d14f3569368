"""Which utterances go together: every one once, never too many frames, the same pieces wherever they are computed."""

from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qstudy.data.sampler import BatchSampler, Piece, PieceSampler, split

LENGTHS = np.random.default_rng(0).integers(50, 900, 203)


def pieces(sampler: PieceSampler, count: int) -> list[Piece]:
    return list(islice(sampler, count))


@given(st.lists(st.integers(30, 3000), min_size=1, max_size=200), st.integers(1, 40), st.integers(200, 30000))
def test_no_batch_has_more_frames_than_allowed(lengths: list[int], size: int, frames: int) -> None:
    sampler = BatchSampler(np.array(lengths), size, seed=1, batch_frames=frames)
    for epoch in range(3):
        batches = sampler.batches(epoch)
        assert len(batches) == len(sampler)
        assert sorted(index for batch in batches for index in batch) == list(range(len(lengths)))
        for batch in batches:
            assert 1 <= len(batch) <= size
            assert len(batch) == 1 or len(batch) * max(lengths[index] for index in batch) <= frames


def test_a_limit_of_frames_leaves_short_utterances_together() -> None:
    sampler = BatchSampler(LENGTHS, 32, seed=0, batch_frames=32 * 300)
    filled = [max(LENGTHS[batch]) * len(batch) / (32 * 300) for batch in sampler.batches(0)[:-1]]
    assert np.median(filled) > 0.8
    assert len(sampler.batches(0)[0]) == 32


@given(st.integers(1, 40), st.integers(1, 9))
def test_the_weighted_mean_of_shares_of_texts_is_the_mean_over_labels(texts: int, parts: int) -> None:
    generator = np.random.default_rng(texts)
    labels = [generator.standard_normal(length) for length in generator.integers(1, 30, texts)]
    shares = split(list(range(texts)), parts, np.array([len(each) for each in labels]))
    means = [weight * np.concatenate([labels[index] for index in indices]).mean() for indices, weight in shares]
    assert np.mean(means) == pytest.approx(np.concatenate(labels).mean(), abs=1e-12)


@given(st.integers(1, 40), st.integers(1, 9))
def test_shares_are_the_batch_and_their_weighted_mean_is_its_mean(count: int, parts: int) -> None:
    values = np.random.default_rng(count).standard_normal(count)
    shares = split(list(range(count)), parts)
    assert len(shares) == parts
    assert sorted(index for indices, weight in shares if weight for index in indices) == list(range(count))
    assert np.mean([weight * values[list(indices)].mean() for indices, weight in shares]) == pytest.approx(
        values.mean(), abs=1e-12
    )


@pytest.mark.parametrize(("ranks", "accumulate"), [(1, 3), (2, 1), (3, 2)])
def test_devices_and_passes_share_the_same_batches(ranks: int, accumulate: int) -> None:
    alone = PieceSampler(BatchSampler(LENGTHS, 10, seed=3), first_epoch=0, augment_from=5)
    shared = [
        pieces(replace(alone, rank=rank, ranks=ranks, accumulate=accumulate), 50 * accumulate) for rank in range(ranks)
    ]
    for step, whole in enumerate(pieces(alone, 50)):
        parts = [part for own in shared for part in own[step * accumulate : (step + 1) * accumulate]]
        assert sorted(i for part in parts if part.weight for i in part.indices) == sorted(whole.indices)
        assert {(part.epoch, part.augmented) for part in parts} == {(whole.epoch, whole.augmented)}


def test_a_resumed_sampler_goes_on() -> None:
    sampler = PieceSampler(BatchSampler(LENGTHS, 16, seed=3), first_epoch=1, augment_from=4, accumulate=2)
    assert pieces(replace(sampler, step=17), 60) == pieces(sampler, 94)[34:]
    assert [piece.augmented for piece in pieces(sampler, 10)] == [False] * 8 + [True] * 2
    assert {piece.epoch for piece in pieces(sampler, 26)} == {1}
    assert pieces(sampler, 27)[-1].epoch == 2
