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
    a hand-over there and back. An all-float model pays no hand-over when all of it stays on the CPU.

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
    barred = np.where(bits.cpu > 0, np.inf, ours.total_s)
    own = accelerator.cpu_memory or accelerator.memory
    cpu = processor_costs(columns, bits, accelerator.cpu, own, traffic(columns, bits, own, rates), on_cpu=True)
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
    return replace(costs, handover_s=handover, total_s=costs.total_s + handover)
