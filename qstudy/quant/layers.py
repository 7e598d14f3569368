"""Quantizable layers: each is its `torch.nn` twin plus one slot, `arithmetic`; with an empty slot it is the twin."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn

from qstudy.bits import LayerShape, Then
from qstudy.errors import UserError
from qstudy.quant.arithmetic import Affine, Arithmetic, Extremes, LSTMState, TrainingArithmetic


class Rate(NamedTuple):
    """How often a layer runs."""

    every_ms: float | None = None
    """Once per this many milliseconds of audio; None: not driven by frames."""
    per_label: float = 0.0
    """Times per emitted label."""
    share: float = 1.0
    """On this share of its frames (a branch of an amortized network)."""
    frames: int = 1
    """Frames that come in one go: the utterance, where the layer looks into the future."""
    after_end: bool = False
    """Waits for the end of the utterance."""


UNKNOWN = Rate()


class Quantizable(nn.Module, ABC):
    """What policies, size model and packing ask of a layer."""

    arithmetic: Arithmetic | None
    rate: Rate
    twin_state: tuple[str, ...] = ("weight", "bias")
    """Parameters that `matrices` and `bias_vector` are made of."""
    bounded: tuple[bool, ...] = (False,)
    """One entry per activation that is quantized: whether it is known to lie in [-1, 1]."""

    def tanh(self, x: Tensor) -> Tensor:
        """The tanh of x (...), which this layer takes, in its arithmetic: (...)."""
        return torch.tanh(x) if self.arithmetic is None else self.arithmetic.tanh(x)

    @abstractmethod
    def matrices(self) -> list[Tensor]:
        """The weight matrices, (rows, columns) each: what is quantized."""

    @abstractmethod
    def bias_vector(self) -> Tensor | None:
        """The bias as it is stored in a packed model, float32, or None."""

    @abstractmethod
    def set_float(self, matrices: list[Tensor], bias: Tensor | None) -> None:
        """Load float matrices and bias: the inverse of `matrices` and `bias_vector`."""

    @abstractmethod
    def drop_matrices(self) -> None:
        """Forget the float matrices: the arithmetic has its own from now on."""

    @abstractmethod
    def shape(self, name: str) -> LayerShape:
        """What size and speed depend on."""


class Linear(nn.Linear, Quantizable):
    """`nn.Linear` with a slot."""

    then: Then = ""

    def __init__(self, inputs: int, outputs: int, bias: bool = True, rate: Rate = UNKNOWN, then: Then = "") -> None:
        """Args: sizes; whether there is a bias; for the simulator, how often it runs and what is done with its
        outputs."""
        super().__init__(inputs, outputs, bias)
        self.arithmetic = None
        self.rate, self.then = rate, then

    def forward(self, x: Tensor) -> Tensor:
        """Map x (..., inputs) to (..., outputs)."""
        if self.arithmetic is None:
            return super().forward(x)
        return self.arithmetic.linear(x, self.weight, self.bias)

    def repeated(self) -> Callable[[Tensor], Tensor]:
        """This layer as a function for many calls in a row: weights are quantized once for all of them."""
        if self.arithmetic is None:
            return super().forward
        return self.arithmetic.repeated_linear(self.weight, self.bias)

    def affine(self, extremes: Extremes) -> Affine | None:
        """This layer for rows a few at a time, see `Arithmetic.affine`."""
        if self.arithmetic is None:
            return Affine(self.weight, self.bias)
        return self.arithmetic.affine(self.weight, self.bias, extremes)

    def matrices(self) -> list[Tensor]:
        return [self.weight]

    def bias_vector(self) -> Tensor | None:
        return None if self.bias is None else self.bias.detach()

    def set_float(self, matrices: list[Tensor], bias: Tensor | None) -> None:
        if matrices:
            self.weight.data.copy_(matrices[0])
        if bias is not None:
            self.bias.data.copy_(bias)

    def drop_matrices(self) -> None:
        self.register_parameter("weight", None)

    def shape(self, name: str) -> LayerShape:
        size = (self.out_features, self.in_features)
        biases = self.out_features * (self.bias is not None)
        return LayerShape(name, "linear", (size,), biases, 1, then=self.then, **self.rate._asdict())


class Embedding(nn.Embedding, Quantizable):
    """`nn.Embedding` with a slot."""

    bounded: tuple[bool, ...] = ()

    def __init__(self, count: int, size: int, rate: Rate = UNKNOWN) -> None:
        super().__init__(count, size)
        self.arithmetic = None
        self.rate = rate

    def forward(self, ids: Tensor) -> Tensor:
        """Look up ids (...) int64: (..., size)."""
        if self.arithmetic is None:
            return super().forward(ids)
        rows = self.arithmetic.embedding(ids, self.weight)
        if self.padding_idx is None:
            return rows
        return torch.where((ids == self.padding_idx).unsqueeze(-1), rows.detach(), rows)  # as in torch: not trained

    def matrices(self) -> list[Tensor]:
        return [self.weight]

    def bias_vector(self) -> Tensor | None:
        return None

    def set_float(self, matrices: list[Tensor], bias: Tensor | None) -> None:
        if matrices:
            self.weight.data.copy_(matrices[0])

    def drop_matrices(self) -> None:
        self.register_parameter("weight", None)

    def shape(self, name: str) -> LayerShape:
        size = (self.num_embeddings, self.embedding_dim)
        return LayerShape(name, "embedding", (size,), **self.rate._asdict())


class TiedEmbedding(Embedding):
    """A table that is the matrix of an affine map as well: rows are looked up by labels, and score labels.

    One matrix, one bias and one quantizer, of the scores' inputs. Its entries start as small as a map's; a row that is
    looked up is scaled by the square root of its size, so that it is as large as another table's.

    Source: Press & Wolf 2017, arXiv 1608.05859; the factor: Vaswani et al. 2017, arXiv 1706.03762, section 3.4.
    """

    bounded = (False,)

    def __init__(self, count: int, size: int, lookups: int = 0) -> None:
        """Args: rows; size of one; how many are looked up per label. Its `rate` is that of the scores."""
        super().__init__(count, size)
        self.lookups = lookups
        self.bias = nn.Parameter(torch.zeros(count))

    def reset_parameters(self) -> None:
        nn.init.normal_(self.weight, std=self.embedding_dim**-0.5)

    def forward(self, ids: Tensor) -> Tensor:
        """Look up ids (...) int64: (..., size)."""
        return super().forward(ids) * self.embedding_dim**0.5

    def scores(self, x: Tensor) -> Tensor:
        """x (..., size) times every row, plus the bias: (..., count)."""
        if self.arithmetic is None:
            return nn.functional.linear(x, self.weight, self.bias)
        return self.arithmetic.linear(x, self.weight, self.bias)

    def affine(self, extremes: Extremes) -> Affine | None:
        """The scores of rows a few at a time, see `Arithmetic.affine`."""
        if self.arithmetic is None:
            return Affine(self.weight, self.bias)
        return self.arithmetic.affine(self.weight, self.bias, extremes)

    def bias_vector(self) -> Tensor | None:
        return self.bias.detach()

    def set_float(self, matrices: list[Tensor], bias: Tensor | None) -> None:
        super().set_float(matrices, bias)
        if bias is not None:
            self.bias.data.copy_(bias)

    def shape(self, name: str) -> LayerShape:
        size = (self.num_embeddings, self.embedding_dim)
        biases, rate = self.num_embeddings, self.rate._asdict()
        return LayerShape(name, "tied", (size,), biases, 1, lookups=self.lookups, **rate)


class LSTM(nn.LSTM, Quantizable):
    """One unidirectional layer of `nn.LSTM`, batch first, with a slot.

    Deep encoders stack several, so that each has its own widths.
    """

    twin_state = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")
    bounded = (False, True)  # inputs, hidden state
    weight_ih_l0: nn.Parameter
    weight_hh_l0: nn.Parameter
    bias_ih_l0: nn.Parameter
    bias_hh_l0: nn.Parameter

    def __init__(self, inputs: int, hidden: int, rate: Rate = UNKNOWN) -> None:
        super().__init__(inputs, hidden, batch_first=True)
        self.arithmetic = None
        self.rate = rate

    def forward(self, x: Tensor, state: LSTMState | None = None) -> tuple[Tensor, LSTMState]:
        """Run over x (B, T, inputs): (B, T, hidden) and the state after the last frame."""
        if self.arithmetic is None and x.shape[1] == 1 and state is not None and not torch.is_grad_enabled():
            return self._one_frame(x, state)
        if self.arithmetic is None:
            output: tuple[Tensor, LSTMState] = nn.LSTM.forward(self, x, state)
            return output
        if state is None:
            zeros = x.new_zeros(1, len(x), self.hidden_size)
            state = (zeros, zeros)
        require_sizes(self, x, state)
        return self.arithmetic.lstm(x, state, list(self._weights()))

    def _one_frame(self, x: Tensor, state: LSTMState) -> tuple[Tensor, LSTMState]:
        """As `nn.LSTM` on x (B, 1, inputs), for decoders: oneDNN's LSTM arranges its weights anew at every call."""
        h, c = torch._VF.lstm_cell(x[:, 0], (state[0][0], state[1][0]), *self._weights())
        return h.unsqueeze(1), (h.unsqueeze(0), c.unsqueeze(0))

    def _weights(self) -> Iterator[Tensor]:
        return (getattr(self, name) for name in self.twin_state)

    def matrices(self) -> list[Tensor]:
        return [self.weight_ih_l0, self.weight_hh_l0]

    def bias_vector(self) -> Tensor | None:
        return (self.bias_ih_l0 + self.bias_hh_l0).detach()  # the two only ever act as a sum

    def set_float(self, matrices: list[Tensor], bias: Tensor | None) -> None:
        for parameter, value in zip((self.weight_ih_l0, self.weight_hh_l0), matrices, strict=False):
            parameter.data.copy_(value)
        if bias is not None:
            self.bias_ih_l0.data.copy_(bias)
            self.bias_hh_l0.data.zero_()

    def drop_matrices(self) -> None:
        # nn.LSTM refuses None among its weights, so they become empty; only the arithmetic reads them.
        for name in ("weight_ih_l0", "weight_hh_l0"):
            delattr(self, name)
            setattr(self, name, None)

    def shape(self, name: str) -> LayerShape:
        gates = 4 * self.hidden_size
        matrices = ((gates, self.input_size), (gates, self.hidden_size))
        return LayerShape(name, "lstm", matrices, gates, 2, **self.rate._asdict())


def require_sizes(lstm: nn.LSTM, x: Tensor, state: LSTMState) -> None:
    """Raise RuntimeError, as torch's own does, where x (B, T, D) or a state of an LSTM is of other sizes than it takes:
    kernels trust them."""
    if x.shape[2] != lstm.input_size:
        raise RuntimeError(f"an LSTM's inputs have {x.shape[2]} features, but must have {lstm.input_size}")
    size = (lstm.num_layers * (2 if lstm.bidirectional else 1), len(x), lstm.hidden_size)
    for part in state:
        if part.shape != size:
            raise RuntimeError(f"an LSTM's state is {list(part.shape)}, but must be {list(size)}")


def quantizable(model: nn.Module) -> dict[str, Quantizable]:
    """The quantizable layers of a model by their dotted names, in the model's order."""
    return {name: module for name, module in model.named_modules() if isinstance(module, Quantizable)}


def training_slots(model: nn.Module) -> dict[str, TrainingArithmetic | None]:
    """What is in the slots of a model that trains, by layer; None: it is empty.

    Raises:
        UserError: a layer is packed.
    """
    slots: dict[str, TrainingArithmetic | None] = {}
    for name, layer in quantizable(model).items():
        if layer.arithmetic is not None and not isinstance(layer.arithmetic, TrainingArithmetic):
            raise UserError(f"{name} is packed already; take the model that was trained.")
        slots[name] = layer.arithmetic
    return slots
