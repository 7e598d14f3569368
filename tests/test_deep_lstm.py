"""The quantizable LSTM of any depth and direction: torch's own with empty slots, layer by layer with filled ones."""

import copy
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_sequence

from qstudy.errors import UserError
from qstudy.quant.deep_lstm import DeepLSTM
from qstudy.quant.layers import quantizable
from qstudy.quant.policies import build_policy

FORMS: dict[str, dict[str, Any]] = {
    "one": {},
    "deep": {"num_layers": 3, "batch_first": True},
    "both ways": {"num_layers": 2, "bidirectional": True},
    "without bias": {"num_layers": 2, "bias": False, "batch_first": True},
}


def made(form: str) -> DeepLSTM:
    torch.manual_seed(0)
    layer = DeepLSTM(5, 7, **FORMS[form])
    layer.add_directions()
    return layer


def filled(layer: DeepLSTM, x: torch.Tensor, widths: dict[str, Any], policy: str = "native_int") -> DeepLSTM:
    model = nn.ModuleDict({"lstm": layer})
    built = build_policy({"name": policy, "layers": widths})
    built.prepare(model)
    model.train()
    with torch.no_grad():
        built.calibrate(model, (layer(x) for _ in range(2)))
    model.eval()
    return layer


@pytest.mark.parametrize("form", FORMS)
def test_empty_slots_are_torch(form: str) -> None:
    ours, twin = made(form), nn.LSTM(5, 7, **FORMS[form])
    twin.load_state_dict(ours.state_dict())  # the same names, too
    x = torch.randn(4, 4, 5)
    state = (torch.randn(len(list(ours.children())), 4, 7),) * 2
    for given in (None, state):
        (y, (h, c)), (y2, (h2, c2)) = ours(x, given), twin(x, given)
        assert torch.equal(y, y2)
        assert torch.equal(h, h2)
        assert torch.equal(c, c2)


@pytest.mark.parametrize("form", FORMS)
def test_layer_by_layer_is_torch_within_rounding(form: str) -> None:
    """One slot filled, so that the others are run one by one, in float; its own 16 bits hardly round."""
    layer, twin = made(form), made(form)
    x = torch.randn(4, 4, 5)
    filled(layer, x, {"lstm.l0": {"weight": 16}})
    state = (torch.randn(len(list(twin.children())), 4, 7),) * 2
    for given in (None, state):
        (y, after), (expected, last) = layer(x, given), twin(x, given)
        torch.testing.assert_close(y, expected, rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(after, last, rtol=1e-3, atol=1e-4)


def test_one_utterance_is_a_batch_of_one() -> None:
    x = torch.randn(6, 1, 5)
    layer = filled(made("both ways"), x, {"*": {"weight": 4, "activation": 8}})
    (y, (h, c)), (alone, (h1, c1)) = layer(x), layer(x[:, 0])
    assert torch.equal(y[:, 0], alone)
    assert torch.equal(h[:, 0], h1)
    assert torch.equal(c[:, 0], c1)


def test_each_layer_and_direction_has_its_own_widths_and_quantizers() -> None:
    x = torch.randn(6, 2, 5)
    layer = filled(made("both ways"), x, {"*": {"weight": 8, "activation": 8}, "lstm.l1*": {"weight": 2}}, "ptq")
    names = list(quantizable(nn.ModuleDict({"lstm": layer})))
    assert names == ["lstm.l0", "lstm.l0_reverse", "lstm.l1", "lstm.l1_reverse"]
    assert [each.arithmetic.weights[0].bits for each in layer.children()] == [8, 8, 2, 2]
    scales = [float(each.arithmetic.inputs.scale) for each in layer.children()]
    assert scales[0] == scales[1] != scales[2]  # both directions of a layer see the same inputs


def test_gradients_reach_every_parameter() -> None:
    x = torch.randn(6, 2, 5)
    layer = filled(made("both ways"), x, {"*": {"weight": 8, "activation": 8}}, "fake_qat").train()
    layer(x)[0].square().sum().backward()
    names = dict(nn.LSTM(5, 7, **FORMS["both ways"]).named_parameters())
    assert all(float(layer.get_parameter(name).grad.abs().sum()) > 0 for name in names)


def test_packed_sequences() -> None:
    sequence = pack_sequence([torch.randn(4, 5), torch.randn(2, 5)])
    layer, twin = made("one"), nn.LSTM(5, 7)
    twin.load_state_dict(layer.state_dict())
    assert torch.equal(layer(sequence)[0].data, twin(sequence)[0].data)
    filled(layer, torch.randn(4, 2, 5), {"*": {"weight": 8}})
    with pytest.raises(UserError, match="packed sequence"):
        layer(sequence)


def test_copies_are_their_own() -> None:
    layer = made("deep")
    twin = copy.deepcopy(layer)
    with torch.no_grad():
        layer.weight_ih_l0.zero_()
    assert twin.get_submodule("l0").matrices()[0].any()
    for each in twin.children():
        each.drop_matrices()
    assert {name for name, _ in twin.named_parameters()} == {
        f"bias_{kind}_l{i}" for kind in ("ih", "hh") for i in range(3)
    }
    assert layer.weight_hh_l0.any()
