"""A policy in the user's own file: the README's, as it is printed there, and one with options and a penalty."""

import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from tiny import filled, model_config, packed, speech, talkative
from torch import Tensor, nn

import qstudy
from qstudy.bits import LayerBits
from qstudy.errors import UserError
from qstudy.model import ModelConfig
from qstudy.quant.arithmetic import LSTMState, TrainingArithmetic
from qstudy.quant.arithmetics.by_row import ByRowArithmetic
from qstudy.quant.arithmetics.fake import FakeArithmetic
from qstudy.quant.arithmetics.fixed_point import FixedPointArithmetic
from qstudy.quant.arithmetics.native import NativeArithmetic
from qstudy.quant.fixed_point.operators import FixedPoint
from qstudy.quant.layers import Linear, Quantizable, quantizable
from qstudy.quant.packed.integer import PackedInteger
from qstudy.quant.packed.model import fill_packed
from qstudy.quant.packed.scaled import PackedFake
from qstudy.quant.policies import QuantPolicy, build_policy
from qstudy.quant.policies.native_int import NativeInt
from qstudy.quant.quantizers import FixedActivations, UniformActivations, UniformWeights

README = Path(__file__).parents[1] / "README.md"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the user works: outside the package."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "my_policy", raising=False)
    return tmp_path


def widths(config: dict[str, Any]) -> list[int]:
    return [bits.weight for bits in build_policy(config).bit_map(talkative().shapes()).values()]


def printed() -> tuple[str, dict[str, Any]]:
    """The README's file, and the policy of the command that uses it."""
    text = README.read_text(encoding="utf-8")
    [code] = re.findall(r"```python\n(# my_policy\.py\n.*?)```", text, re.DOTALL)
    [config] = re.findall(r"--policy '(\{name: my_policy\..*?\})'\n", text)
    return code, yaml.safe_load(config)


def test_the_readmes_policy_trains_and_is_packed_as_printed(folder: Path) -> None:
    code, config = printed()
    assert len(code.splitlines()) < 30
    (folder / "my_policy.py").write_text(code)
    model = talkative()
    policy = filled(model, config)
    assert widths(config) == [2, 2, 32, 32, 32, 32, 32]
    calibrated = [m.ratio for m in model.modules() if isinstance(m, UniformWeights)]
    assert len(calibrated) == 4
    assert max(ratio.max() for ratio in calibrated) < 1
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    model.train()
    for step in range(1, 4):
        model(speech(seed=step), torch.full((3,), 80), torch.ones(3, 5, dtype=torch.int64))[
            0
        ].square().mean().backward()
        optimizer.step()
        policy.project_(model, step)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    policy.project_(model, 3)  # as after a resume, and before packing
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    loaded = talkative(seed=9)
    fill_packed(loaded, packed(model.eval(), policy))
    with torch.no_grad():
        inputs = speech(), torch.full((3,), 80), torch.ones(3, 4, dtype=torch.int64)
        expected, actual = model(*inputs)[0], loaded.eval()(*inputs)[0]
    torch.testing.assert_close(actual, expected, rtol=1e-3, atol=1e-3)
    lstm = quantizable(model)["encoder.lstm.0"]
    codes = lstm.arithmetic.weights[0].quantize(lstm.matrices()[0]).integers  # type: ignore[union-attr, index, operator]
    assert codes.unique().tolist() == [-1, 0, 1]


class FromScratch(TrainingArithmetic):
    """Weights and inputs as they are, and what it was told."""

    packed = PackedFake

    def __init__(self) -> None:
        super().__init__()
        self.told: list[str] = []

    def linear(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        self.told.append("a batch")
        return nn.functional.linear(x, weight, bias)

    def lstm(self, x: Tensor, state: LSTMState, weights: Sequence[Tensor]) -> tuple[Tensor, LSTMState]:
        raise NotImplementedError

    def embedding(self, ids: Tensor, weight: Tensor) -> Tensor:
        raise NotImplementedError

    def calibrate(self, matrices: Sequence[Tensor]) -> None:
        self.told.append(f"{len(matrices)} trained")

    def compute_qparams(self, matrices: Sequence[Tensor]) -> None:
        self.told.append(f"{len(matrices)} observed")

    def pack(self, matrices: Sequence[Tensor]) -> dict[str, Tensor]:
        return {"0.float": matrices[0]}


class Scratch(QuantPolicy):
    def arithmetic(self, layer: Quantizable, bits: LayerBits) -> TrainingArithmetic:
        return FromScratch()


def test_an_arithmetic_from_scratch_is_calibrated() -> None:
    model = talkative()
    filled(model, Scratch({"joiner.output": {"activation": 8}}), batches=2)
    slot = quantizable(model)["joiner.output"].arithmetic
    assert isinstance(slot, FromScratch)
    assert slot.told == ["1 trained", "a batch", "a batch", "1 observed"]


class PackedClipped(PackedInteger):
    """Integers whose outputs are cut off."""

    def linear(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return super().linear(x, weight, bias).clamp(-0.05, 0.05)

    def lstm(self, x: Tensor, state: LSTMState, weights: Sequence[Tensor]) -> tuple[Tensor, LSTMState]:
        y, after = super().lstm(x, state, weights)
        return y.clamp(-0.05, 0.05), after


class Clipped(NativeArithmetic):
    """The same in training."""

    packed = PackedClipped

    def linear(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return super().linear(x, weight, bias).clamp(-0.05, 0.05)

    def lstm(self, x: Tensor, state: LSTMState, weights: Sequence[Tensor]) -> tuple[Tensor, LSTMState]:
        y, after = super().lstm(x, state, weights)
        return y.clamp(-0.05, 0.05), after


class ClippedPolicy(NativeInt):
    def arithmetic(self, layer: Quantizable, bits: LayerBits) -> TrainingArithmetic:
        native = super().arithmetic(layer, bits)
        assert isinstance(native, NativeArithmetic)
        return Clipped(list(native.weights), native.inputs, native.hidden)


AMORTIZED = {"name": "amortized", "hidden": 16, "layers": 2, "stack": 2, "reduction": 2, "rank": 5}


@pytest.mark.parametrize("encoder", [model_config().encoder, AMORTIZED], ids=lambda encoder: encoder["name"])
@torch.no_grad()
def test_a_packed_arithmetic_derived_from_ours_is_run(encoder: dict[str, Any]) -> None:
    """Whatever the number of rows: no program of ours stands in for it."""
    config = ModelConfig(encoder, model_config().predictor, model_config().joiner)
    model = talkative(config)
    policy = filled(model, ClippedPolicy({"encoder.*": {"weight": 8, "activation": 8}}))
    fill_packed(loaded := talkative(config, seed=9).eval(), packed(model, policy, config))
    for batch in (1, 70):
        features, lengths = speech(batch=batch, frames=24), torch.full((batch,), 24)
        expected = model.encoder(features, lengths)[0]
        assert torch.equal(loaded.encoder(features, lengths)[0], expected)
        assert expected.abs().max() == 0.05 or encoder is AMORTIZED


@pytest.mark.parametrize("base", [FakeArithmetic, NativeArithmetic, ByRowArithmetic, FixedPointArithmetic])
@torch.no_grad()
def test_an_own_linear_is_what_is_repeated(base: type[FakeArithmetic]) -> None:
    class Own(base):  # type: ignore[valid-type, misc]
        def linear(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
            return super().linear(x, weight, bias).clamp(-0.05, 0.05)  # type: ignore[no-any-return]

    layer, x = Linear(5, 7), torch.randn(4, 5)
    options = {"spec": FixedPoint()} if base is FixedPointArithmetic else {}
    layer.arithmetic = Own([UniformWeights(layer.weight, 8, "channel", "max")], FixedActivations(8, 4.0), **options)
    assert layer(x).abs().max() == 0.05
    assert torch.equal(layer.repeated()(x), layer(x))


def test_what_no_device_could_run_is_refused_before_the_training(folder: Path) -> None:
    (folder / "own_policy.py").write_text(OWN)
    policy = build_policy({"name": "own_policy.Penalized", "layers": {"encoder.*": {"weight": 2, "activation": 8}}})
    said = r"Penalized: bit_map\.encoder\.lstm\.0: .*`weights_only` does not take lstm .* activations of 8; change"
    with pytest.raises(UserError, match=said):
        policy.prepare(talkative())


class Fixed(QuantPolicy):
    """A range that nobody has to look for."""

    def activation_quantizer(self, bits: LayerBits) -> FixedActivations:
        return FixedActivations(bits.activation, 4.0)

    def calibrate(self, model: nn.Module, passes: Iterable[object]) -> None:
        """Nothing to fit."""


def test_a_policy_that_fits_nothing_is_calibrated() -> None:
    policy = Fixed({"*": {"weight": 4, "activation": 8}})
    model = qstudy.quantize(nn.Sequential(nn.Linear(5, 7)), policy)
    assert isinstance(qstudy.calibrate(model, [torch.randn(4, 5)])[0].arithmetic, FakeArithmetic)
    with pytest.raises(UserError, match="none of them reached 0"):
        qstudy.calibrate(model, [])


class Forgetful(QuantPolicy):
    """It says nothing of when activations are quantized."""

    def project_(self, model: nn.Module, step: int) -> None:
        """Nothing to change."""


@torch.no_grad()
def test_activations_of_an_own_policy_are_calibrated_and_quantized() -> None:
    x = torch.randn(16, 5) * 3
    model = qstudy.quantize(nn.Sequential(nn.Linear(5, 7)), Forgetful({"*": {"activation": 4}}))
    y = qstudy.calibrate(model, [x])(x)
    scale = x.abs().max() / 7
    torch.testing.assert_close(y, nn.functional.linear((x / scale).round() * scale, model[0].weight, model[0].bias))


class Observed(QuantPolicy):
    """The hidden state's range is looked for as well, though it is known."""

    def bounded_quantizer(self, bits: LayerBits) -> UniformActivations:
        return UniformActivations(bits.activation)


class ObservedIntegers(Observed, NativeInt):
    """In integers."""


@torch.no_grad()
@pytest.mark.parametrize("kind", [Observed, ObservedIntegers])
def test_an_own_range_of_a_hidden_state_is_observed(kind: type[QuantPolicy]) -> None:
    x = torch.randn(3, 9, 5)
    model = qstudy.quantize(nn.Sequential(nn.LSTM(5, 7, batch_first=True)), kind({"*": {"weight": 8, "activation": 8}}))
    y = qstudy.calibrate(model, [x])(x)[0]
    hidden = model[0].l0.arithmetic.hidden
    assert float(hidden.scale) * 127 == pytest.approx(float(y.abs().max()), rel=0.05)


class OneScalePerRow(QuantPolicy):
    """Whatever was asked for."""

    def weight_quantizer(self, matrix: Tensor, bits: LayerBits) -> UniformWeights:
        return UniformWeights(matrix, bits.weight, "channel", "max")


def test_a_quantizer_that_does_not_follow_the_widths_is_told_before_a_file_is_written() -> None:
    model = talkative()
    policy = filled(model, OneScalePerRow(layers={"*": {"weight": 4, "granularity": "group", "group": 8}}))
    with pytest.raises(UserError, match=r"packing: encoder.lstm.0.0.scale is .*must be .*; quantizers must follow"):
        packed(model, policy)


def test_messages_call_a_policy_as_its_configuration_does() -> None:
    layers, shapes = {"*": {"weight": 4, "quantizer": "codebook"}}, talkative().shapes()
    for name in ("ptq", "native_int", "int4_e2e"):
        with pytest.raises(UserError, match=f"quantizer: {name} has no codebook"):
            build_policy({"name": name, "layers": layers}).bit_map(shapes)
    with pytest.raises(UserError, match="quantizer: NativeInt has no codebook"):
        NativeInt(layers).bit_map(shapes)


class Full(FixedActivations):
    """All 2**bits levels, none of which is shifted."""

    def __init__(self, bits: int) -> None:
        super().__init__(bits)
        self.low = -self.high - 1


@pytest.mark.parametrize("made", [FakeArithmetic, NativeArithmetic])
@torch.no_grad()
def test_integers_that_no_device_has_are_not_packed(made: type[FakeArithmetic]) -> None:
    matrix, said = torch.randn(7, 5), "its Full has the integers from -2 to 1, but a device those from -1 to 1; set"
    arithmetic = made([UniformWeights(matrix, 4, "channel", "max")], Full(2))
    with pytest.raises(UserError, match=said):
        arithmetic.pack([matrix])
    with pytest.raises(UserError, match=said):
        NativeArithmetic(list(arithmetic.weights), Full(2)).linear(torch.randn(3, 5), matrix, None)
    arithmetic.inputs = UniformActivations(2, symmetric=False)  # with a zero point of 0 yet
    assert "activation" in arithmetic.pack([matrix])


OWN = '''
import torch
from qstudy.quant.arithmetics.fake import FakeArithmetic
from qstudy.quant.quantizers import UniformWeights
from qstudy.quant.policies import QuantPolicy

class Penalized(QuantPolicy):
    """Eight bits with max ranges and a pull towards zero."""

    def __init__(self, layers, strength=0.1):
        super().__init__(layers)
        self.strength = strength

    def arithmetic(self, layer, bits):
        return FakeArithmetic([UniformWeights(m, bits.weight, bits.granularity, "max") for m in layer.matrices()])

    def penalty(self, model, step):
        return self.strength * sum(p.square().sum() for p in model.parameters())
'''


def test_a_policy_with_options_and_a_penalty(folder: Path) -> None:
    (folder / "own_policy.py").write_text(OWN)
    config = {"name": "own_policy.Penalized", "layers": {"encoder.*": {"weight": 5}}, "strength": 2.0}
    model = talkative()
    policy = filled(model, config)
    assert widths(config) == [5, 5, 32, 32, 32, 32, 32]
    assert isinstance(quantizable(model)["encoder.lstm.0"].arithmetic, FakeArithmetic)
    expected = 2 * sum(float(p.detach().square().sum()) for p in model.parameters())
    assert float(policy.penalty(model, 0).detach()) == pytest.approx(expected, rel=1e-4)
    assert widths({"name": "mixed", "base": "own_policy.Penalized", "layers": {"*": {"weight": 2}}}) == [2] * 7
    with pytest.raises(UserError, match="strength"):
        build_policy({**config, "strenght": 1})
