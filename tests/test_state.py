"""What a model stores outside its quantizable layers comes back from the packed file, bit for bit and counted."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from qstudy.bits import LayerBits
from qstudy.errors import UserError
from qstudy.hardware.size import layer_bytes, size_bytes
from qstudy.hardware.workload import layer_operators
from qstudy.quant.layers import Linear
from qstudy.quant.packed.model import PackedModel, fill_float, fill_packed, pack_model
from qstudy.quant.policies import build_policy
from qstudy.quant.state import layer_shapes, other_state


class Mixture(nn.Module):
    """Quantizable layers, torch's own, tied weights, buffers of several types, a parameter of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(3))
        self.norm = nn.LayerNorm(6)
        self.first = Linear(6, 6)
        self.conv = nn.Conv1d(6, 6, 3, padding=1)
        self.batch = nn.BatchNorm1d(6)
        self.left, self.right = nn.Linear(6, 6), nn.Linear(6, 6, bias=False)
        self.right.weight = self.left.weight
        self.register_buffer("mask", torch.zeros(4, 4))
        self.register_buffer("flags", torch.tensor([True, False, True]))
        self.register_buffer("scratch", torch.zeros(9), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map x (B, T, 6) to the same shape."""
        x = self.conv(self.first(self.norm(x)).transpose(1, 2))
        result: Tensor = self.right(self.left(self.batch(x).transpose(1, 2))) * self.gain.sum()
        return result


def learned(seed: int = 3) -> Mixture:
    torch.manual_seed(seed)
    model = Mixture()
    for parameter in model.parameters():
        nn.init.normal_(parameter)
    nn.init.constant_(model.norm.weight, 3.0)
    model(torch.randn(5, 7, 6))  # the batch's statistics
    model.mask.fill_(-torch.inf)
    model.flags.logical_not_()
    return model.eval()


def packed(model: nn.Module, weight: int) -> PackedModel:
    policy = build_policy({"name": "ptq", "layers": {"*": {"weight": weight}}} if weight < 32 else {"name": "float"})
    policy.prepare(model)
    shapes = layer_shapes(model)
    return pack_model(model, policy.bit_map(shapes), shapes, {})


@pytest.mark.parametrize("weight", [4, 32])
def test_all_of_it_comes_back(tmp_path: Path, weight: int) -> None:
    model = learned()
    packed(model, weight).save(tmp_path / "model.qst")
    again = Mixture().eval()
    fill_packed(again, PackedModel.load(tmp_path / "model.qst"))
    floats = Mixture()
    fill_float(floats, again)
    for filled_model in (again, floats):
        found = other_state(filled_model)
        for name, own in other_state(model).items():
            assert own.keys() == found[name].keys()
            for key, value in own.items():
                assert found[name][key].dtype == value.dtype
                assert torch.equal(found[name][key], value), (name, key)
        assert filled_model.right.weight is filled_model.left.weight
    x = torch.randn(2, 5, 6)
    torch.testing.assert_close(again(x), model(x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("weight", [4, 32])
def test_its_bytes_are_known_before_training(weight: int) -> None:
    with torch.device("meta"):
        shapes = layer_shapes(Mixture())
    bits = {"first": LayerBits(weight=weight)}
    file = packed(learned(), weight)
    assert (
        file.size_bytes
        == size_bytes(shapes, bits)
        == sum(layer_bytes(each, bits.get(each.name, LayerBits())) for each in shapes)
    )
    assert [shape.name for shape in shapes] == ["", "norm", "first", "conv", "batch", "left"]
    assert file.shapes == shapes


def test_the_simulator_reads_it() -> None:
    constants = {
        shape.name: layer_operators(shape)[0].constants for shape in layer_shapes(Mixture()) if not shape.matrices
    }
    assert constants == {"": 3 + 16 + 1, "norm": 12, "conv": 6 * 6 * 3 + 6, "batch": 24 + 2, "left": 42}


def smaller() -> Mixture:
    model = Mixture()
    model.norm = nn.LayerNorm(6, bias=False)
    return model


def with_more() -> Mixture:
    model = Mixture()
    model.extra = nn.LayerNorm(2)
    return model


def with_less() -> Mixture:
    model = Mixture()
    model.norm = nn.Identity()
    return model


def renamed() -> Mixture:
    model = Mixture()
    model.norm = nn.Module()
    model.norm.gain, model.norm.bias = nn.Parameter(torch.ones(6)), nn.Parameter(torch.ones(6))
    return model


def of_another_type() -> Mixture:
    model = Mixture()
    model.batch.num_batches_tracked = torch.zeros(2, dtype=torch.int32)
    return model


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (smaller, r"norm is of another size"),
        (with_more, r"extra is missing"),
        (with_less, r"norm is too much"),
        (renamed, r"norm\.gain is missing"),
        (of_another_type, r"batch\.num_batches_tracked is int64 \[\], but must be int32 \[2\]"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_another_model_is_refused_by_name(other: type[Mixture], said: str) -> None:
    with pytest.raises(UserError, match=said):
        fill_packed(other(), packed(learned(), 4))


def test_what_no_file_holds_is_named() -> None:
    model = Mixture()
    model.norm.half()
    model.conv.to(torch.bfloat16)
    with pytest.raises(UserError, match=r"conv: weight is of the type torch\.bfloat16"):
        layer_shapes(model)
    model = Mixture()
    model.first.register_buffer("seen", torch.zeros(1))
    with pytest.raises(UserError, match="first: a quantizable layer keeps"):
        layer_shapes(model)


def test_a_parameter_that_is_not_finite_is_named() -> None:
    model = learned()
    nn.init.constant_(model.norm.weight, torch.nan)
    with pytest.raises(UserError, match=r"norm\.weight holds a number that is not finite"):
        packed(model, 4)


@pytest.mark.parametrize("name", ["gain", "norm.weight", "first.weight", "first.bias"])
@pytest.mark.parametrize("weight", [4, 32])
def test_what_no_file_may_hold_is_not_packed(name: str, weight: int) -> None:
    model = learned()
    nn.init.constant_(model.get_parameter(name), torch.finfo(torch.float32).min)
    with pytest.raises(UserError, match=r"holds a number that is not finite, or above 1e\+30, so it cannot be packed"):
        packed(model, weight)


def test_infinity_of_half_precision_is_not_packed() -> None:
    model = learned()
    model.gain = nn.Parameter(torch.full((3,), torch.inf, dtype=torch.float16))
    with pytest.raises(UserError, match="gain holds a number"):
        packed(model, 4)


def test_the_model_s_own_state_has_no_name_before_it() -> None:
    file = packed(learned(), 4)
    file.tensors["gain"] = torch.full((3,), torch.inf)
    with pytest.raises(UserError, match=r": gain holds a number"):
        fill_packed(Mixture(), file)
