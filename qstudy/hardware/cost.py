"""Seconds, bytes and energy of one run of every operator on one processor, for many bit maps at once.

Arrays have the shape (C, N): C candidate bit maps, N operators. One simulation is a batch of one candidate: one
and many are the same code.
"""

from dataclasses import dataclass, fields

import numpy as np

from qstudy.hardware.accelerator import Memory, Mode, Processor
from qstudy.hardware.memory import Traffic
from qstudy.hardware.systolic import weight_tiles_and_cycles
from qstudy.hardware.table import Columns, Widths


@dataclass(frozen=True)
class Costs:
    """What one run of each operator takes; arrays (C, N), in seconds, bytes and joules."""

    total_s: np.ndarray
    """From its start to the start of the next operator, the hand-over included."""
    compute_s: np.ndarray
    dram_s: np.ndarray
    sram_s: np.ndarray
    elementwise_s: np.ndarray
    expansion_s: np.ndarray
    handover_s: np.ndarray
    cycles: np.ndarray
    """Compute cycles of the processor that runs it."""
    utilization: np.ndarray
    """Multiply-accumulates done over those possible in its total time, 0 to 1."""
    dram_bytes: np.ndarray
    sram_bytes: np.ndarray
    energy_j: np.ndarray
    on_cpu: np.ndarray
    """1 where it runs on the CPU."""

    def where(self, chosen: np.ndarray, other: "Costs") -> "Costs":
        """These costs where `chosen`, the other's elsewhere."""
        pairs = ((getattr(self, field.name), getattr(other, field.name)) for field in fields(self))
        return Costs(*(np.where(chosen, mine, others) for mine, others in pairs))


def processor_costs(
    columns: Columns, bits: Widths, processor: Processor, memory: Memory, moved: Traffic, on_cpu: bool
) -> Costs:
    """Costs on one processor, each operator in its fastest mode, of several the one that takes least energy; infinite
    where no mode holds its widths."""
    best, *others = (_mode_costs(columns, bits, processor, mode, memory, moved, on_cpu) for mode in processor.modes)
    for costs in others:
        cheaper = (costs.total_s == best.total_s) & (costs.energy_j < best.energy_j)
        best = costs.where((costs.total_s < best.total_s) | cheaper, best)
    return best


def _mode_costs(
    columns: Columns, bits: Widths, processor: Processor, mode: Mode, memory: Memory, moved: Traffic, on_cpu: bool
) -> Costs:
    hertz = processor.clock_mhz * 1e6
    shape = (columns.vectors, columns.inputs, columns.outputs, columns.groups)
    count, cycles = weight_tiles_and_cycles(*shape, processor, mode)
    cycles = cycles * columns.product
    compute, dram_s, sram_s = cycles / hertz, *moved.seconds(memory)
    memory_s = np.maximum(dram_s, sram_s)  # both memories work side by side
    elementwise, expansion = _elementwise_s(columns, processor), _expansion_s(columns, bits, processor)
    # Double buffering: weight tile i + 1 is fetched while tile i is computed, so the slower of the two sets the pace,
    # and one tile of the faster sticks out at the ends. Element-wise work and expansion are stages of that pipeline.
    pace = np.maximum(np.maximum(compute, memory_s), np.maximum(elementwise, expansion))
    wait = np.where(moved.dram_bytes > 0, memory.dram_latency_us * 1e-6, 0.0)
    total = wait + pace + np.minimum(compute, memory_s) / np.maximum(count, 1)
    second = np.where(columns.stored > 0, bits.weight, bits.activation)
    holds = (second <= mode.weight) & (bits.activation <= mode.activation)
    if processor.elementwise_in == "floats":
        holds |= columns.inputs == 0  # what multiplies nothing
    macs = columns.product * columns.vectors * columns.inputs * columns.outputs
    possible = total * hertz * processor.rows * processor.columns * processor.cores * mode.macs
    operations = columns.vectors * (columns.elementwise + columns.nonlinear)
    picojoules = macs * mode.mac_pj + operations * processor.elementwise_pj + moved.picojoules(memory)
    return Costs(
        total_s=np.where(holds, total, np.inf),
        compute_s=np.broadcast_to(compute, total.shape),
        dram_s=dram_s,
        sram_s=sram_s,
        elementwise_s=np.broadcast_to(elementwise, total.shape),
        expansion_s=np.broadcast_to(expansion, total.shape),
        handover_s=np.zeros(total.shape),
        cycles=np.broadcast_to(cycles, total.shape),
        utilization=np.divide(macs, possible, out=np.zeros(total.shape), where=possible > 0),
        dram_bytes=moved.dram_bytes,
        sram_bytes=moved.sram_bytes,
        energy_j=picojoules * 1e-12,
        on_cpu=np.full(total.shape, on_cpu),
    )


def _elementwise_s(columns: Columns, processor: Processor) -> np.ndarray:
    """Seconds of element-wise and non-linear work per run (N,), one after the other."""
    cycles = columns.elementwise / processor.elementwise_per_cycle + columns.nonlinear / processor.nonlinear_per_cycle
    return columns.vectors * cycles / (processor.cores * processor.clock_mhz * 1e6)


def _expansion_s(columns: Columns, bits: Widths, processor: Processor) -> np.ndarray:
    """Seconds in which the weights of one run pass the table expansion; (C, N), or (N,) zeros without one."""
    weights = columns.inputs * columns.outputs * columns.stored * columns.product
    if processor.weights_per_cycle is None:
        return np.zeros(weights.shape)
    per_second = processor.weights_per_cycle * processor.cores * processor.clock_mhz * 1e6
    return weights * -(-bits.weight // 8) / per_second
