"""Row: bit maps of the recognizer priced in one batch, beside one simulation each; the bar is 10,000 a second."""

import random
from collections.abc import Iterable

from benchmarks.row import Row
from benchmarks.timing import interleaved
from qstudy.bits import BitMap, resolve
from qstudy.hardware.accelerator import load_accelerator
from qstudy.hardware.simulator import candidate_latencies_ms, simulate
from qstudy.hardware.workload import workload
from qstudy.model import RNNT, ModelConfig
from qstudy.settings import FeatureSettings

CANDIDATES, ONE_BY_ONE, BAR_PER_S = 2000, 50, 10_000
BINS, LABELS = 40, 29
ROUNDS = 5


def rows() -> Iterable[Row]:
    """Bit maps with a random width per layer on the edge accelerator."""
    shapes = RNNT(ModelConfig(), FeatureSettings(bins=BINS), LABELS).shapes()
    names = [shape.name for shape in shapes if shape.matrices]
    generator = random.Random(0)

    def bit_map() -> BitMap:
        return resolve(
            {name: {"weight": generator.choice([2, 3, 4, 5, 6, 8]), "activation": 8} for name in names}, shapes
        )

    maps = [bit_map() for _ in range(CANDIDATES)]
    works = [workload(shapes, bits) for bits in maps[:ONE_BY_ONE]]
    accelerator = load_accelerator("edge_nna")
    times = interleaved(
        {
            "batch": lambda: candidate_latencies_ms(works[0].operators, maps, accelerator),
            "one by one": lambda: [simulate(work, accelerator) for work in works],
        },
        ROUNDS,
    )
    yield Row(
        what=f"Simulate {CANDIDATES} bit maps of a recognizer ({1000 * CANDIDATES / times['batch']:,.0f} a second)",
        unit="ms",
        peer="qstudy, one simulation each",
        ours=times["batch"],
        theirs=times["one by one"] * CANDIDATES / ONE_BY_ONE,
        reference_is=f"the bar: {BAR_PER_S:,} a second",
        reference=1000 * CANDIDATES / BAR_PER_S,
    )
