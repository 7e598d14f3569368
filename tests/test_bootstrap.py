"""Groups that a bootstrap draws together: sums, and intervals that are as wide as groups differ, few of them too."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qstudy.bootstrap import by_group, count_groups, numbered, widened
from qstudy.data.metrics import bootstrap_interval


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 4)), min_size=1, max_size=40))
def test_sums_of_groups(drawn: list[tuple[int, int]]) -> None:
    counts, groups = (np.array(column) for column in zip(*drawn, strict=True))
    expected = [counts[groups == name].sum() for name in sorted(set(groups))]
    assert by_group(counts, groups).tolist() == expected
    assert by_group(np.stack([counts, 2 * counts]), groups)[1].tolist() == [2 * one for one in expected]


def test_numbers_and_counts() -> None:
    assert numbered(["b", "a", "b", "c"]) == [0, 1, 0, 2]
    assert [count_groups(groups) for groups in (None, [], [0, 0], [0, 5, 0])] == [0, 0, 0, 2]


def covered(groups: int, draw) -> float:
    """How often an interval holds the true mean, 0, of groups that are normal."""
    dice, inside = np.random.default_rng(groups), 0
    for _ in range(400):
        sample = dice.standard_normal(groups)
        means = sample[dice.integers(groups, size=(1000, groups))].mean(1)
        low, high = np.percentile(draw(means, sample.mean()), [2.5, 97.5])
        inside += low <= 0 <= high
    return inside / 400


@pytest.mark.parametrize("groups", [3, 5, 15])
def test_few_groups_get_intervals_wide_enough(groups: int) -> None:
    assert covered(groups, lambda means, _: means) < 0.93
    assert covered(groups, lambda means, mean: widened(means, mean, groups)) == pytest.approx(0.95, abs=0.025)


def test_what_speakers_share_is_in_the_interval_of_a_rate() -> None:
    """Of ten speakers all errors are those of two, who get every word wrong."""
    said, speakers = ["a b c d"] * 200, [number % 10 for number in range(200)]
    heard = ["x x x x" if speaker < 2 else "a b c d" for speaker in speakers]
    alone, together = bootstrap_interval(said, heard), bootstrap_interval(said, heard, groups=speakers)
    assert alone[1] - alone[0] == pytest.approx(2 * 1.96 * (0.2 * 0.8 / 200) ** 0.5, rel=0.15)
    assert together[0] == 0  # not below
    assert 0.4 < together[1] < 0.65
    assert bootstrap_interval(said, heard, groups=[0] * 200) == alone
