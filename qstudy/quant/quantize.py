"""Any `torch.nn` model, quantized: `quantize`, `calibrate`, `pack`, `load_into`.

`quantize` only turns torch's layers into their quantizable twins, whose slots are empty: the model computes what it
computed. `calibrate` fills the slots, fits them to a few batches, and from then on the model is quantized.
"""

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from qstudy.bits import FLOAT, LayerShape, matching
from qstudy.errors import UserError
from qstudy.fields import checked, type_hints
from qstudy.hardware.size import size_bytes as packed_size
from qstudy.quant.deep_lstm import DeepLSTM
from qstudy.quant.layers import Quantizable, Rate, quantizable
from qstudy.quant.packed.layer import PackedArithmetic
from qstudy.quant.packed.model import PackedModel, fill_packed, pack_model
from qstudy.quant.policies import QuantPolicy, build_policy
from qstudy.quant.quantizers import activation_quantizers
from qstudy.quant.state import layer_shapes
from qstudy.quant.twins import TWINS, convert_layers, leave_fast_paths, left_in_float
from qstudy.quant.watching import watching

Model = TypeVar("Model", bound=nn.Module)
Batches = Iterable[Any] | Callable[[nn.Module], Any]
Rates = float | Mapping[str, float | Rate] | None


def quantize(model: Model, policy: QuantPolicy | Mapping[str, Any], rates: Rates = None) -> Model:
    """Turn the layers of any model into quantizable ones, in place.

    `nn.Linear`, `nn.Embedding`, `nn.Conv1d` and `nn.LSTM` (each layer and direction by itself: `lstm.l0`,
    `lstm.l0_reverse`) get the slots that `policy` fills in `calibrate`. Until then the output is the same to the bit,
    and parameters keep their names, so that a `state_dict` of before loads. What stays in float although it holds a
    matrix is named in a warning.

    Args:
        model: changed in place, and returned. Its `quant_policy` is the policy: in a training, set its `total_steps`
            (schedules are shares of it), add `model.quant_policy.penalty(model, step)` to the loss, and call
            `model.quant_policy.project_(model, step)` after each optimizer step.
        policy: as in a run's configuration, `{"name": "native_int", "layers": {"*": {"weight": 8, "activation": 8}}}`,
            or a policy of your own.
        rates: how often layers run, for the simulator: once per so many milliseconds of audio, for all layers or by
            glob patterns over their names; `Rate(per_label=1)` for those that run once per label. Without it a latency
            is not known.

    Raises:
        UserError: the model is a packed one, has no such layers, or other weights than float32; an unknown policy or
            option, a pattern that matches no layer, a rate that is no number above 0.

    Example:
        >>> model = torch.nn.Sequential(torch.nn.Linear(40, 64), torch.nn.ReLU(), torch.nn.Linear(64, 10))
        >>> policy = {"name": "native_int", "layers": {"*": {"weight": 8, "activation": 8}}}
        >>> model = qstudy.quantize(model, policy, rates=10.0)
        >>> [name for name, _ in model.named_parameters()]
        ['0.weight', '0.bias', '2.weight', '2.bias']
    """
    built = policy if isinstance(policy, QuantPolicy) else build_policy(policy)
    _require_floats(model)
    _require_float32(model)
    convert_layers(model)
    _set_rates(model, rates)
    built.bit_map(layer_shapes(model))  # what is wrong with it is said now
    object.__setattr__(model, "quant_policy", built)
    if left := left_in_float(model):
        warnings.warn(f"These layers have no quantizable twin and stay in float: {', '.join(left)}.", stacklevel=2)
    return model


def calibrate(model: Model, batches: Batches) -> Model:
    """Fill the slots of a quantized model and fit them to data; weights are those that the model has now.

    Args:
        model: from `quantize`. It runs in evaluation mode, without gradients.
        batches: inputs, one `model(batch)` each (a tuple is several arguments); or a function of the model that runs
            it, where its call is another.

    Returns:
        The model, which computes in the policy's arithmetic from now on.

    Raises:
        UserError: the model does not come from `quantize`, its weights are not finite or not float32, or no batch
            reached a layer whose activations are to be quantized.

    Example:
        >>> model = torch.nn.Sequential(torch.nn.Linear(40, 64), torch.nn.ReLU(), torch.nn.Linear(64, 10))
        >>> policy = {"name": "native_int", "layers": {"*": {"weight": 8, "activation": 8}}}
        >>> model = qstudy.calibrate(qstudy.quantize(model, policy), [torch.randn(16, 40) for _ in range(4)])
    """
    policy = policy_of(model)
    _require_float32(model)
    with torch.inference_mode(False):  # what is made within it could neither be trained nor cached
        policy.prepare(model)
        leave_fast_paths(model)
        with watching(model), _reached(model) as reached, torch.no_grad():
            passes = _passes(model, batches)
            policy.calibrate(model, passes)
            for _ in passes:  # a policy that needs none has left them
                pass
    bit_map = policy.bit_map(layer_shapes(model))
    for name, layer in quantizable(model).items():
        if layer not in reached and bit_map[name].activation != FLOAT and layer.shape(name).activations:
            raise UserError(f"batches: none of them reached {name}, whose activations are to be quantized; add one.")
    return model


def pack(model: nn.Module) -> PackedModel:
    """What a device gets of a calibrated or trained model: integers, scales, and what is left in float.

    Args:
        model: from `quantize`, then `calibrate`.

    Returns:
        The packed model: `save(path)` writes it, `size_bytes` is what it takes; `load(path, into=model)` runs it.

    Raises:
        UserError: the model does not come from `quantize`, or holds a number that is not finite.

    Example:
        >>> model = torch.nn.Sequential(torch.nn.Linear(40, 64), torch.nn.ReLU(), torch.nn.Linear(64, 10))
        >>> model = qstudy.quantize(model, {"name": "ptq", "layers": {"*": {"weight": 4}}})
        >>> qstudy.pack(qstudy.calibrate(model, [])).size_bytes  # (64 * 40 + 10 * 64) / 2, and 74 scales and biases
        2192
    """
    shapes = layer_shapes(model)
    policy = policy_of(model)
    bit_map = policy.bit_map(shapes)
    unfilled = [name for name, each in quantizable(model).items() if bit_map[name].quantized and not each.arithmetic]
    if unfilled:
        raise UserError(f"{unfilled[0]} is not quantized yet; call qstudy.calibrate(model, batches) first.")
    policy.switch_(model, bit_map)
    return pack_model(model, bit_map, shapes, {})


def size_bytes(model: nn.Module) -> int:
    """Bytes that `pack` will take, to the byte; known as soon as `quantize` was called.

    Raises:
        UserError: the model does not come from `quantize`.

    Example:
        >>> model = torch.nn.Sequential(torch.nn.Linear(40, 64), torch.nn.ReLU(), torch.nn.Linear(64, 10))
        >>> qstudy.size_bytes(qstudy.quantize(model, {"name": "ptq", "layers": {"*": {"weight": 4}}}))
        2192
    """
    shapes = layer_shapes(model)
    return packed_size(shapes, policy_of(model).bit_map(shapes))


def load_into(model: Model, path: str | Path) -> Model:
    """Turn a freshly built float model into the packed one of a file, in place: its float matrices go, integers come.

    Raises:
        UserError: the file is missing or damaged, or of another model.
    """
    packed = PackedModel.load(path)
    convert_layers(model)
    layers = quantizable(model)
    for shape in packed.shapes:
        if shape.name in layers:
            layers[shape.name].rate = Rate(*(getattr(shape, field) for field in Rate._fields))
    fill_packed(model, packed)
    leave_fast_paths(model)
    return model.eval()


def policy_of(model: nn.Module) -> QuantPolicy:
    """The policy that `quantize` gave a model.

    Raises:
        UserError: it gave none.
    """
    policy = vars(model).get("quant_policy")
    if not isinstance(policy, QuantPolicy):
        raise UserError(f"This {type(model).__name__} has no policy; call qstudy.quantize(model, policy) first.")
    return policy


def _require_floats(model: nn.Module) -> None:
    for name, layer in quantizable(model).items():
        if isinstance(layer.arithmetic, PackedArithmetic):
            raise UserError(f"{name} is packed, and has no float weights; quantize a model that was not loaded.")


def _require_float32(model: nn.Module) -> None:
    for name, layer in model.named_modules():
        if isinstance(layer, Quantizable | DeepLSTM) or type(layer) in TWINS:
            for parameter in layer.parameters(recurse=False):
                if parameter.dtype != torch.float32:
                    kind = str(parameter.dtype).removeprefix("torch.")
                    raise UserError(f"{name or 'the model'}: its weights are {kind}; call model.float() first.")


def _set_rates(model: nn.Module, rates: Rates) -> None:
    layers = quantizable(model)
    patterns: Mapping[str, float | Rate] = (
        rates if isinstance(rates, Mapping) else {} if rates is None else {"*": rates}
    )
    for pattern, value in patterns.items():
        rate = value if isinstance(value, Rate) else Rate(every_ms=value)
        for field, number in rate._asdict().items():
            checked(type_hints(LayerShape)[field], number, f"rates.{pattern}: {field}")
        for name in matching(pattern, layers, "rates"):
            layers[name].rate = rate


@contextmanager
def _reached(model: nn.Module) -> Iterator[set[nn.Module]]:
    """Yields the layers that ran within."""
    reached: set[nn.Module] = set()
    layers = quantizable(model).values()
    hooks = [  # of the quantizers too: some layers hand out their product, without a `forward` of their own
        part.register_forward_hook(lambda *_, layer=layer: reached.add(layer))
        for layer in layers
        for part in (layer, *activation_quantizers(layer))
    ]
    try:
        yield reached
    finally:
        for hook in hooks:
            hook.remove()


def _passes(model: nn.Module, batches: Batches) -> Iterator[None]:
    if callable(batches):
        batches(model)
        yield
        return
    for batch in batches:
        model(*batch) if isinstance(batch, tuple) else model(batch)
        yield
