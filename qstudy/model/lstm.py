"""How LSTM layers begin, wherever they are in a model."""

import torch

from qstudy.quant.layers import LSTM


@torch.no_grad()
def open_forget_gate(layer: LSTM) -> LSTM:
    """Start with the forget gate open, so that gradients reach far back (Jozefowicz et al. 2015)."""
    hidden = layer.hidden_size
    layer.bias_ih_l0.zero_()
    layer.bias_hh_l0.zero_()
    layer.bias_ih_l0[hidden : 2 * hidden] = 1.0
    return layer
