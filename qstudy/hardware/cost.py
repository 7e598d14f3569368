"""Seconds, bytes and energy of one run of every operator, for many bit maps at once.

Arrays have the shape (C, N): C candidate bit maps, N operators. One simulation is a batch of one candidate, so the
sweep's fast path and the report are the same code.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cached_property

import numpy as np

from qstudy.bits import BitMap, LayerBits
from qstudy.hardware.accelerator import Accelerator, Mode, Processor
from qstudy.hardware.memory import Traffic, traffic
from qstudy.hardware.systolic import processor_tiles_and_cycles
from qstudy.hardware.workload import Operator

BOUNDS = ("compute", "bandwidth", "element-wise", "expansion", "hand-over")


class Columns:
    """The operators' numbers as arrays (N,), by the names of `Operator`'s fields."""

    def __init__(self, operators: Sequence[Operator]) -> None:
        self.operators = operators
        for name in (
            "inputs",
            "outputs",
            "vectors",
            "stored",
            "lookup",
            "constants",
            "elementwise",
            "nonlinear",
            "macs",
        ):
            setattr(self, name, np.array([getattr(operator, name) for operator in operators], dtype=np.int64))

    inputs: np.ndarray
    outputs: np.ndarray
    vectors: np.ndarray
    stored: np.ndarray
    lookup: np.ndarray
    constants: np.ndarray
    elementwise: np.ndarray
    nonlinear: np.ndarray
    macs: np.ndarray

    @cached_property
    def block_starts(self) -> np.ndarray:
        """Where a new block begins: the operators of one layer that share a placement cross to the CPU together."""
        keys = [(operator.layer, operator.on_cpu) for operator in self.operators]
        return np.array([i for i, key in enumerate(keys) if i == 0 or key != keys[i - 1]], dtype=np.int64)


@dataclass(frozen=True)
class Widths:
    """The bit maps as integer arrays (C, N)."""

    weight: np.ndarray
    activation: np.ndarray
    codebook: np.ndarray
    per_tensor: np.ndarray
    cpu: np.ndarray


def widths(operators: Sequence[Operator], bit_maps: Sequence[BitMap]) -> Widths:
    """Look up every operator's widths in every bit map; layers that a map does not name are float."""
    layers = list(dict.fromkeys(operator.layer for operator in operators))
    default = LayerBits()
    rows = [[bit_map.get(layer, default) for layer in layers] for bit_map in bit_maps]
    numbers = np.array(
        [
            [
                (b.weight, b.activation, b.grid == "codebook", b.granularity == "tensor", b.placement == "cpu")
                for b in row
            ]
            for row in rows
        ],
        dtype=np.int64,
    ).reshape(len(bit_maps), len(layers), 5)
    spread = numbers[:, [layers.index(operator.layer) for operator in operators]]
    weight, activation, codebook, per_tensor, cpu = (spread[..., i] for i in range(5))
    forced = np.array([operator.on_cpu for operator in operators])
    return Widths(weight, activation, codebook, per_tensor, cpu | forced)


@dataclass(frozen=True)
class Costs:
    """What one run of each operator takes; arrays (C, N), in seconds, bytes and joules."""

    total_s: np.ndarray
    """From its start to the start of the next operator, the hand-over included."""
    compute_s: np.ndarray
    memory_s: np.ndarray
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


def plans(columns: Columns, bits: Widths, accelerator: Accelerator, rates: np.ndarray) -> list[Costs]:
    """The ways a compiler may place the operators, best first: block by block, and all on the CPU.

    A block runs on the accelerator if this holds its widths, is allowed to it, and is not slower than the CPU with
    a hand-over there and back. An all-float model pays no hand-over when all of it stays on the CPU.

    Args:
        columns: the operators.
        bits: their widths.
        accelerator: the device.
        rates: runs of each operator per second of speech (N,): what runs more often is kept on chip first.
    """
    moved = traffic(columns, bits, accelerator.memory, rates)
    ours = _processor_costs(columns, bits, accelerator, accelerator.processor, moved, on_cpu=0)
    if accelerator.cpu is None or accelerator.handover is None:
        return [ours]
    barred = np.where(bits.cpu > 0, np.inf, ours.total_s)
    cpu = _processor_costs(columns, bits, accelerator, accelerator.cpu, moved, on_cpu=1)
    handed = _with_handover(cpu, columns, accelerator, moved)
    starts = columns.block_starts
    here = np.add.reduceat(barred, starts, axis=1) <= np.add.reduceat(handed.total_s, starts, axis=1)
    lengths = np.diff(np.append(starts, len(columns.operators)))
    return [ours.where(np.repeat(here, lengths, axis=1), handed), cpu]


def _with_handover(costs: Costs, columns: Columns, accelerator: Accelerator, moved: Traffic) -> Costs:
    """Add a hand-over to the CPU and back to each block: on its first operator's inputs and its last one's outputs."""
    assert accelerator.handover is not None
    latency, rate = accelerator.handover.latency_us * 1e-6, accelerator.handover.gb_per_s * 1e9
    starts = columns.block_starts
    first, last = np.zeros(len(columns.operators)), np.zeros(len(columns.operators))
    first[starts], last[np.append(starts[1:], len(first)) - 1] = 1, 1
    handover = first * (latency + moved.input_bytes / rate) + last * (latency + moved.output_bytes / rate)
    values = {field.name: getattr(costs, field.name) for field in fields(costs)}
    return Costs(**{**values, "handover_s": handover, "total_s": costs.total_s + handover})


def _processor_costs(
    columns: Columns, bits: Widths, accelerator: Accelerator, processor: Processor, moved: Traffic, on_cpu: int
) -> Costs:
    """Costs on one processor, each operator in its fastest mode; infinite where no mode holds its widths."""
    best: Costs | None = None
    for mode in processor.modes:
        costs = _mode_costs(columns, bits, accelerator, processor, mode, moved, on_cpu)
        best = costs if best is None else costs.where(costs.total_s < best.total_s, best)
    assert best is not None
    return best


def _mode_costs(
    columns: Columns,
    bits: Widths,
    accelerator: Accelerator,
    processor: Processor,
    mode: Mode,
    moved: Traffic,
    on_cpu: int,
) -> Costs:
    hertz = processor.clock_mhz * 1e6
    product = (columns.macs > 0).astype(np.int64)
    count, cycles = processor_tiles_and_cycles(columns.vectors, columns.inputs, columns.outputs, processor, mode)
    compute = cycles * product / hertz
    per_vector = (
        columns.elementwise / processor.elementwise_per_cycle + columns.nonlinear / processor.nonlinear_per_cycle
    )
    elementwise = columns.vectors * per_vector / (processor.cores * hertz)
    expansion = np.zeros(bits.weight.shape)
    if processor.weights_per_cycle is not None:
        passes = -(-bits.weight // 8) * columns.stored * product
        expansion = passes * columns.inputs * columns.outputs / (processor.weights_per_cycle * processor.cores * hertz)
    memory = moved.seconds(accelerator.memory)
    # Double buffering: tile i + 1 is fetched while tile i is computed, so the slower of the two sets the pace, and
    # one tile of the faster sticks out at the ends.
    pace = np.maximum(np.maximum(compute, memory), np.maximum(elementwise, expansion))
    wait = np.where(moved.dram_bytes > 0, accelerator.memory.dram_latency_us * 1e-6, 0.0)
    total = wait + pace + np.minimum(compute, memory) / np.maximum(count, 1)
    holds = (bits.weight <= mode.weight) & (bits.activation <= mode.activation)
    total = np.where(holds, total, np.inf)
    peak = processor.rows * processor.columns * processor.cores * mode.macs * hertz
    operations = columns.vectors * (columns.elementwise + columns.nonlinear)
    picojoules = (
        columns.macs * mode.mac_pj + operations * processor.elementwise_pj + moved.picojoules(accelerator.memory)
    )
    full = np.broadcast_to
    shape = total.shape
    return Costs(
        total_s=total,
        compute_s=full(compute, shape),
        memory_s=memory,
        elementwise_s=full(elementwise, shape),
        expansion_s=expansion,
        handover_s=np.zeros(shape),
        cycles=full(cycles * product, shape),
        utilization=np.divide(columns.macs, total * peak, out=np.zeros(shape), where=total > 0),
        dram_bytes=moved.dram_bytes,
        sram_bytes=moved.sram_bytes,
        energy_j=picojoules * 1e-12,
        on_cpu=np.full(shape, on_cpu),
    )
