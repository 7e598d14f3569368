"""The allocations of widths that a space consists of, where widths are all that varies in it."""

import itertools
import math
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any

import numpy as np
from tqdm import tqdm

from qstudy.bits import BitMap
from qstudy.fields import merged
from qstudy.quant.policies import build_policy
from qstudy.sweep.config import StudyConfig
from qstudy.sweep.space import Label, substitute, varied
from qstudy.training.price import price, price_layers

Member = tuple[int, ...]
"""One allocation: for every place that varies, the index of its value."""

BITS = ("weight", "activation")
"""Fields whose values are widths."""
MOST = 5000
"""Members that are priced and compared; of larger spaces as many are drawn."""


class Allocations:
    """The members of a study's space: what they are and what they cost, which is known before anything is trained."""

    def __init__(self, config: StudyConfig) -> None:
        """Args: a study whose space varies widths alone (`screened_policy`)."""
        self._config, self._template = config, config.space[0]
        self.places = varied(self._template)
        self._shapes = price(config.run_of(self.changes((0,) * len(self.places)))).shapes

    @property
    def switchable(self) -> dict[str, Any]:
        """The policy that has all of them, with what the base says of it."""
        policy = dict(merged(self._config.base, self._template)["policy"])
        base = policy.pop("base", "fake_qat") if policy["name"] == "mixed" else policy["name"]
        return {**policy, "name": "switchable", "base": base}

    def require_switchable(self) -> None:
        """Raise UserError unless one model can be switched between all of them."""
        build_policy(self.switchable).bit_map(self._shapes)

    def changes(self, member: Member) -> dict[str, Any]:
        """To the base run configuration."""
        picked = zip(self.places, member, strict=True)
        return substitute(self._template, {place.path: place.values[index] for place, index in picked})

    def parameters(self, member: Member) -> dict[str, Label]:
        """Those of a trial."""
        return {place.name: place.labels[index] for place, index in zip(self.places, member, strict=True)}

    def member(self, parameters: Mapping[str, Any]) -> Member:
        """The one that has these parameters."""
        return tuple(place.labels.index(parameters[place.name]) for place in self.places)

    def named(self, member: Member) -> str:
        """Its values, in order: `4 2 8`."""
        return " ".join(str(label) for label in self.parameters(member).values())

    def told(self, member: Member, place: int) -> tuple[str, str]:
        """One of its places and the value there: `encoder.lstm.0 weight`, `4`."""
        found = self.places[place]
        return " ".join(found.path[2:]), str(found.labels[member[place]])

    def bit_map(self, member: Member) -> BitMap:
        """Widths of every layer."""
        return build_policy(self._config.run_of(self.changes(member)).policy).bit_map(self._shapes)

    def costs(self, member: Member) -> dict[str, float]:
        """As `Budgets.costs`."""
        return self._config.budgets.costs(price_layers(self._shapes, self.bit_map(member), self._config.base_run))

    @cached_property
    def widest(self) -> Member:
        """The member with the most bits in every place, and the most bytes by itself where something else varies."""
        widths = [[self._width(place, index) for index in range(count)] for place, count in self._counts()]
        return tuple(one.index(max(one)) for one in widths)

    def star(self) -> Iterator[Member]:
        """The widest, then all that differ from it in one place."""
        yield self.widest
        for place, count in self._counts():
            for index in range(count):
                if index != self.widest[place]:
                    yield (*self.widest[:place], index, *self.widest[place + 1 :])

    def affordable(self) -> dict[Member, dict[str, float]]:
        """Members within the budgets, with their costs; of many, some that are drawn."""
        members = tqdm(list(self._members()), desc="pricing", unit="candidate", leave=False, disable=None)
        priced = {member: self.costs(member) for member in members}
        return {member: costs for member, costs in priced.items() if not self._config.budgets.excess(costs)}

    def _members(self) -> Iterator[Member]:
        counts = [count for _, count in self._counts()]
        if math.prod(counts) <= MOST:
            return itertools.product(*map(range, counts))
        drawn = np.random.default_rng(self._config.sampler.seed).integers(counts, size=(MOST, len(counts)))
        return iter(dict.fromkeys(tuple(row) for row in drawn.tolist()))

    def _counts(self) -> list[tuple[int, int]]:
        return [(index, len(place.values)) for index, place in enumerate(self.places)]

    def _width(self, place: int, index: int) -> tuple[float, float]:
        """Bits of a place's value, then bytes, which alone would not do: activations in float store no scale."""
        found, size = self.places[place], self.costs(self._only(place, index))["size_bytes"]
        return found.values[index] if found.path[-1] in BITS else 0, size

    def _only(self, place: int, index: int) -> Member:
        return tuple(index if each == place else 0 for each, _ in self._counts())
