"""Fixed-point numbers as an accelerator computes with them: rounding shifts, saturation, requantization.

All functions take and return int64 tensors that hold narrower integers; `cell.py` has the same arithmetic
as compiled loops. A number in "Qm.n" is an int16 with n fractional bits.

Source: Shakiah et al. 2022, arXiv 2305.07778 (the operators); Jacob et al. 2018, arXiv 1712.05877 (requantization by a
multiplier and a shift). The formats are like those of common int8 LSTM kernels; the publication does not tell its own.
"""

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from qstudy.errors import UserError

SIXTEEN = (-(2**15), 2**15 - 1)
MULTIPLIER_BITS = 24  # with 8 bits of shift, one word of 4 bytes: as many as the float32 scale that it replaces
MAX_SHIFT = 62
UNIT = 15  # fractional bits of sigmoids, tanhs and outputs: Q0.15
ROUNDINGS = ("half_away", "truncate")
NONLINEARITIES = ("table", "linear")


@dataclass(frozen=True)
class FixedPoint:
    """How an accelerator's operators compute: LSTM cells, softmax, layer normalization, linear layers, their tanh."""

    rounding: str = "half_away"
    """Of shifts to the right: `half_away` (to nearest, ties away from zero) or `truncate` (bits are dropped, that is,
    towards minus infinity)."""
    nonlinearity: str = "table"
    """Sigmoid and tanh: `table` (entries with linear interpolation) or `linear` (seven straight segments)."""
    entries: int = 512
    """Entries of a table over the whole range of a gate."""
    gate_fraction: int = 11
    """Fractional bits of a gate before its non-linearity: Q4.11 holds [-16, 16). The usual Q3.12 ends at 8, where a
    forget gate still loses 1/3000 per frame and a closed input gate lets as much in: on trained digits the encoder's
    mean error was ten times as large."""
    cell_fraction: int = 11
    """Fractional bits of the cell state: Q4.11 holds [-16, 16)."""
    norm_fraction: int = 10
    """Fractional bits of what a layer normalization takes: Q5.10 holds [-32, 32)."""
    cell_bits: int = 16
    """Of the cell state: 16, or 8, which is coarse: with 4 fractional bits it holds [-8, 8) in sixteenths."""
    linear_fraction: int | None = None
    """Fractional bits of what a linear layer or a convolution hands over, 16 bits in all: Q5.10 holds [-32, 32). None,
    as in older files: its accumulators become floats, and a joiner's tanh is in float."""

    def __post_init__(self) -> None:
        for field, choices in (("rounding", ROUNDINGS), ("nonlinearity", NONLINEARITIES)):
            if getattr(self, field) not in choices:
                raise UserError(f"{field}: {getattr(self, field)!r} is not one of {', '.join(choices)}.")
        if self.entries not in (2**power for power in range(4, 17)):
            raise UserError(f"entries: {self.entries!r} is not a power of two from 16 to 65536.")
        if self.cell_bits not in (8, 16):
            raise UserError(f"cell_bits: {self.cell_bits!r} is not 8 or 16.")
        least = {"gate_fraction": 8, "cell_fraction": 8 if self.cell_bits == 16 else 1, "norm_fraction": 8}
        if self.linear_fraction is not None:
            least["linear_fraction"] = 8
        for field, bits in least.items():
            most = 7 if field == "cell_fraction" and self.cell_bits == 8 else 15
            if getattr(self, field) not in range(bits, most + 1):
                raise UserError(f"{field}: {getattr(self, field)!r} is not from {bits} to {most} bits.")

    @property
    def cell_bounds(self) -> tuple[int, int]:
        """Least and greatest integer of a cell state."""
        return -(2 ** (self.cell_bits - 1)), 2 ** (self.cell_bits - 1) - 1

    def to_dict(self) -> dict[str, Any]:
        """A JSON-able copy."""
        return asdict(self)


def saturate(x: Tensor, low: int = SIXTEEN[0], high: int = SIXTEEN[1]) -> Tensor:
    """Integers (...) to the nearest of low..high; an int16's range by default."""
    return x.clamp(low, high)


def shift_right(x: Tensor, shift: Tensor | int, rounding: str) -> Tensor:
    """x / 2**shift, rounded.

    Args:
        x: (...) int64, magnitude below 2**62.
        shift: bits, 0 to 62, broadcastable to x.
        rounding: one of `ROUNDINGS`.
    """
    if rounding == "truncate":
        return x >> shift
    shift = torch.as_tensor(shift, device=x.device)
    half = (torch.ones_like(shift) << shift) >> 1
    towards_zero = (x >> 63) * shift.clamp(max=1)  # a tie below zero must not be rounded up
    return (x + half + towards_zero) >> shift


def divide(x: Tensor, by: Tensor | int) -> Tensor:
    """x / by, to nearest, ties up: (...) int64; `by` above 0, twice x within 64 bits."""
    return torch.div(2 * x + by, 2 * by, rounding_mode="floor")


def requantize(accumulator: Tensor, requantization: Tensor, rounding: str) -> Tensor:
    """Accumulators (..., H) int32 to int16's range, int64, by one word (`requantization`) per column or for all."""
    multiplier, shift = _multiplier_and_shift(requantization)
    return saturate(shift_right(accumulator.long() * multiplier.long(), shift.long(), rounding))


def requantization(factor: Tensor) -> Tensor:
    """Factors (H,) float64, at least 0, as requantization (H,) int32: multiplier << 8 | shift, the factor being
    multiplier / 2**shift; factors of 2**24 and more saturate."""
    _, exponent = torch.frexp(factor)
    shift = (MULTIPLIER_BITS - exponent).clamp(0, MAX_SHIFT)
    multiplier = torch.ldexp(factor, shift).round().clamp(max=2.0**MULTIPLIER_BITS)
    carried = multiplier == 2.0**MULTIPLIER_BITS  # rounded up to one bit more
    multiplier = torch.where(carried & (shift > 0), multiplier / 2, multiplier).clamp(max=2**MULTIPLIER_BITS - 1)
    shift = torch.where(carried, (shift - 1).clamp(min=0), shift)
    return (multiplier.long() << 8 | shift.long()).to(torch.uint32).view(torch.int32)


def factors(requantization: Tensor) -> Tensor:
    """The factors (H,) float64 that the multipliers and shifts (H,) int32 of `requantize` stand for."""
    multiplier, shift = _multiplier_and_shift(requantization)
    return torch.ldexp(multiplier.double(), -shift)


def _multiplier_and_shift(requantization: Tensor) -> tuple[Tensor, Tensor]:
    return requantization >> 8 & (2**MULTIPLIER_BITS - 1), requantization & 0xFF


def to_fixed(x: Tensor, fraction: int, bounds: tuple[int, int] = SIXTEEN) -> Tensor:
    """Floats (...) to int16's range, or narrower bounds, with `fraction` fractional bits, int16; to nearest, ties to
    even."""
    return torch.round(x.double() * 2.0**fraction).clamp(*bounds).to(torch.int16)


def to_float(x: Tensor, fraction: int) -> Tensor:
    """The exact inverse of `to_fixed`, float32."""
    return x.float() * 2.0**-fraction
