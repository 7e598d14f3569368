"""The simulator: hand-computed cases, and sums of parts."""

import itertools
import json
from dataclasses import replace

import numpy as np
import pytest
from digits_shapes import DIGITS

from qstudy.bits import LayerBits, LayerShape, resolve
from qstudy.errors import UserError
from qstudy.hardware.accelerator import Accelerator, Handover, Memory, Mode, Processor, load_accelerator
from qstudy.hardware.memory import weight_bytes
from qstudy.hardware.search import GREEDY, Search
from qstudy.hardware.simulator import Report, candidate_latencies_ms, simulate
from qstudy.hardware.size import size_bytes
from qstudy.hardware.stream import Speech, joint_period_ms, schedule
from qstudy.hardware.table import Columns
from qstudy.hardware.table import widths as table_widths
from qstudy.hardware.workload import workload
from qstudy.model import RNNT
from qstudy.model.shapes_only import shapes_only
from qstudy.settings import FeatureSettings, ModelConfig
from qstudy.training.price import Price

# One linear layer of 100 x 50 at 8 bits every 10 ms, on an array whose every number is round.
LAYER = LayerShape("layer", "linear", ((100, 50),), activations=1, every_ms=10.0)
ARRAY = Processor(
    clock_mhz=1.0,
    rows=10,
    columns=10,
    dataflow="weight_stationary",
    modes=(Mode(8, 8),),
    elementwise_per_cycle=1e9,
    nonlinear_per_cycle=1e9,
)
ONE_SECOND = Speech((1.0,), (0,), tail_ms=0.0)


def device(sram_kib: float, dram_gb_per_s: float) -> Accelerator:
    return Accelerator("test", ARRAY, Memory(sram_kib=sram_kib, sram_gb_per_s=1e6, dram_gb_per_s=dram_gb_per_s))


def test_compute_bound_by_hand() -> None:
    bits = resolve({"*": {"weight": 8, "activation": 8}}, [LAYER])
    report = simulate(workload([LAYER], bits), device(sram_kib=1024, dram_gb_per_s=1.0), ONE_SECOND)
    cycles = 5 * 10 * (2 * 10 + 10 + 1 - 2)  # tiles x cycles of a tile
    (operator,) = report.operators
    assert operator.cycles == cycles
    assert operator.bound == "compute"
    assert operator.dram_bytes == 0
    assert operator.us == pytest.approx(cycles, rel=1e-4)
    assert report.rtf == pytest.approx(100 * cycles * 1e-6, rel=1e-4)
    assert report.latency_ms == pytest.approx(cycles / 1000, rel=1e-4)  # the last frame's work


def test_bandwidth_bound_by_hand() -> None:
    bits = resolve({"*": {"weight": 4, "activation": 8}}, [LAYER])
    report = simulate(workload([LAYER], bits), device(sram_kib=150 / 1024, dram_gb_per_s=1e-3), ONE_SECOND)
    (operator,) = report.operators
    assert operator.bound == "bandwidth"
    # Inputs and outputs, 50 + 100 bytes, just fit on chip; packed weights and their scales do not.
    assert operator.dram_bytes == 100 * 50 / 2 + 100 * 4
    # 2.9 ms at 1 MB/s, and 1.45 ms of computing, of which one tile of 50 does not overlap
    assert operator.us == pytest.approx(2900 + 1450 / 50, rel=1e-4)
    assert operator.stall_us == pytest.approx(operator.us - 1450, rel=1e-4)


def test_backlog_when_computing_is_slower_than_speech() -> None:
    bits = resolve({"*": {"weight": 8, "activation": 8}}, [LAYER])
    accelerator = device(sram_kib=0, dram_gb_per_s=0.5e-3)
    report = simulate(workload([LAYER], bits), accelerator, ONE_SECOND)
    service_s = report.operators[0].us / 1e6
    assert report.rtf > 1
    assert report.latency_ms == pytest.approx(1e3 * (0.010 + 100 * service_s - 1.0))  # never idle after the first frame


def test_totals_are_sums_of_parts() -> None:
    bits = resolve({"*": {"weight": 4, "activation": 8}}, DIGITS)
    report = simulate(workload(DIGITS, bits), load_accelerator("edge_nna"))
    assert report.rtf == pytest.approx(sum(operator.us * 1e-6 * operator.runs for operator in report.operators))
    assert report.dram_mb_per_s == pytest.approx(sum(o.dram_bytes * o.runs for o in report.operators) / 1e6)
    assert report.energy_mj_per_s == pytest.approx(sum(o.energy_uj * o.runs for o in report.operators) / 1e3)
    assert json.loads(json.dumps(report.to_dict())) == json.loads(json.dumps(report.to_dict(), allow_nan=False))


def test_candidates_equal_single_simulations() -> None:
    generator = np.random.default_rng(0)
    names = [shape.name for shape in DIGITS if shape.matrices]
    maps = []
    for _ in range(20):
        chosen = generator.choice([2, 3, 4, 6, 8, 16, 32], len(names))
        maps.append(
            resolve({n: {"weight": int(w), "activation": 8} for n, w in zip(names, chosen, strict=True)}, DIGITS)
        )
    accelerator = load_accelerator("edge_nna")
    together = candidate_latencies_ms(workload(DIGITS, maps[0]).operators, maps, accelerator)
    alone = [simulate(workload(DIGITS, bits), accelerator).latency_ms for bits in maps]
    np.testing.assert_allclose(together, alone, rtol=1e-12)
    assert len(set(alone)) > 10  # widths are visible


def test_float_layers_run_on_the_cpu() -> None:
    bits = resolve({"*": {"weight": 8, "activation": 8}, "encoder.lstm.1": {"weight": 32, "activation": 32}}, DIGITS)
    edge = load_accelerator("edge_nna")
    fast = replace(edge, memory=Memory(sram_kib=1e6, sram_gb_per_s=1e3, dram_gb_per_s=1e3))  # so that computing matters
    report = simulate(workload(DIGITS, bits), fast)
    processors = {operator.layer: operator.processor for operator in report.operators if operator.runs}
    assert {layer for layer, processor in processors.items() if processor == "cpu"} == {"encoder.lstm.1"}


def test_widths_that_nothing_holds() -> None:
    accelerator = device(sram_kib=1, dram_gb_per_s=1)  # 8 bits alone, and no CPU
    with pytest.raises(UserError, match="layer with 32-bit weights"):
        simulate(workload([LAYER], {}), accelerator)
    maps = [resolve({"*": {"weight": w, "activation": 8}}, [LAYER]) for w in (8, 16)]
    latencies = candidate_latencies_ms(workload([LAYER], {}).operators, maps, accelerator)
    assert np.isfinite(latencies).tolist() == [True, False]


def test_what_multiplies_nothing_needs_no_mode_of_its_width_where_units_compute_in_floats() -> None:
    """A softmax in float stays on an accelerator whose multipliers take 4 and 8 bits only."""
    scores = LayerShape("softmax", "softmax", activations=1, every_ms=10.0, outputs=50)
    bits = {"layer": LayerBits(4, 4), "softmax": LayerBits()}
    narrow = replace(ARRAY, modes=(Mode(8, 8), Mode(4, 4)))
    cpu = replace(ARRAY, modes=(Mode(32, 32),), clock_mhz=0.1)
    for units, on_cpu in (("floats", [False, False]), ("integers", [False, True])):
        machine = replace(
            device(sram_kib=1024, dram_gb_per_s=1.0),
            processor=replace(narrow, elementwise_in=units),
            cpu=cpu,
            handover=Handover(latency_us=1.0, gb_per_s=1.0),
        )
        report = simulate(workload([LAYER, scores], bits), machine, ONE_SECOND)
        assert [operator.processor == "cpu" for operator in report.operators] == on_cpu


def test_of_equally_fast_modes_the_one_of_least_energy_is_taken() -> None:
    """Where element-wise work sets the pace."""
    slow = replace(ARRAY, nonlinear_per_cycle=1e-3, modes=(Mode(8, 8, mac_pj=4.0), Mode(4, 4, mac_pj=1.0)))
    machine = replace(device(sram_kib=1024, dram_gb_per_s=1.0), processor=slow)
    lstm = LayerShape("lstm", "lstm", ((80, 20), (80, 20)), activations=2, every_ms=10.0)
    energies = []
    for modes in (slow.modes, slow.modes[1:]):
        report = simulate(
            workload([lstm], {"lstm": LayerBits(4, 4)}),
            replace(machine, processor=replace(slow, modes=modes)),
            ONE_SECOND,
        )
        energies.append(report.to_dict()["energy_mj_per_s"])
    assert energies[0] == energies[1]


def test_unknown_kind() -> None:
    with pytest.raises(UserError, match="kind"):
        workload([LayerShape("layer", "rnn", ((8, 8),))], {})


def test_of_equally_fast_placements_the_one_that_computes_least_is_taken() -> None:
    """All work is done before speech ends, with a hand-over to the CPU or without: both latencies are 0."""
    shape = LayerShape("layer", "linear", ((64, 64),), every_ms=500.0)
    bits = resolve({"*": {"weight": 8, "activation": 8, "placement": "cpu"}}, [shape])
    report = simulate(workload([shape], bits), load_accelerator("edge_nna"), Speech((1.4,), (0,), tail_ms=0.0))
    (operator,) = report.operators
    assert (report.latency_ms, operator.processor) == (0, "cpu")
    assert operator.us < 2 * load_accelerator("edge_nna").handover.latency_us  # type: ignore[union-attr]


@pytest.mark.parametrize("preset", ["bilstm", "cascaded"])
def test_short_utterances_are_encoded_too(preset: str) -> None:
    """What waits for the end of an utterance is in chunks of 4 s: work and waiting grow with the speech there is."""
    with shapes_only():
        model = RNNT(ModelConfig(preset=preset), FeatureSettings(), 30)
    load, seconds = workload(model.shapes(), {}), np.array([1.0, 2.0, 3.9, 4.1, 5.0, 7.9])
    tail_s = Speech((1.0,), (0,)).tail_ms / 1000
    reports = [simulate(load, load_accelerator("mobile_npu"), Speech((s,), (round(12 * s),))) for s in seconds]
    encoder = [[op for op in report.operators if op.layer.startswith("encoder.")] for report in reports]
    assert {len(operators) for operators in encoder} == {len(encoder[0])}
    macs = [sum(op.macs * (op.runs or 0) for op in operators) for operators in encoder]
    np.testing.assert_allclose(macs * seconds / (seconds + tail_s), macs[-1] * 7.9 / 8.2, rtol=0.03)
    waits = np.array([report.latency_ms for report in reports])
    per_second = np.diff(waits) / np.diff(seconds)
    assert per_second.min() > 0.5 * per_second.max()


@pytest.mark.parametrize("search", [GREEDY, Search(4, expansions=2)], ids=["greedy", "expansions"])
@pytest.mark.parametrize("preset", ["bilstm", "cascaded", "lstm"])
def test_a_step_is_a_joint_period(preset: str, search: Search) -> None:
    """However many frames the encoder takes at once, and whether or not a label has the joiner run again."""
    with shapes_only():
        model = RNNT(ModelConfig(preset=preset), FeatureSettings(), 30)
    load = workload(model.shapes(), {}, search=search)
    report = simulate(load, load_accelerator("edge_nna"))
    assert joint_period_ms(load.operators) == model.encoder.output_ms
    assert report.step_ms == pytest.approx(report.rtf * model.encoder.output_ms)
    if preset == "cascaded":  # the first pass speaks while it hears
        times, runs = schedule(load.operators, 4.0, 48, 300.0)
        first = np.array([op.name.startswith("predictor.") and not op.after_end for op in load.operators])
        assert runs[first][:, times <= 2.0].sum() == pytest.approx(runs[first].sum() / 2, rel=0.1)


def test_totals_are_unknown_where_a_rate_is() -> None:
    """Per run all is known; a constant, which nobody times, is no layer that lacks a rate."""
    accelerator = load_accelerator("edge_nna")
    timed = replace(LAYER, every_ms=30.0)
    untimed = replace(LAYER, name="other", every_ms=None, per_label=0.0)
    constant = LayerShape("mean", "constant", vectors=80)
    known = simulate(workload([timed, constant], {}), accelerator)
    report = simulate(workload([timed, untimed, constant], {}), accelerator)
    assert known.untimed == []
    assert report.untimed == ["other"]
    totals = (report.latency_ms, report.latency_p95_ms, report.rtf, report.step_ms, report.dram_mb_per_s)
    assert totals == (None,) * 5
    first, other = report.operators
    assert (first.runs, first.load) == (known.operators[0].runs, known.operators[0].load)
    assert (other.runs, other.load) == (None, None)
    assert (other.us, other.macs) == (first.us, first.macs)
    operators = workload([timed, untimed], {}).operators
    assert np.isnan(candidate_latencies_ms(operators, [{}, {}], accelerator)).all()


def test_nothing_to_price() -> None:
    with pytest.raises(UserError, match="nothing has no layers"):
        simulate(workload([], {}, name="nothing"), load_accelerator("edge_nna"))


CHUNKS = LayerShape("lstm", "lstm", ((1024, 256), (1024, 256)), 1024, 2, every_ms=40.0, frames=100)


def placed(shapes: list[LayerShape], widths: dict[str, object], accelerator: str = "mobile_npu") -> Report:
    return simulate(workload(shapes, resolve({"*": widths}, shapes)), load_accelerator(accelerator))


def test_a_chunk_goes_where_all_of_its_frames_are_cheapest() -> None:
    """Its first product runs once a chunk, its cell once a frame; none may count as much as the other."""
    large = LayerShape("large", "linear", ((2048, 2048),), 2048, 1, every_ms=40.0)
    integers = {"weight": 8, "activation": 8}
    found = {p: placed([CHUNKS, large], {**integers, "placement": p}).latency_ms for p in ("products", "cpu")}
    assert found["products"] <= found["cpu"]


def test_a_chunk_crosses_to_the_cpu_once_and_back() -> None:
    accelerator = load_accelerator("edge_nna")
    assert accelerator.handover is not None
    at_once = replace(accelerator, handover=replace(accelerator.handover, latency_us=1e-9))
    large = LayerShape("large", "linear", ((256, 1024),), 0, 1, every_ms=40.0, frames=100)  # not for the CPU
    widths = {"lstm": {"placement": "cpu"}, "large": {"weight": 8, "activation": 8}}
    load = workload([CHUNKS, large], resolve(widths, [CHUNKS, large]))
    waiting, not_waiting = (simulate(load, device).operators for device in (accelerator, at_once))
    crossings = sum(a.runs * (a.us - b.us) for a, b in zip(waiting, not_waiting, strict=True) if a.layer == "lstm")
    assert crossings == pytest.approx(waiting[0].runs * 2 * accelerator.handover.latency_us, rel=1e-6)


def test_branches_share_all_frames() -> None:
    """Two that take turns cost what one costs that takes all, whatever the share, and when the speech ends."""
    alone = replace(LAYER, every_ms=40.0)
    for share, duration_s in itertools.product((0.29, 0.5, 1 / 3), (1.0, 2.01, 3.7)):
        pair = [replace(alone, name=name, share=part) for name, part in (("full", share), ("cheap", 1 - share))]
        one, two = (
            simulate(
                workload(shapes, resolve({"*": {"weight": 8, "activation": 8}}, shapes)), device(1024, 1.0), speech
            )
            for speech in [Speech((duration_s,), (0,))]
            for shapes in ([alone], pair)
        )
        assert two.rtf == pytest.approx(one.rtf)
        assert two.latency_ms == pytest.approx(one.latency_ms)


@pytest.mark.parametrize("widths", [{"weight": 8}, {"weight": 4}, {"weight": 4, "granularity": "group", "group": 64}])
def test_a_table_of_embeddings_is_as_large_as_its_file_says(widths: dict[str, object]) -> None:
    table = LayerShape("table", "embedding", ((30, 256),), per_label=1.0)
    bits = resolve({"*": widths}, [table])
    operators = workload([table], bits).operators
    columns = Columns(operators)
    assert weight_bytes(columns, table_widths(operators, [bits])).item() == size_bytes([table], bits)


def test_rows_that_do_not_fit_on_chip_go_through_dram() -> None:
    table = LayerShape("table", "embedding", ((1000, 4096),), per_label=1.0)
    bits = resolve({"*": {"weight": 8, "activation": 8}}, [table])
    chip, none = (simulate(workload([table], bits), device(kib, 1.0)).operators[0].dram_bytes for kib in (16, 0))
    assert chip == pytest.approx(4096, rel=0.01)  # a row is read
    assert none == 2 * 4096  # what is read, written


def test_what_does_not_run_is_not_to_blame() -> None:
    mean = LayerShape("features.mean", "constant", vectors=40)
    with pytest.raises(UserError, match="no mode holds layer with 16-bit weights"):
        simulate(
            workload([mean, LAYER], resolve({"layer": {"weight": 16, "activation": 16}}, [LAYER])), device(1024, 1)
        )


def test_a_layer_without_a_rate_is_told_whole() -> None:
    untimed = replace(CHUNKS, every_ms=None, frames=1)
    report = placed([untimed, LAYER], {"weight": 8, "activation": 8})
    assert [op.name for op in report.operators if op.layer == "lstm"] == ["lstm/input", "lstm/hidden", "lstm/cell"]
    assert all(op.runs is None for op in report.operators if op.layer == "lstm")


def test_mean_widths_are_those_of_matrices() -> None:
    """Biases stay float; a norm has no weight that is multiplied."""
    norm = LayerShape("norm", "constant", vectors=10_000)
    bits = resolve({"*": {"weight": 4, "activation": 8}}, [LAYER, norm])
    assert Price(bits, [LAYER, norm], 0, {}).widths == "W4 A8"
