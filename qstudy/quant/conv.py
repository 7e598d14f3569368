"""The quantizable `nn.Conv1d`: windows of the signal, times a matrix."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from qstudy.bits import LayerShape
from qstudy.quant.arithmetic import Windows
from qstudy.quant.layers import UNKNOWN, Quantizable, Rate


@dataclass(frozen=True)
class ConvolutionWindows(Windows):
    """Those of a convolution over a signal (..., inputs, T), padded before."""

    kernel: int
    stride: int
    dilation: int
    groups: int

    def __call__(self, x: Tensor) -> Tensor:
        """By group: (..., T', groups, inputs / groups * kernel)."""
        span = self.dilation * (self.kernel - 1) + 1
        windows = x.unfold(-1, span, self.stride)[..., :: self.dilation].transpose(-3, -2)
        return windows.unflatten(-2, (self.groups, -1)).flatten(-2)

    def product(self, x: Tensor, weight: Tensor) -> Tensor:
        """By oneDNN's convolution, which is direct, so that whole numbers stay exact. A GPU's may round to TF32."""
        direct = x.device.type == "cpu" and weight.dtype == torch.float32 and torch.backends.mkldnn.is_available()
        if not direct:
            return super().product(x, weight)
        rows = weight.unflatten(1, (-1, self.kernel))  # (H, inputs / groups, kernel)
        with torch.autocast(x.device.type, enabled=False):
            y = F.conv1d(x.float(), rows, None, self.stride, 0, self.dilation, self.groups)
        return y.transpose(-1, -2)


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
            y = self.arithmetic.linear(self.windows(padded).flatten(-2), weight, self.bias)
        else:
            y = self.arithmetic.block_diagonal_linear(padded, weight, self.bias, self.windows)
        return y.transpose(-1, -2)

    @property
    def windows(self) -> ConvolutionWindows:
        """What its outputs see of the padded signal."""
        return ConvolutionWindows(self.kernel_size[0], self.stride[0], self.dilation[0], self.groups)

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
        vectors = self.out_channels * (self.bias is not None)
        return LayerShape(name, kind, (size,), vectors, 1, heads=self.groups, **self.rate._asdict())
