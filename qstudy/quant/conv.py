"""The quantizable `nn.Conv1d`: windows of the signal, times a matrix."""

from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F

from qstudy.bits import LayerShape
from qstudy.quant.layers import UNKNOWN, Quantizable, Rate


class Conv1d(nn.Conv1d, Quantizable):
    """`nn.Conv1d` with a slot. Its matrix has one row per output channel: (outputs, inputs / groups * kernel)."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        stride: int = 1,
        padding: str | int = 0,
        dilation: int = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: Literal["zeros", "reflect", "replicate", "circular"] = "zeros",
        rate: Rate = UNKNOWN,
    ) -> None:
        super().__init__(inputs, outputs, kernel, stride, padding, dilation, groups, bias, padding_mode)
        self.arithmetic = None
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        """Map x (B, inputs, T) or (inputs, T) to (..., outputs, T')."""
        if self.arithmetic is None:
            return super().forward(x)
        weight = None if self.weight is None else self.weight.flatten(1)
        mode = "constant" if self.padding_mode == "zeros" else self.padding_mode
        padded = F.pad(x, self._reversed_padding_repeated_twice, mode)
        if self.groups == 1:
            y = self.arithmetic.linear(self._windows(padded).flatten(-2), weight, self.bias)
        else:
            y = self.arithmetic.block_diagonal_linear(padded, weight, self.bias, self._windows)
        return y.transpose(-1, -2)

    def _windows(self, x: Tensor) -> Tensor:
        """What each output sees of the padded signal, by group: (..., T', groups, inputs / groups * kernel)."""
        span = self.dilation[0] * (self.kernel_size[0] - 1) + 1
        windows = x.unfold(-1, span, self.stride[0])[..., :: self.dilation[0]].transpose(-3, -2)
        return windows.unflatten(-2, (self.groups, -1)).flatten(-2)

    def matrices(self) -> list[Tensor]:
        return [] if self.weight is None else [self.weight.flatten(1)]

    def bias_vector(self) -> Tensor | None:
        return None if self.bias is None else self.bias.detach()

    def set_float(self, matrices: list[Tensor], bias: Tensor | None) -> None:
        if matrices:
            self.weight.data.copy_(matrices[0].view_as(self.weight))
        if bias is not None and self.bias is not None:
            self.bias.data.copy_(bias)

    def drop_matrices(self) -> None:
        self.register_parameter("weight", None)

    def shape(self, name: str) -> LayerShape:
        size = (self.out_channels, self.in_channels // self.groups * self.kernel_size[0])
        kind = "depthwise" if 1 < self.groups == self.in_channels else "conv1d"
        return LayerShape(name, kind, (size,), self.out_channels * (self.bias is not None), 1, *self.rate)
