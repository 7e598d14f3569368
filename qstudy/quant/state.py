"""What a model stores: its quantizable layers, and all else that it was given or has learned."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from qstudy.bits import LayerShape
from qstudy.errors import UserError
from qstudy.quant.layers import UNKNOWN, Quantizable, Rate, quantizable
from qstudy.quant.operators import LSTMCell

STORABLE = (
    torch.float64,
    torch.float32,
    torch.float16,
    torch.int64,
    torch.int32,
    torch.int16,
    torch.int8,
    torch.uint8,
    torch.bool,
)
"""Types that a packed file holds."""
LARGEST = 1e30
"""Of any stored number; beyond, products in float32 end in infinity."""


def is_bounded(tensor: Tensor) -> bool:
    """Whether every number of a tensor (...) is finite and at most `LARGEST`, which float16 takes for infinity."""
    return not tensor.is_floating_point() or bool((tensor.isfinite() & (tensor.abs() <= LARGEST)).all())


def other_state(model: nn.Module) -> dict[str, dict[str, Tensor]]:
    """Parameters and persistent buffers that are in no quantizable layer, as they are, by module and by name in it.

    A tensor that several modules share is listed once, with the first of them.

    Raises:
        UserError: a module keeps what no packed file holds.
    """
    layers = quantizable(model)
    slots = {part for layer in layers.values() if layer.arithmetic for part in layer.arithmetic.modules()}
    found: dict[str, dict[str, Tensor]] = {}
    seen: set[int] = set()
    for name, module in model.named_modules():
        if module not in slots and (own := _own_state(name, module, seen)):
            found[name] = own
    return found


def _own_state(name: str, module: nn.Module, seen: set[int]) -> dict[str, Tensor]:
    """A module's own part; `seen` tensors are left out, and added to."""
    matrices_and_bias = getattr(module, "twin_state", ())
    state = module.state_dict(keep_vars=True)  # lists what persists
    own = {key: each for key, each in state.items() if "." not in key and key not in matrices_and_bias}
    for key, each in own.items():
        if isinstance(module, Quantizable):
            raise UserError(f"{name}: a quantizable layer keeps matrices and a bias alone; put {key} beside it.")
        if not isinstance(each, Tensor) or each.dtype not in STORABLE:
            kind = each.dtype if isinstance(each, Tensor) else type(each).__name__
            raise UserError(f"{name}: {key} is of the type {kind}, which no packed model holds; use another.")
    own = {key: each for key, each in own.items() if id(each) not in seen}
    seen.update(map(id, own.values()))
    return own


def full_name(module: str, key: str) -> str:
    """Of a tensor in a model's `state_dict`."""
    return f"{module}.{key}" if module else key


def free_buffers(model: nn.Module) -> set[str]:
    """Full names of buffers outside the layers: they may hold any number, as masks of minus infinity do."""
    return {
        full_name(name, key)
        for name, own in other_state(model).items()
        for key, each in own.items()
        if not isinstance(each, nn.Parameter)
    }


def layer_shapes(model: nn.Module, rate: Callable[[str], Rate] = lambda name: UNKNOWN) -> list[LayerShape]:
    """What size and speed depend on, in the model's order: layers, cells without a slot, and constants for all else
    that is stored.

    Args:
        model: on any device, "meta" included.
        rate: how often a module outside the layers runs, by its name; one that has a `Rate` of its own knows better.
    """
    layers, others = quantizable(model), other_state(model)
    shapes = []
    for name, module in model.named_modules():
        if name in layers:
            shapes.append(layers[name].shape(name))
        elif isinstance(module, LSTMCell):
            shapes.append(module.shape(name))
        elif name in others:
            own = getattr(module, "rate", None)
            shapes.append(_constant(name, others[name], own if isinstance(own, Rate) else rate(name)))
    return shapes


def _constant(name: str, own: dict[str, Tensor], rate: Rate) -> LayerShape:
    floats = sum(each.numel() for each in own.values() if each.dtype == torch.float32)
    rest = sum(each.nbytes for each in own.values() if each.dtype != torch.float32)
    return LayerShape(name, "constant", vectors=floats, other_bytes=rest, **rate._asdict())
