"""The accelerator's operators against plain Python and NumPy integers, to the bit."""

from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from qstudy.errors import UserError
from qstudy.quant.fixed_point.cell import CellConstants, CellTrace, run_frame, run_frame_in_torch
from qstudy.quant.fixed_point.linear import fixed_point_tanh, handed_over
from qstudy.quant.fixed_point.lookup import OFFSET, responses, table
from qstudy.quant.fixed_point.lstm import LSTMOperands, fixed_point_lstm, gate_requantization, hidden_scale, run_lstm
from qstudy.quant.fixed_point.operators import (
    ROUNDINGS,
    FixedPoint,
    requantization,
    requantize,
    shift_right,
    to_fixed,
    to_float,
)
from qstudy.quant.integer.accumulator import recorded_accumulators

SPECS = [
    FixedPoint(),
    FixedPoint("truncate", "table", 256, gate_fraction=12),
    FixedPoint("half_away", "linear"),
    FixedPoint("truncate", "linear", gate_fraction=10, cell_fraction=12),
    FixedPoint("half_away", "table", 65536, gate_fraction=14, cell_fraction=8),
    FixedPoint("truncate", "table", 16, cell_fraction=4, cell_bits=8),
    FixedPoint("half_away", "linear", cell_fraction=5, cell_bits=8),
]
ACCUMULATORS = st.integers(-(2**31), 2**31 - 1) | st.sampled_from([0, 1, -1, 2**31 - 1, -(2**31)])
spec_ids = pytest.mark.parametrize("spec", SPECS, ids=lambda s: "-".join(map(str, s.to_dict().values())))


def shifted(x: int, shift: int, rounding: str) -> int:
    """What `shift_right` promises, in whole numbers without end."""
    if rounding == "truncate":
        return x // 2**shift
    magnitude = (2 * abs(x) + 2**shift) // 2 ** (shift + 1)
    return magnitude if x >= 0 else -magnitude


def saturated(x: int, high: int = 2**15 - 1, low: int | None = None) -> int:
    return max(min(x, high), -high - 1 if low is None else low)


# Shifts and requantization


@given(st.integers(-(2**61), 2**61), st.integers(0, 62), st.sampled_from(ROUNDINGS))
def test_shift_rounds_as_named(x: int, shift: int, rounding: str) -> None:
    assert int(shift_right(torch.tensor(x), shift, rounding)) == shifted(x, shift, rounding)


@given(st.integers(-1000, 1000), st.integers(1, 20))
def test_ties_go_away_from_zero_or_down(odd: int, shift: int) -> None:
    x = (2 * odd + 1) << (shift - 1)  # odd + 1/2
    assert int(shift_right(torch.tensor(x), shift, "half_away")) == (odd + 1 if odd >= 0 else odd)
    assert int(shift_right(torch.tensor(x), shift, "truncate")) == odd


@given(st.floats(0, 2.0**24, allow_nan=False) | st.sampled_from([0.0, 1.0, 0.5, 1 - 2.0**-53, 2.0**24, 2.0**-24]))
def test_a_word_is_the_factor_to_24_bits(factor: float) -> None:
    word = int(requantization(torch.tensor([factor], dtype=torch.float64))[0]) & 0xFFFFFFFF
    held = Fraction(word >> 8, 2 ** (word & 0xFF))
    assert abs(held - Fraction(factor)) <= max(Fraction(factor) / 2**24, Fraction(1, 2**62))


@given(ACCUMULATORS, st.floats(1e-12, 1e6), st.sampled_from(ROUNDINGS))
def test_requantization_is_multiply_shift_saturate(accumulator: int, factor: float, rounding: str) -> None:
    words = requantization(torch.tensor([factor], dtype=torch.float64))
    word = int(words[0]) & 0xFFFFFFFF
    expected = saturated(shifted(accumulator * (word >> 8), word & 0xFF, rounding))
    assert requantize(torch.tensor([accumulator], dtype=torch.int32), words, rounding).tolist() == [expected]


@given(st.integers(-(2**15), 2**15 - 1), st.integers(8, 15))
def test_sixteen_bits_travel_through_float_unchanged(value: int, fraction: int) -> None:
    there = to_float(torch.tensor([value], dtype=torch.int16), fraction)
    assert to_fixed(there, fraction).tolist() == [value]


# Sigmoid, tanh and the exponential


@pytest.mark.parametrize(
    ("spec", "allowed", "allowed_exp"),
    [
        (FixedPoint(), 4e-4, 4.8e-4),
        (FixedPoint(entries=256), 1.6e-3, 1.85e-3),
        (FixedPoint("truncate"), 4.2e-4, 4.8e-4),
        (FixedPoint(nonlinearity="linear"), 0.0379, 0.0432),
    ],
    ids=["512 entries", "256 entries", "truncated", "segments"],
)
def test_responses_are_near_the_functions(spec: FixedPoint, allowed: float, allowed_exp: float) -> None:
    x = torch.arange(-OFFSET, OFFSET, dtype=torch.float64) * 2.0**-spec.gate_fraction
    for name, response in responses(spec)._asdict().items():
        function = getattr(torch, name)(x.clamp(max=0) if name == "exp" else x)
        error = (response.double() * 2.0**-15 - function).abs().max().item()
        bound = allowed_exp if name == "exp" else allowed
        assert error <= bound
        assert error > bound / 8  # the bound says something


@spec_ids
def test_responses_rise(spec: FixedPoint) -> None:
    """The segments but for one step of theirs down: 1/256 at 2.375, and twice that for tanh."""
    falls = (0, 0, 0) if spec.nonlinearity == "table" else (128, 256, 0)
    for response, fall in zip(responses(spec), falls, strict=True):
        assert response.long().diff().min() >= -fall


@given(st.integers(-(2**15), 2**15 - 1), st.sampled_from([s for s in SPECS if s.nonlinearity == "table"]))
def test_a_table_is_interpolated_between_its_entries(x: int, spec: FixedPoint) -> None:
    width = 65536 // spec.entries
    for name, response in responses(spec)._asdict().items():
        entries = table(name, spec).tolist()
        assert len(entries) == spec.entries + 1
        left, right = entries[(x + OFFSET) // width], entries[(x + OFFSET) // width + 1]
        rise = shifted((right - left) * ((x + OFFSET) % width), width.bit_length() - 1, spec.rounding)
        assert int(response[x + OFFSET]) == saturated(left + rise)


# The cell


def reference_step(x: np.ndarray, h: np.ndarray, c: np.ndarray, constants: CellConstants) -> tuple[np.ndarray, ...]:
    """One utterance's step in Python's integers: gates (4H,), cell, outputs, codes (H,)."""
    spec, bits = constants.spec, constants.bits

    def product(accumulator: int, word: int) -> int:
        word &= 0xFFFFFFFF
        return saturated(shifted(accumulator * (word >> 8), word & 0xFF, spec.rounding))

    words = (constants.input_requantization.tolist(), constants.hidden_requantization.tolist(), constants.bias.tolist())
    gates = [
        saturated(product(a, p) + product(b, q) + r)
        for a, b, p, q, r in zip(x.tolist(), h.tolist(), *words, strict=True)
    ]
    sigmoid, tanh, _ = (part.tolist() for part in responses(spec))
    size = len(gates) // 4
    after = [(tanh if j // size == 2 else sigmoid)[gate + OFFSET] for j, gate in enumerate(gates)]
    cells, outputs = [], []
    for j, before in enumerate(c.tolist()):
        i, f, g, o = (after[k * size + j] for k in range(4))
        kept = shifted(f * before, 15, spec.rounding)
        end = 2 ** (spec.cell_bits - 1)
        cell = saturated(kept + shifted(i * g, 30 - spec.cell_fraction, spec.rounding), end - 1, -end)
        wide = spec.gate_fraction - spec.cell_fraction
        argument = saturated(cell * 2**wide) if wide >= 0 else shifted(cell, -wide, spec.rounding)
        cells.append(cell)
        outputs.append(shifted(o * tanh[argument + OFFSET], 15, spec.rounding))
    high = 2 ** (bits - 1) - 1
    codes = [saturated(shifted(y, 16 - bits, spec.rounding), high, -high) for y in outputs]
    return np.array(after), np.array(cells), np.array(outputs), np.array(codes)


def cell_problem(
    seed: int, hidden: int, reach: int, spec: FixedPoint, bits: int, batch: int = 2
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, CellConstants]:
    """Accumulators (B, 4H) twice, cells (B, H), constants; gates reach across their range, and far out of it."""
    generator = torch.Generator().manual_seed(seed)

    def integers(bound: int, *size: int) -> torch.Tensor:
        return torch.randint(-bound, bound, size, generator=generator)

    words = [requantization(torch.rand(4 * hidden, generator=generator).double() * 0.2) for _ in range(2)]
    constants = CellConstants(words[0], words[1], integers(2**15, 4 * hidden).to(torch.int16), spec, bits)
    accumulators = [integers(reach, batch, 4 * hidden).to(torch.int32) for _ in range(2)]
    return accumulators[0], accumulators[1], integers(2**15, batch, hidden).to(torch.int16), constants


def empty_trace(c: torch.Tensor) -> CellTrace:
    batch, hidden = c.shape
    short, narrow = torch.int16, torch.int8
    trace = CellTrace(
        torch.zeros(1, batch, 4 * hidden, dtype=short),
        torch.zeros(2, batch, hidden, dtype=short),
        torch.zeros(1, batch, hidden, dtype=short),
        torch.zeros(2, batch, hidden, dtype=narrow),
    )
    trace.cells[0] = c
    return trace


@given(
    st.integers(0, 10_000),
    st.sampled_from([1, 3, 17]),
    st.sampled_from([100, 10**5, 10**6, 2**31 - 1]),
    st.sampled_from(SPECS),
    st.sampled_from([2, 4, 8]),
)
def test_a_step_is_the_reference_to_the_bit(seed: int, hidden: int, reach: int, spec: FixedPoint, bits: int) -> None:
    x, h, c, constants = cell_problem(seed, hidden, reach, spec, bits)
    compiled, portable = empty_trace(c), empty_trace(c)
    run_frame(0, x, h, constants, compiled)
    run_frame_in_torch(0, x, h, constants, portable)
    assert all(torch.equal(one, two) for one, two in zip(compiled, portable, strict=True))
    for b in range(len(c)):
        expected = reference_step(x[b].numpy(), h[b].numpy(), c[b].numpy(), constants)
        found = (compiled.gates[0, b], compiled.cells[1, b], compiled.outputs[0, b], compiled.codes[1, b])
        for mine, other in zip(found, expected, strict=True):
            np.testing.assert_array_equal(mine.numpy(), other)


def test_the_cell_state_saturates() -> None:
    x, h, c, constants = cell_problem(0, 3, 1, FixedPoint(), 8)
    bias = torch.full((12,), 2**15 - 1, dtype=torch.int16)  # all gates wide open
    for sign in (1, -1):
        bias[6:9] = sign * (2**15 - 1)
        trace = empty_trace(torch.full_like(c, sign * (2**15 - 1)))
        run_frame(0, x, h, constants._replace(bias=bias), trace)
        assert (trace.cells[1] == (2**15 - 1 if sign > 0 else -(2**15))).all()


# The layer


def layer_problem(
    seed: int, frames: int, batch: int, size: int, hidden: int, spec: FixedPoint
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, LSTMOperands]:
    generator = torch.Generator().manual_seed(seed)

    def codes(*shape: int) -> torch.Tensor:
        return torch.randint(-127, 128, shape, generator=generator).to(torch.int8)

    scale = torch.rand(4 * hidden, generator=generator) * 0.02
    words = (gate_requantization(scale, 0.02, spec), gate_requantization(scale, hidden_scale(8), spec))
    bias = to_fixed(torch.randn(4 * hidden, generator=generator), spec.gate_fraction)
    operands = LSTMOperands(codes(4 * hidden, size), codes(4 * hidden, hidden), CellConstants(*words, bias, spec, 8))
    h = to_fixed(torch.rand(batch, hidden, generator=generator) - 0.5, 15)
    return codes(frames, batch, size), h, to_fixed(torch.randn(batch, hidden, generator=generator), 11), operands


@spec_ids
def test_a_layer_is_the_reference_to_the_bit(spec: FixedPoint) -> None:
    x, h, c, operands = layer_problem(1, 6, 2, 5, 3, spec)
    with recorded_accumulators() as accumulators:
        trace = run_lstm(x, h, c, operands)
    w_input, w_hidden = (w.numpy().astype(np.int64) for w in operands[:2])
    for b in range(2):
        code = np.array([saturated(shifted(v, 8, spec.rounding), 127, -127) for v in h[b].tolist()])
        cells = c[b].numpy()
        for t in range(6):
            inputs, hidden = w_input @ x[t, b].numpy().astype(np.int64), w_hidden @ code
            np.testing.assert_array_equal(accumulators[0][t, b].numpy(), inputs)
            np.testing.assert_array_equal(accumulators[1][t, b].numpy(), hidden)
            gates, cells, outputs, code = reference_step(inputs, hidden, cells, operands.constants)
            np.testing.assert_array_equal(trace.gates[t, b].numpy(), gates)
            np.testing.assert_array_equal(trace.cells[t + 1, b].numpy(), cells)
            np.testing.assert_array_equal(trace.outputs[t, b].numpy(), outputs)
            np.testing.assert_array_equal(trace.codes[t + 1, b].numpy(), code)


@given(st.integers(0, 10_000), st.integers(1, 7))
def test_chunks_and_batches_change_nothing(seed: int, chunk: int) -> None:
    x, h, c, operands = layer_problem(seed, 8, 3, 4, 5, FixedPoint())
    whole = run_lstm(x, h, c, operands)
    for b in range(3):
        mine, cell, outputs = h[b : b + 1], c[b : b + 1], []
        for part in x[:, b : b + 1].split(chunk):
            trace = run_lstm(part.contiguous(), mine, cell, operands)
            outputs.append(trace.outputs)
            mine, cell = trace.outputs[-1], trace.cells[-1]
        assert torch.equal(torch.cat(outputs)[:, 0], whole.outputs[:, b])
        assert torch.equal(cell[0], whole.cells[-1, b])


def given_value(x: torch.Tensor, value: torch.Tensor, slope: torch.Tensor | float = 1.0) -> torch.Tensor:
    """`value`, whose gradient to x is `slope`."""
    return value.detach() + torch.as_tensor(slope).detach() * (x - x.detach())


def test_gradients_are_those_of_the_float_operators_at_the_quantized_values() -> None:
    spec = FixedPoint()
    codes, h16, c16, operands = layer_problem(3, 6, 2, 5, 3, spec)
    trace = run_lstm(codes, h16, c16, operands)
    generator = torch.Generator().manual_seed(0)

    def leaves() -> list[torch.Tensor]:
        values = [
            codes.float() * 0.02,
            to_float(h16, 15),
            to_float(c16, spec.cell_fraction),
            torch.randn(12, 5, generator=generator.manual_seed(1)),
            torch.randn(12, 3, generator=generator.manual_seed(2)),
            torch.zeros(12),
        ]
        return [value.requires_grad_() for value in values]

    ours, theirs = leaves(), leaves()
    y, last_h, last_c = fixed_point_lstm(ours[0], ours[1], ours[2], (ours[3], ours[4], ours[5]), codes, operands)
    x, h, c, w_input, w_hidden, bias = theirs
    seen, outputs = given_value(h, trace.codes[0] * hidden_scale(8)), []
    for t in range(6):
        before = (x[t] @ w_input.t() + seen @ w_hidden.t() + bias).chunk(4, 1)
        after = to_float(trace.gates[t], 15).chunk(4, 1)
        slopes = [v * (1 - v) for v in after]
        slopes[2] = 1 - after[2] ** 2
        i, f, g, o = (given_value(*parts) for parts in zip(before, after, slopes, strict=True))
        c = given_value(f * c + i * g, to_float(trace.cells[t + 1], spec.cell_fraction))
        h = given_value(o * torch.tanh(c), to_float(trace.outputs[t], 15))
        seen = given_value(h, trace.codes[t + 1] * hidden_scale(8))
        outputs.append(h)
    expected = (torch.stack(outputs), h, c)
    upstream = [torch.randn(part.shape, generator=generator) for part in expected]
    for mine, other in zip((y, last_h, last_c), expected, strict=True):
        assert torch.equal(mine, other)
    torch.autograd.backward((y, last_h, last_c), upstream)
    torch.autograd.backward(expected, upstream)
    for one, two in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one.grad, two.grad)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("rounding", "up"),
        ("nonlinearity", "cubic"),
        ("entries", 100),
        ("gate_fraction", 20),
        ("cell_fraction", 3),
        ("cell_bits", 4),
        ("linear_fraction", 3),
    ],
)
def test_formats_that_do_not_exist_are_named(field: str, value: str | int) -> None:
    with pytest.raises(UserError, match=f"^{field}: {value!r}"):
        FixedPoint(**{field: value})  # type: ignore[arg-type]


def test_an_eight_bit_cell_has_a_format_of_eight_bits() -> None:
    with pytest.raises(UserError, match=r"^cell_fraction: 11 is not from 1 to 7 bits\."):
        FixedPoint(cell_bits=8)


# Linear layers


@given(
    st.integers(-(2**24), 2**24),
    st.floats(1e-9, 10.0),
    st.floats(1e-6, 1.0),
    st.floats(-50, 50),
    st.sampled_from(["half_away", "truncate"]),
    st.sampled_from([8, 10, 15]),
)
def test_what_is_handed_over_is_multiplied_shifted_and_saturated(
    accumulator: int, scale: float, input_scale: float, bias: float, rounding: str, fraction: int
) -> None:
    spec = FixedPoint(rounding, linear_fraction=fraction)
    scales = torch.tensor([input_scale]), torch.tensor([scale])
    y = handed_over(
        torch.tensor([[accumulator]], dtype=torch.int32), scales[0][0], scales[1], torch.tensor([bias]), spec
    )
    word = int(requantization(scales[0].double() * scales[1].double() * 2.0**fraction)) & 0xFFFFFFFF
    product = saturated(shifted(accumulator * (word >> 8), word & 0xFF, rounding))
    expected = saturated(product + int(to_fixed(torch.tensor(bias), fraction)))
    assert float(y) == expected * 2.0**-fraction


@spec_ids
def test_a_joiners_tanh_is_the_cells(spec: FixedPoint) -> None:
    x = torch.linspace(-20, 20, 4001)
    y = fixed_point_tanh(x, spec)
    codes = to_fixed(x, spec.gate_fraction).long() + OFFSET
    assert torch.equal(y, responses(spec).tanh[codes].float() / 2**15)
    allowed = 0.3 if spec.entries == 16 else 0.1 if spec.nonlinearity == "linear" else 0.01
    held = x.abs() < 2.0 ** (15 - spec.gate_fraction)
    assert float((y - x.tanh())[held].abs().max()) < allowed
