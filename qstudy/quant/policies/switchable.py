"""`switchable`: one training for many allocations of widths, which are then ranked by evaluation alone."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from itertools import product
from typing import Any

import numpy as np
from torch import Tensor, nn

from qstudy.bits import BitMap, BitPatterns, LayerBits, LayerShape
from qstudy.errors import UserError
from qstudy.fields import Seed
from qstudy.quant.arithmetic import TrainingArithmetic
from qstudy.quant.arithmetics.fake import FakeArithmetic
from qstudy.quant.arithmetics.switch import Switch
from qstudy.quant.layers import Quantizable, quantizable, training_slots
from qstudy.quant.policies.base import QuantPolicy

Patterns = Mapping[str, Mapping[str, Any]]
"""As `BitPatterns`, with lists of values."""
AllowedWidths = dict[str, tuple[LayerBits, ...]]
"""Layer -> the widths that it can be switched to, the widest first."""


class Switchable(QuantPolicy):
    """Every step draws widths for each layer; the weights are shared, quantizers are kept apart for each width.

    Afterwards `switch_` makes it the model of any allocation, without training. As packed it has the widest ones.
    Evaluations while it trains are of the widths drawn last.

    Source: shared weights with quantizers per width, AdaBits, Jin et al. 2019, arXiv 1912.09666, and Any-Precision Deep
    Neural Networks, Yu et al. 2019, arXiv 1911.07346; one draw per step, to rank architectures by evaluation alone: Guo
    et al. 2019, arXiv 1904.00420.

    YAML: `policy: {name: switchable, layers: {"*": {activation: 8}, "encoder.*": {weight: [2, 3, 4]}}}`
    """

    def __init__(self, layers: Patterns, base: str = "fake_qat", draws: Seed = 0, **options: Any) -> None:
        """
        Args:
            layers: ordered glob patterns over layer names -> widths; a list stands for several of them.
            base: the policy that says in which arithmetic the widths are meant.
            draws: seed of what every step draws.
            options: that policy's other options.

        Raises:
            UserError: a list without values, or a base that cannot be switched.
        """
        super().__init__({pattern: _first(values, pattern) for pattern, values in layers.items()})
        self._lists, self._base, self._draws = layers, {"name": base, **options}, draws
        self.base = self._of(self.layers)
        if not self.base.switchable:
            raise UserError(f"policy.base: layers of {base} cannot be switched between widths; use fake_qat.")
        self._allowed: AllowedWidths = {}

    def bit_map(self, shapes: Iterable[LayerShape]) -> BitMap:
        return {name: widths[0] for name, widths in self.allowed_widths(list(shapes)).items()}

    def allowed_widths(self, shapes: Sequence[LayerShape]) -> AllowedWidths:
        """The widths of every layer, the widest first.

        Raises:
            UserError: as the base's `bit_map`.
        """
        names = list(self.base.bit_map(shapes))
        found: dict[str, set[LayerBits]] = {name: set() for name in names}
        maps: dict[Any, BitMap] = {}
        for name in names:
            for patterns in self._touching(name):
                key = repr(patterns)
                if key not in maps:
                    maps[key] = self._of(patterns).bit_map(shapes)
                found[name].add(maps[key][name])
        return {name: tuple(sorted(widths, key=_widest_first)) for name, widths in found.items()}

    def arithmetic(self, layer: Quantizable, bits: LayerBits) -> TrainingArithmetic:
        return self.base.arithmetic(layer, bits)

    def prepare(self, model: nn.Module, bit_map: BitMap | None = None) -> None:
        layers = quantizable(model)
        self._allowed = self.allowed_widths([layer.shape(name) for name, layer in layers.items()])
        slots: dict[str, list[TrainingArithmetic]] = {name: [] for name in layers}
        for index in range(max(map(len, self._allowed.values()))):
            self.base.prepare(model, {n: widths[min(index, len(widths) - 1)] for n, widths in self._allowed.items()})
            for name, slot in training_slots(model).items():
                if 1 < len(self._allowed[name]) > index:
                    slots[name].append(slot or FakeArithmetic([None] * len(layers[name].matrices())))
        for name, several in slots.items():
            if several:
                layers[name].arithmetic = Switch(several)

    def calibrate(self, model: nn.Module, passes: Iterable[object]) -> None:
        self.base.total_steps = self.total_steps
        self.base.calibrate(model, self._in_turn(model, passes))
        self.project_(model, 0)

    def notes(self) -> dict[str, Any]:
        return self.base.notes()

    def penalty(self, model: nn.Module, step: int) -> Tensor:
        """The base's.

        Raises:
            UserError: no gradient passes the base's quantizers, so that training, of which this is a part, is in vain.
        """
        if not self.base.passes_gradients:
            raise UserError(
                f"policy.base: no gradient passes the quantizers of {self._base['name']} with these options, so that "
                "no weight would train; use fake_qat, or with ptq rounding nearest."
            )
        return self.base.penalty(model, step)

    def project_(self, model: nn.Module, step: int) -> None:
        """The base's changes, then widths for the next step; of a model that does not train, the widest."""
        self.base.project_(model, step)
        draw = np.random.default_rng([self._draws, step])
        for _, switch in _switches(model):
            switch.chosen = int(draw.integers(len(switch.arithmetics))) if model.training else 0

    def switch_(self, model: nn.Module, bit_map: BitMap) -> None:
        for name, widths in self._allowed.items():
            if bit_map[name] not in widths:
                bits = f"{bit_map[name].weight}-bit weights with {bit_map[name].activation}-bit activations"
                raise UserError(f"{name}: {bits} are not among the widths that it can be switched to; add them.")
        for name, switch in _switches(model):
            switch.chosen = self._allowed[name].index(bit_map[name])

    def _of(self, layers: BitPatterns) -> QuantPolicy:
        from qstudy.quant.policies import build_policy  # here: it knows this policy, too

        return build_policy({**self._base, "layers": layers})

    def _touching(self, layer: str) -> Iterator[BitPatterns]:
        """Every combination of the listed values that matter to a layer."""
        places = [
            (pattern, field, value)
            for pattern, values in self._lists.items()
            for field, value in values.items()
            if isinstance(value, list) and fnmatchcase(layer, pattern)
        ]
        for picked in product(*(values for _, _, values in places)):
            patterns = {pattern: dict(values) for pattern, values in self.layers.items()}
            for (pattern, field, _), value in zip(places, picked, strict=True):
                patterns[pattern][field] = value
            yield patterns

    def _in_turn(self, model: nn.Module, passes: Iterable[object]) -> Iterator[None]:
        """The batches of calibration, which the widths of a layer share."""
        switches, count = [switch for _, switch in _switches(model)], 0
        most = max((len(switch.arithmetics) for switch in switches), default=1)
        for count, _ in enumerate(passes, 1):
            yield
            for switch in switches:
                switch.chosen = count % len(switch.arithmetics)
        if 0 < count < most:
            raise UserError(f"layers: {most} widths of one layer are more than the {count} batches of calibration.")


def _first(values: Mapping[str, Any], pattern: str) -> dict[str, Any]:
    """A pattern's fields, with the first value of every list."""
    if empty := [field for field, value in values.items() if value == []]:
        raise UserError(f"layers: {pattern}: {empty[0]} is an empty list; give at least one value.")
    return {field: value[0] if isinstance(value, list) else value for field, value in values.items()}


def _widest_first(bits: LayerBits) -> tuple[Any, ...]:
    return -bits.weight, -bits.activation, repr(bits)


def _switches(model: nn.Module) -> Iterator[tuple[str, Switch]]:
    for name, layer in quantizable(model).items():
        if isinstance(layer.arithmetic, Switch):
            yield name, layer.arithmetic
