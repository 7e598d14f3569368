"""Which operators run on the accelerator and which on the CPU, and what crossing over costs."""

from dataclasses import dataclass, replace

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
    place = _Blocks(accelerator, moved, rates)
    placed = place.cheaper(barred, place.handed(cpu, columns.block_starts), columns.block_starts)
    if bits.split.any() and accelerator.processor.elementwise_in == "integers":
        placed = _split(columns, barred, cpu, place).where(bits.split, placed)
    return [placed, cpu]


def _split(columns: Columns, barred: Costs, cpu: Costs, place: "_Blocks") -> Costs:
    """Products on the accelerator and error-prone operators on the CPU; or all of a block on the CPU, if cheaper."""
    starts = columns.split_starts
    allowed = replace(barred, total_s=np.where(columns.error_prone > 0, np.inf, barred.total_s))
    apart = place.cheaper(allowed, place.handed(cpu, starts), starts)
    return place.cheaper(apart, place.handed(cpu, columns.block_starts), columns.block_starts)


@dataclass(frozen=True)
class _Blocks:
    """Blocks of operators that stay together, though they may run at different rates: a chunk goes through a recurrent
    layer's first product at once, and through its cell frame by frame."""

    accelerator: Accelerator
    moved: Traffic
    rates: np.ndarray
    """Runs per second of speech (N,)."""

    def cheaper(self, first: Costs, second: Costs, starts: np.ndarray) -> Costs:
        """Block by block, the costs that are lower in sum; the first ones where they are equal."""
        chosen = self._time(first, starts) <= self._time(second, starts)
        return first.where(np.repeat(chosen, self._lengths(starts), axis=1), second)

    def handed(self, costs: Costs, starts: np.ndarray) -> Costs:
        """Add a hand-over to the CPU and back to each block: on its first operator's inputs and its last one's outputs,
        as often as that one runs which runs most seldom."""
        assert self.accelerator.handover is not None
        latency, rate = self.accelerator.handover.latency_us * 1e-6, self.accelerator.handover.gb_per_s * 1e9
        runs = self._runs(starts)
        crossings = latency * np.repeat(np.minimum.reduceat(runs, starts), self._lengths(starts)) / runs
        first, last = np.zeros(len(runs)), np.zeros(len(runs))
        first[starts], last[np.append(starts[1:], len(runs)) - 1] = 1, 1
        there, back = (crossings + moved / rate for moved in (self.moved.input_bytes, self.moved.output_bytes))
        handover = first * there + last * back
        return replace(costs, handover_s=handover, total_s=costs.total_s + handover)

    def _time(self, costs: Costs, starts: np.ndarray) -> np.ndarray:
        """Of each block, up to a factor."""
        return np.asarray(np.add.reduceat(costs.total_s * self._runs(starts), starts, axis=1))

    def _runs(self, starts: np.ndarray) -> np.ndarray:
        """How often the operators run (N,), alike in a block of which one does not run, or nobody says how often."""
        known = np.repeat(np.minimum.reduceat(self.rates, starts) > 0, self._lengths(starts))
        return np.where(known, self.rates, 1.0)

    def _lengths(self, starts: np.ndarray) -> np.ndarray:
        return np.diff(np.append(starts, len(self.rates)))
