"""The quantizable `nn.LSTM` of any depth and direction: each of its layers and directions is one with its own slot."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import PackedSequence

from qstudy.bits import LayerShape
from qstudy.errors import UserError
from qstudy.quant.arithmetic import LSTMState
from qstudy.quant.layers import UNKNOWN, Quantizable, Rate, require_sizes


class LSTMDirection(Quantizable):
    """One layer of a `DeepLSTM` in one direction; the parameters are the owner's, under torch's names for them."""

    bounded = (False, True)  # inputs, hidden state

    def __init__(self, owner: nn.LSTM, suffix: str, rate: Rate) -> None:
        """Args: the LSTM; the end of its parameters' names, `l0` or `l0_reverse`; how often it runs."""
        super().__init__()
        self.arithmetic = None
        self.rate = rate
        self.suffix = suffix
        self._owner = (owner,)  # in a tuple, so that its parameters are not registered a second time

    def forward(self, x: Tensor, state: LSTMState) -> tuple[Tensor, LSTMState]:
        """Run over x (B, T, D): (B, T, H) and the state after the last frame."""
        weights = [*self._parts("weight_ih", "weight_hh"), *self._biases(x)]
        if self.arithmetic is not None:
            return self.arithmetic.lstm(x, state, weights)
        y, h, c = torch._VF.lstm(x, state, weights, True, 1, 0.0, self.training, False, True)
        return y, (h, c)

    def _parts(self, *kinds: str) -> list[Tensor]:
        return [getattr(self._owner[0], f"{kind}_{self.suffix}") for kind in kinds]

    def _biases(self, x: Tensor) -> list[Tensor]:
        """Input and hidden bias (4H,); zeros where the LSTM has none."""
        owner = self._owner[0]
        if owner.bias:
            return self._parts("bias_ih", "bias_hh")
        return [x.new_zeros(4 * owner.hidden_size)] * 2

    def matrices(self) -> list[Tensor]:
        return self._parts("weight_ih", "weight_hh")

    def bias_vector(self) -> Tensor | None:
        if not self._owner[0].bias:
            return None
        first, second = self._parts("bias_ih", "bias_hh")
        return (first + second).detach()  # the two only ever act as a sum

    def set_float(self, matrices: list[Tensor], bias: Tensor | None) -> None:
        for parameter, value in zip(self._parts("weight_ih", "weight_hh"), matrices, strict=False):
            parameter.data.copy_(value)
        if bias is not None:
            first, second = self._parts("bias_ih", "bias_hh")
            first.data.copy_(bias)
            second.data.zero_()

    def drop_matrices(self) -> None:
        # nn.LSTM refuses None among its weights, so they become empty; only the arithmetic reads them.
        for kind in ("weight_ih", "weight_hh"):
            delattr(self._owner[0], f"{kind}_{self.suffix}")
            setattr(self._owner[0], f"{kind}_{self.suffix}", None)

    def shape(self, name: str) -> LayerShape:
        owner = self._owner[0]
        gates, directions = 4 * owner.hidden_size, 2 if owner.bidirectional else 1
        inputs = owner.input_size if self.suffix.startswith("l0") else directions * owner.hidden_size
        matrices = ((gates, inputs), (gates, owner.hidden_size))
        biases = gates * bool(owner.bias)
        rate = self.rate._replace(after_end=self.rate.after_end or owner.bidirectional)
        return LayerShape(name, "lstm", matrices, biases, 2, **rate._asdict())


class DeepLSTM(nn.LSTM):
    """`nn.LSTM` whose layers and directions are its children `l0`, `l0_reverse`, `l1`, ...: quantizable, each alone.

    While all their slots are empty, it is `nn.LSTM` itself.
    """

    @property
    def twin_state(self) -> list[str]:
        """The parameters, which are the children's to pack."""
        return self._flat_weights_names

    def add_directions(self, rate: Rate = UNKNOWN) -> None:
        """Make the children."""
        for layer in range(self.num_layers):
            for end in ("", "_reverse") if self.bidirectional else ("",):
                self.add_module(f"l{layer}{end}", LSTMDirection(self, f"l{layer}{end}", rate))

    def forward(self, x: Tensor, state: LSTMState | None = None) -> tuple[Tensor, LSTMState]:
        """As torch's: x (B, T, D), (T, B, D) or (T, D) to outputs of that order and the state after the last frame.

        Raises:
            UserError: x is a packed sequence, and a slot is filled.
        """
        directions = list(self.children())
        if all(each.arithmetic is None for each in directions):
            whole: tuple[Tensor, LSTMState] = nn.LSTM.forward(self, x, state)
            return whole
        if isinstance(x, PackedSequence):
            raise UserError("A quantized LSTM takes no packed sequence; give it padded frames (a tensor).")
        if x.dim() == 2:
            before = None if state is None else (state[0].unsqueeze(1), state[1].unsqueeze(1))
            batch = 0 if self.batch_first else 1
            y, (h, c) = self(x.unsqueeze(batch), before)
            return y.squeeze(batch), (h.squeeze(1), c.squeeze(1))
        y, after = self._run(x if self.batch_first else x.transpose(0, 1), state, directions)
        return y if self.batch_first else y.transpose(0, 1), after

    def _run(self, x: Tensor, state: LSTMState | None, directions: Sequence[nn.Module]) -> tuple[Tensor, LSTMState]:
        """x (B, T, D), layer by layer."""
        if state is None:
            zeros = x.new_zeros(len(directions), len(x), self.hidden_size)
            state = (zeros, zeros)
        require_sizes(self, x, state)
        after, width = [], len(directions) // self.num_layers
        for first in range(0, len(directions), width):
            outputs = []
            for index in range(first, first + width):
                turned = x.flip(1) if index > first else x  # the second direction starts at the end
                y, last = directions[index](turned, (state[0][index : index + 1], state[1][index : index + 1]))
                outputs.append(y.flip(1) if index > first else y)
                after.append(last)
            x = torch.cat(outputs, 2)
            if first + width < len(directions):
                x = F.dropout(x, self.dropout, self.training)
        h, c = zip(*after, strict=True)
        return x, (torch.cat(h), torch.cat(c))
