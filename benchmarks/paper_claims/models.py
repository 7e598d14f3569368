"""What all claims price: models by their sizes, in one width for all layers, and models of the same shape but wider."""

from dataclasses import replace
from pathlib import Path

from qstudy.bits import BitMap, LayerShape, resolve
from qstudy.hardware.accelerator import Accelerator
from qstudy.hardware.model_shapes import Sizes, load_sizes
from qstudy.hardware.size import size_bytes
from qstudy.hardware.workload import Workload, workload

FOLDER = Path(__file__).parent


def sizes(name: str) -> Sizes:
    """A YAML of this folder."""
    return load_sizes(FOLDER / f"{name}.yaml")


def widths(shapes: tuple[LayerShape, ...], weight: int, activation: int) -> BitMap:
    """The same widths for every layer."""
    return resolve({"*": {"weight": weight, "activation": activation}}, shapes)


def scaled(shapes: tuple[LayerShape, ...], factor: float) -> tuple[LayerShape, ...]:
    """The model with every inner dimension of its matrices `factor` times as large (to a multiple of 4).

    Dimensions of the task stay: the first layer's inputs, and the labels.
    """
    task = {shapes[0].matrices[0][1], *(s.matrices[0][0] for s in shapes if s.kind == "embedding")}

    def size(n: int) -> int:
        return n if n in task else 4 * round(n * factor / 4)

    return tuple(
        replace(shape, matrices=tuple((size(r), size(c)) for r, c in shape.matrices), vectors=size(shape.vectors))
        for shape in shapes
    )


def in_bits(shapes: tuple[LayerShape, ...], weight: int, activation: int = 8) -> Workload:
    """A workload in one width."""
    return workload(shapes, widths(shapes, weight, activation))


def megabytes(shapes: tuple[LayerShape, ...], weight: int) -> float:
    """Packed size in MB (1e6)."""
    return size_bytes(shapes, widths(shapes, weight, 8)) / 1e6


def with_bandwidth(accelerator: Accelerator, dram_gb_per_s: float) -> Accelerator:
    """The device with another DRAM, its CPU's included."""
    memory = replace(accelerator.memory, dram_gb_per_s=dram_gb_per_s)
    cpu = accelerator.cpu_memory and replace(accelerator.cpu_memory, dram_gb_per_s=dram_gb_per_s)
    return replace(accelerator, memory=memory, cpu_memory=cpu)
