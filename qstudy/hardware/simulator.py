"""The latency simulator: a workload and an accelerator in, a report out.

Where there are several ways to place the operators, the one with the lowest latency is taken; of equal ones, that which
computes least. So nothing that gets faster raises the latency; but it may raise the real-time factor, where the fastest
answer is had by computing more.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, NoReturn

import numpy as np

from qstudy.bits import BitMap, LayerBits
from qstudy.errors import UserError
from qstudy.hardware.accelerator import Accelerator
from qstudy.hardware.cost import Costs
from qstudy.hardware.placement import plans
from qstudy.hardware.stream import REFERENCE, Speech, joint_period_ms, latency_s, runs_per_second, schedule
from qstudy.hardware.table import Columns, widths
from qstudy.hardware.workload import Operator, Workload

UNKNOWN = "unknown"
"""What people read where a number is None."""
BOUNDS = ("compute", "bandwidth", "on-chip bandwidth", "element-wise", "expansion", "hand-over")


@dataclass(frozen=True)
class OperatorReport:
    """One operator on the device; times and bytes per run."""

    name: str
    layer: str
    weight_bits: int
    activation_bits: int
    processor: str
    """`accelerator` or `cpu`."""
    bound: str
    """What takes longest: one of `BOUNDS`."""
    runs: float | None
    """Runs per second of speech; None: nobody says how often it runs."""
    macs: int
    cycles: int
    dram_bytes: float
    sram_bytes: float
    us: float
    """Microseconds per run, hand-over included."""
    stall_us: float
    """Of these, waiting for memory."""
    utilization: float
    """Multiply-accumulates done over those possible in that time, 0 to 1."""
    load: float | None
    """Seconds of computing per second of speech; None as `runs`."""
    energy_uj: float


@dataclass(frozen=True)
class Report:
    """What a model costs on a device; totals are None where nobody says of some operator how often it runs."""

    model: str
    accelerator: str
    latency_ms: float | None
    """User-perceived latency, median over the utterances: from the end of speech to the last result."""
    latency_p95_ms: float | None
    """The same, 95th percentile."""
    rtf: float | None
    """Seconds of computing per second of speech, of the placement with the lowest latency."""
    step_ms: float | None
    """Computing per joint period: all that one joint period of speech needs, with its share of labels."""
    dram_mb_per_s: float | None
    """Megabytes (1e6) read from behind the on-chip memory, per second of speech."""
    energy_mj_per_s: float | None
    """Millijoules per second of speech; None where the profile has no energies, too."""
    operators: tuple[OperatorReport, ...]
    """Those that run at all, or whose rate is not known, in the order of execution."""

    @property
    def untimed(self) -> list[str]:
        """The layers of which nobody says how often they run."""
        return list(dict.fromkeys(operator.layer for operator in self.operators if operator.runs is None))

    def to_dict(self) -> dict[str, Any]:
        """A JSON-able copy."""
        return asdict(self)

    def summary(self) -> dict[str, Any]:
        """The totals alone, for records."""
        return {name: value for name, value in self.to_dict().items() if name != "operators"}


def simulate(workload: Workload, accelerator: Accelerator, speech: Speech = REFERENCE) -> Report:
    """Price a workload on a device.

    Args:
        workload: operators with their widths.
        accelerator: the device.
        speech: the utterances; one of 4 s with 48 labels by default.

    Raises:
        UserError: there is no operator, or nothing on the device computes in the widths of one.
    """
    operators = workload.operators
    if not operators:
        raise UserError(f"{workload.name} has no layers to price.")
    costs, latencies = _best_plan(operators, [workload.bit_map], accelerator, speech)
    if not np.isfinite(latencies).all():
        _explain(workload, costs, accelerator, speech)
    rates = _average_runs(operators, speech)
    load = _load(costs, rates)[0]
    period = joint_period_ms(operators) or 1000.0
    known = all(operator.rate_known for operator in operators)
    totals = {
        "latency_ms": 1e3 * np.median(latencies[:, 0]),
        "latency_p95_ms": 1e3 * np.percentile(latencies[:, 0], 95),
        "rtf": load.sum(),
        "step_ms": load.sum() * period,
        "dram_mb_per_s": costs.dram_bytes[0] @ rates / 1e6,
        "energy_mj_per_s": 1e3 * costs.energy_j[0] @ rates if accelerator.has_energy else None,
    }
    return Report(
        model=workload.name,
        accelerator=accelerator.name,
        **{name: float(total) if known and total is not None else None for name, total in totals.items()},
        operators=tuple(_operator_reports(workload, costs, rates, load, accelerator)),
    )


def _explain(workload: Workload, costs: Costs, accelerator: Accelerator, speech: Speech) -> NoReturn:
    """Name the first operator that is needed and that nothing on the device can run."""
    runs = _average_runs(workload.operators, speech)
    needed = [not operator.rate_known or ran > 0 for operator, ran in zip(workload.operators, runs, strict=True)]
    operator = workload.operators[int(np.argmax(~np.isfinite(costs.total_s[0]) & needed))]
    bits = workload.bit_map.get(operator.layer, LayerBits())
    raise UserError(
        f"{accelerator.name}: no mode holds {operator.layer} with {bits.weight}-bit weights and {bits.activation}-bit "
        "activations; choose other widths, or add a mode or a cpu to the profile."
    )


def candidate_latencies_ms(
    operators: Sequence[Operator], bit_maps: Sequence[BitMap], accelerator: Accelerator, speech: Speech = REFERENCE
) -> np.ndarray:
    """`latency_ms` of many bit maps at once (C,): what `simulate` reports for each; infinite where it refuses, NaN
    where the rate of an operator is not known."""
    if not all(operator.rate_known for operator in operators):
        return np.full(len(bit_maps), np.nan)
    chunks = [bit_maps[start : start + 1024] for start in range(0, len(bit_maps), 1024)]
    found = [np.median(_best_plan(operators, chunk, accelerator, speech)[1], axis=0) for chunk in chunks]
    return 1e3 * np.concatenate(found) if found else np.zeros(0)


def _best_plan(
    operators: Sequence[Operator], bit_maps: Sequence[BitMap], accelerator: Accelerator, speech: Speech
) -> tuple[Costs, np.ndarray]:
    """Costs (C, N) and latencies (utterances, C) in seconds of the placement with the lowest median latency; of equal
    ones, of that with the least computing."""
    columns, bits = Columns(operators), widths(operators, bit_maps)
    first, *others = plans(columns, bits, accelerator, runs_per_second(operators, speech))
    best, latencies = first, _latencies(operators, first, speech)
    for costs in others:
        new = _latencies(operators, costs, speech)
        before, after = np.median(latencies, axis=0), np.median(new, axis=0)
        better, equal = after < before, after == before
        if equal.any():
            rates = _average_runs(operators, speech)
            better |= equal & (_load(costs, rates).sum(axis=1) < _load(best, rates).sum(axis=1))
        best, latencies = costs.where(better[:, None], best), np.where(better, new, latencies)
    return best, latencies


def _load(costs: Costs, rates: np.ndarray) -> np.ndarray:
    """Seconds of computing per second of speech, of each operator (C, N)."""
    return np.multiply(costs.total_s, rates, out=np.zeros(costs.total_s.shape), where=rates > 0)


def _latencies(operators: Sequence[Operator], costs: Costs, speech: Speech) -> np.ndarray:
    """User-perceived latencies (utterances, C) in seconds."""
    possible = np.isfinite(costs.total_s)
    seconds = np.where(possible, costs.total_s, 0.0)
    found, needed = [], np.array([not operator.rate_known for operator in operators])
    for duration_s, labels in zip(speech.durations_s, speech.labels, strict=True):
        times, runs = schedule(operators, duration_s, labels, speech.tail_ms)
        found.append(latency_s(seconds, times, runs))
        needed |= runs.any(axis=1)
    return np.where((possible | ~needed).all(axis=1), np.stack(found), np.inf)


def _average_runs(operators: Sequence[Operator], speech: Speech) -> np.ndarray:
    """Runs of each operator per second of speech (N,), as scheduled: work in the silence after speech included."""
    runs = np.zeros(len(operators))
    for duration_s, labels in zip(speech.durations_s, speech.labels, strict=True):
        runs += schedule(operators, duration_s, labels, speech.tail_ms)[1].sum(axis=1)
    return runs / sum(speech.durations_s)


def _operator_reports(
    workload: Workload, costs: Costs, rates: np.ndarray, load: np.ndarray, accelerator: Accelerator
) -> list[OperatorReport]:
    bits = widths(workload.operators, [workload.bit_map])
    lone_cpu = accelerator.processor.dataflow == "vector"
    reports, untimed = [], {operator.layer for operator in workload.operators if not operator.rate_known}
    for i, operator in enumerate(workload.operators):
        known = operator.layer not in untimed
        if known and rates[i] == 0:
            continue
        reports.append(
            OperatorReport(
                name=operator.name,
                layer=operator.layer,
                weight_bits=int(bits.weight[0, i]),
                activation_bits=int(bits.activation[0, i]),
                processor="cpu" if costs.on_cpu[0, i] or lone_cpu else "accelerator",
                bound=bound(costs, i),
                runs=float(rates[i]) if known else None,
                macs=operator.macs,
                cycles=round(float(costs.cycles[0, i])),
                dram_bytes=float(costs.dram_bytes[0, i]),
                sram_bytes=float(costs.sram_bytes[0, i]),
                us=float(1e6 * costs.total_s[0, i]),
                stall_us=float(1e6 * stall_s(costs, i)),
                utilization=float(costs.utilization[0, i]),
                load=float(load[i]) if known else None,
                energy_uj=float(1e6 * costs.energy_j[0, i]),
            )
        )
    return reports


def bound(costs: Costs, i: int) -> str:
    """Which part of operator i's time is the longest."""
    parts = {
        "compute": costs.compute_s,
        "bandwidth": costs.dram_s,
        "on-chip bandwidth": costs.sram_s,
        "element-wise": costs.elementwise_s,
        "expansion": costs.expansion_s,
        "hand-over": costs.handover_s,
    }
    return max(parts, key=lambda name: float(parts[name][0, i]))


def stall_s(costs: Costs, i: int) -> float:
    """How long operator i waits for memory, in seconds."""
    busy = max(costs.compute_s[0, i], costs.elementwise_s[0, i], costs.expansion_s[0, i])
    return max(float(costs.total_s[0, i] - costs.handover_s[0, i] - busy), 0.0)


def milliseconds(value: float | None) -> str:
    """A latency for people."""
    return UNKNOWN if value is None else f"{value:.2f} ms"
