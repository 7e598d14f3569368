"""Which operators run on the accelerator and which on the CPU, and what crossing over costs."""

from dataclasses import replace

import numpy as np

from qstudy.hardware.accelerator import Accelerator
from qstudy.hardware.cost import Costs, processor_costs
from qstudy.hardware.memory import Traffic, traffic
from qstudy.hardware.table import Columns, Widths


def plans(columns: Columns, bits: Widths, accelerator: Accelerator, rates: np.ndarray) -> list[Costs]:
    """The ways a compiler may place the operators, best first: block by block, and all on the CPU.

    A block runs on the accelerator if this holds its widths, is allowed to it, and is not slower than the CPU with
    a hand-over there and back. Where a layer's placement is `products` and the accelerator's element-wise units compute
    in integers, its error-prone operators are blocks of their own that are not allowed to it. An all-float model pays
    no hand-over when all of it stays on the CPU.

    Args:
        columns: the operators.
        bits: their widths.
        accelerator: the device.
        rates: runs of each operator per second of speech (N,): what runs more often is kept on chip first.
    """
    moved = traffic(columns, bits, accelerator.memory, rates)
    ours = processor_costs(columns, bits, accelerator.processor, accelerator.memory, moved, on_cpu=False)
    if accelerator.cpu is None or accelerator.handover is None:
        return [ours]
    own = accelerator.cpu_memory or accelerator.memory
    cpu = processor_costs(columns, bits, accelerator.cpu, own, traffic(columns, bits, own, rates), on_cpu=True)
    barred = replace(ours, total_s=np.where(bits.cpu > 0, np.inf, ours.total_s))
    handed = _with_handover(cpu, columns.block_starts, accelerator, moved)
    placed = _cheaper(barred, handed, columns.block_starts)
    if bits.split.any() and accelerator.processor.elementwise_in == "integers":
        placed = _split(columns, bits, barred, cpu, accelerator, moved).where(bits.split, placed)
    return [placed, cpu]


def _split(
    columns: Columns, bits: Widths, barred: Costs, cpu: Costs, accelerator: Accelerator, moved: Traffic
) -> Costs:
    """Products on the accelerator and error-prone operators on the CPU; or all of a block on the CPU, if cheaper."""
    starts = columns.split_starts
    allowed = replace(barred, total_s=np.where(columns.error_prone > 0, np.inf, barred.total_s))
    apart = _cheaper(allowed, _with_handover(cpu, starts, accelerator, moved), starts)
    return _cheaper(apart, _with_handover(cpu, columns.block_starts, accelerator, moved), columns.block_starts)


def _cheaper(first: Costs, second: Costs, starts: np.ndarray) -> Costs:
    """Block by block, the costs that are lower in sum; the first ones where they are equal."""
    chosen = np.add.reduceat(first.total_s, starts, axis=1) <= np.add.reduceat(second.total_s, starts, axis=1)
    lengths = np.diff(np.append(starts, first.total_s.shape[1]))
    return first.where(np.repeat(chosen, lengths, axis=1), second)


def _with_handover(costs: Costs, starts: np.ndarray, accelerator: Accelerator, moved: Traffic) -> Costs:
    """Add a hand-over to the CPU and back to each block: on its first operator's inputs and its last one's outputs."""
    assert accelerator.handover is not None
    latency, rate = accelerator.handover.latency_us * 1e-6, accelerator.handover.gb_per_s * 1e9
    count = costs.total_s.shape[1]
    first, last = np.zeros(count), np.zeros(count)
    first[starts], last[np.append(starts[1:], count) - 1] = 1, 1
    handover = first * (latency + moved.input_bytes / rate) + last * (latency + moved.output_bytes / rate)
    return replace(costs, handover_s=handover, total_s=costs.total_s + handover)
