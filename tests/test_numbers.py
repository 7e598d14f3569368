"""Numbers that people say in digits: how many there are, and how much less they tell than random strings."""

import math
import re
from collections import Counter
from collections.abc import Iterator

import numpy as np
import pytest

from qstudy.data.corpora.digits import draw_digits
from qstudy.data.corpora.numbers import RULES, draw_number


def every_number(option: str = "{number}") -> Counter[tuple[int, ...]]:
    """All that an option of the grammar can become, with their probabilities."""
    found: Counter[tuple[int, ...]] = Counter({(): 1.0})
    for part in re.findall(r"\{.+?\}|[0-9]", option):
        longer: Counter[tuple[int, ...]] = Counter()
        for before, probability in found.items():
            for after, share in _alternatives(part):
                longer[before + after] += probability * share
        found = longer
    return found


def _alternatives(part: str) -> Iterator[tuple[tuple[int, ...], float]]:
    if part.isdigit():
        yield (int(part),), 1.0
        return
    options = RULES[part.strip("{}")]
    for option in options:
        yield from ((said, share / len(options)) for said, share in every_number(option).items())


def test_bits_per_digit() -> None:
    chances = every_number()
    bits = -sum(chance * math.log2(chance) for chance in chances.values())
    length = sum(chance * len(said) for said, chance in chances.items())
    assert len(chances) == 17_498
    assert sum(chances.values()) == pytest.approx(1)
    assert bits == pytest.approx(13.9, abs=0.05)
    assert bits / length == pytest.approx(2.2, abs=0.05)
    assert (math.log2(5) + 5 * math.log2(10)) / 5 == pytest.approx(3.8, abs=0.05)  # of `draw_digits`
    assert {len(said) for said in chances} == {3, 4, 5, 6, 7}


def test_those_drawn_are_as_frequent_as_the_grammar_says() -> None:
    generator, chances = np.random.default_rng(0), every_number()
    drawn = [draw_number(generator) for _ in range(20_000)]
    assert set(drawn) <= set(chances)
    for digits in range(3, 8):
        share = sum(chance for said, chance in chances.items() if len(said) == digits)
        assert sum(len(said) == digits for said in drawn) / 20_000 == pytest.approx(share, abs=0.015)
    assert sum(draw_digits(generator) in chances for _ in range(2_000)) < 200


def test_what_is_kept_for_tests_leaves_nine_in_ten() -> None:
    generator, chances = np.random.default_rng(1), every_number()
    kept: set[tuple[int, ...]] = set()
    while len(kept) < 750:
        kept.add(draw_number(generator))
    assert sum(chances[said] for said in kept) == pytest.approx(0.08, abs=0.01)
