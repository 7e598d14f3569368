"""torch's layers and their quantizable twins: which becomes which, and what stays as it is."""

from torch import nn

from qstudy.quant.conv import Conv1d
from qstudy.quant.deep_lstm import DeepLSTM
from qstudy.quant.layers import UNKNOWN, Embedding, Linear, Quantizable, quantizable
from qstudy.quant.operators import LayerNorm

TWINS: dict[type[nn.Module], type[nn.Module]] = {
    nn.Linear: Linear,
    nn.Embedding: Embedding,
    nn.Conv1d: Conv1d,
    nn.LSTM: DeepLSTM,
    nn.LayerNorm: LayerNorm,
}
"""torch's layer -> ours. Other classes, those derived from these among them, stay as they are: their forward pass may
be anything."""


def convert_layers(model: nn.Module) -> None:
    """Turn torch's layers into their quantizable twins, with empty slots: the very same objects, of another class."""
    for layer in quantizable(model).values():
        layer.arithmetic = None
    for module in list(model.modules()):
        twin = TWINS.get(type(module))
        if twin is None or not _convertible(module):
            continue
        object.__setattr__(module, "__class__", twin)
        if isinstance(module, DeepLSTM):
            module.add_directions()
        else:
            module.arithmetic, module.rate = None, UNKNOWN  # type: ignore[assignment]


def _convertible(module: nn.Module) -> bool:
    """Whether a layer of torch's class computes as its twin does: an LSTM that projects its hidden state, a table that
    renormalizes its rows or has gradients of its own kind (sparse, by frequency), a normalization over several
    dimensions or without a bias, and a weight that is computed (weight norm, pruning) do not."""
    own, normalized = module._parameters, getattr(module, "normalized_shape", None)
    plain = "weight" in own or "weight_ih_l0" in own
    vectors = normalized is None or (len(normalized) == 1 and own.get("bias") is not None and "weight" in own)
    own_ways = any(getattr(module, name, False) for name in ("proj_size", "scale_grad_by_freq", "sparse"))
    return plain and vectors and not own_ways and getattr(module, "max_norm", None) is None


def left_in_float(model: nn.Module) -> list[str]:
    """Modules with a matrix of their own that nothing quantizes, with their class."""
    return [
        f"{name or 'the model'} ({type(module).__name__})"
        for name, module in model.named_modules()
        if not isinstance(module, Quantizable | DeepLSTM)
        and any(parameter.dim() > 1 for parameter in module.parameters(recurse=False))
    ]


def leave_fast_paths(model: nn.Module) -> None:
    """Torch's fused transformer layer reads the weights of its linear layers itself, past their slots; and nested
    tensors, which an encoder makes of padded batches for it, are nothing that quantizers can look at."""
    for module in model.modules():
        if isinstance(module, nn.TransformerEncoder):
            module.use_nested_tensor = False
        if isinstance(module, nn.TransformerEncoderLayer):
            module.activation_relu_or_gelu = 0
