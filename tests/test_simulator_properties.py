"""Properties of the simulator over random devices and bit maps: what must never make a device slower."""

from dataclasses import replace

import numpy as np
import pytest
from digits_shapes import DIGITS
from hypothesis import given, settings
from hypothesis import strategies as st

from qstudy.bits import WIDTHS, BitMap, LayerBits
from qstudy.hardware.accelerator import DATAFLOWS, Accelerator, Handover, Memory, Mode, Processor
from qstudy.hardware.search import Search
from qstudy.hardware.simulator import simulate
from qstudy.hardware.stream import Speech
from qstudy.hardware.workload import workload

NAMES = [shape.name for shape in DIGITS if shape.matrices]
SPEECH = Speech((1.3, 3.1, 0.4), (11, 40, 2))
MODES = [
    (Mode(8, 8),),
    (Mode(8, 8), Mode(8, 16, macs=0.5)),
    (Mode(16, 16), Mode(8, 8, macs=4), Mode(4, 4, macs=8)),
    (Mode(32, 32), Mode(8, 8, macs=2)),
]
TOLERANCE = 1 + 1e-9  # rounding


def log_floats(low: float, high: float) -> st.SearchStrategy[float]:
    return st.floats(np.log(low), np.log(high)).map(lambda x: float(np.exp(x)))


processors = st.builds(
    Processor,
    clock_mhz=log_floats(10, 2000),
    rows=st.sampled_from([1, 4, 16, 128]),
    columns=st.sampled_from([1, 8, 64]),
    dataflow=st.sampled_from(DATAFLOWS),
    modes=st.sampled_from(MODES),
    cores=st.sampled_from([1, 2, 4]),
    elementwise_per_cycle=log_floats(0.1, 100),
    nonlinear_per_cycle=log_floats(0.01, 100),
    weights_per_cycle=st.none() | log_floats(0.5, 500),
)
arrays = processors.filter(lambda processor: processor.dataflow != "vector")
processors |= arrays.map(lambda array: replace(array, fill="overlapped"))
memories = st.builds(
    Memory,
    sram_kib=st.just(0.0) | log_floats(1, 20000),
    sram_gb_per_s=log_floats(0.1, 1000),
    dram_gb_per_s=log_floats(0.01, 100),
    dram_latency_us=log_floats(0.01, 10),
)
cpus = processors.map(lambda cpu: replace(cpu, modes=(Mode(32, 32), *cpu.modes), dataflow="vector", fill="serial"))
handovers = st.builds(Handover, latency_us=log_floats(0.1, 1000), gb_per_s=log_floats(0.01, 10))
accelerators = st.builds(
    Accelerator,
    name=st.just("random"),
    processor=processors,
    memory=memories,
    cpu=cpus,
    cpu_memory=st.none() | memories,
    handover=handovers,
)
layer_bits = st.builds(
    LayerBits,
    weight=st.sampled_from(WIDTHS),
    activation=st.sampled_from(WIDTHS),
    granularity=st.sampled_from(["channel", "tensor"]),
    placement=st.sampled_from(["accelerator"] * 4 + ["cpu"]),
)
bit_maps = st.fixed_dictionaries(dict.fromkeys(NAMES, layer_bits))
quickly = settings(max_examples=60, deadline=None)


def latency(bit_map: BitMap, accelerator: Accelerator, beam: int = 1) -> float:
    return simulate(workload(DIGITS, bit_map, search=Search(beam)), accelerator, SPEECH).latency_ms


@quickly
@given(
    bit_maps, accelerators, st.sampled_from(NAMES), st.sampled_from(["weight", "activation"]), st.sampled_from(WIDTHS)
)
def test_fewer_bits_are_never_slower(
    bit_map: BitMap, accelerator: Accelerator, name: str, field: str, fewer: int
) -> None:
    fewer = min(fewer, getattr(bit_map[name], field))
    changed = {**bit_map, name: replace(bit_map[name], **{field: fewer})}
    assert latency(changed, accelerator) <= latency(bit_map, accelerator) * TOLERANCE


@quickly
@given(bit_maps, accelerators, st.sampled_from(["sram_kib", "sram_gb_per_s", "dram_gb_per_s"]), st.floats(1, 20))
def test_more_memory_is_never_slower(bit_map: BitMap, accelerator: Accelerator, field: str, factor: float) -> None:
    more = getattr(accelerator.memory, field) * factor + (field == "sram_kib")
    better = replace(accelerator, memory=replace(accelerator.memory, **{field: more}))
    assert latency(bit_map, better) <= latency(bit_map, accelerator) * TOLERANCE


@quickly
@given(bit_maps, accelerators, st.sampled_from(["processor", "cpu"]), st.floats(1, 20))
def test_a_faster_clock_is_never_slower(bit_map: BitMap, accelerator: Accelerator, part: str, factor: float) -> None:
    processor = getattr(accelerator, part)
    better = replace(accelerator, **{part: replace(processor, clock_mhz=processor.clock_mhz * factor)})
    assert latency(bit_map, better) <= latency(bit_map, accelerator) * TOLERANCE


@quickly
@given(bit_maps, accelerators, st.sampled_from(["processor", "cpu"]), st.floats(1, 20))
def test_a_faster_clock_adds_computing_only_by_another_placement(
    bit_map: BitMap, accelerator: Accelerator, part: str, factor: float
) -> None:
    """The lowest latency may be had by computing more; where nothing moves, a faster part computes less."""
    processor = getattr(accelerator, part)
    better = replace(accelerator, **{part: replace(processor, clock_mhz=processor.clock_mhz * factor)})
    before, after = (simulate(workload(DIGITS, bit_map), each, SPEECH) for each in (accelerator, better))
    moved = [op.processor for op in before.operators] != [op.processor for op in after.operators]
    assert moved or after.rtf <= before.rtf * TOLERANCE


@quickly
@given(bit_maps, accelerators, st.integers(1, 16), st.integers(0, 16))
def test_a_wider_beam_is_never_faster(bit_map: BitMap, accelerator: Accelerator, beam: int, more: int) -> None:
    assert latency(bit_map, accelerator, beam) <= latency(bit_map, accelerator, beam + more) * TOLERANCE


@quickly
@given(bit_maps, accelerators)
def test_parts_sum_to_totals(bit_map: BitMap, accelerator: Accelerator) -> None:
    report = simulate(workload(DIGITS, bit_map), accelerator, SPEECH)
    busy_s = sum(operator.us * 1e-6 * operator.runs for operator in report.operators)
    assert report.rtf == pytest.approx(busy_s)
    assert sum(operator.load for operator in report.operators) == pytest.approx(report.rtf)
    assert report.dram_mb_per_s * 1e6 == pytest.approx(sum(o.dram_bytes * o.runs for o in report.operators))
    for operator in report.operators:
        assert 0 <= operator.stall_us <= operator.us * TOLERANCE
        assert 0 <= operator.utilization <= TOLERANCE
    assert report.latency_ms <= report.latency_p95_ms * TOLERANCE


@quickly
@given(bit_maps, accelerators, st.floats(0.1, 10))
def test_units(bit_map: BitMap, accelerator: Accelerator, factor: float) -> None:
    """A device that is `factor` times faster in everything computes the same in 1/factor of the time."""
    speed_up = {
        "clock_mhz": 1,
        "sram_gb_per_s": 1,
        "dram_gb_per_s": 1,
        "gb_per_s": 1,
        "dram_latency_us": -1,
        "latency_us": -1,
    }
    assert accelerator.cpu
    assert accelerator.handover
    parts = {
        "processor": accelerator.processor,
        "cpu": accelerator.cpu,
        "memory": accelerator.memory,
        "cpu_memory": accelerator.cpu_memory,
        "handover": accelerator.handover,
    }
    scaled = {
        name: replace(
            part, **{f: getattr(part, f) * factor**power for f, power in speed_up.items() if hasattr(part, f)}
        )
        for name, part in parts.items()
        if part
    }
    scaled_accelerator = replace(accelerator, **scaled)
    # Where both plans are equally fast, rounding may choose the other one: loads then differ, latency does not.
    whole = Speech((0.001,), (3,))  # all work waits at the end: latency is proportional
    before = simulate(workload(DIGITS, bit_map), accelerator, whole).latency_ms
    after = simulate(workload(DIGITS, bit_map), scaled_accelerator, whole).latency_ms
    assert after == pytest.approx(before / factor, rel=1e-6)
