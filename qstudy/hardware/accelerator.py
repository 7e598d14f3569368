"""Descriptions of accelerators, read from YAML: the package's profiles by name, or a user's own file."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from annotated_types import Ge, Le, MinLen
from pydantic import ConfigDict

from qstudy.errors import UserError, naming
from qstudy.fields import Name, fill
from qstudy.yaml_file import load_yaml

PROFILES = Path(__file__).parent / "profiles"
DEFAULT = "edge_nna"
"""The profile of whoever names none."""
Dataflow = Literal["weight_stationary", "output_stationary", "vector"]
DATAFLOWS: tuple[Dataflow, ...] = get_args(Dataflow)
Fill = Literal["serial", "overlapped"]
FILLS: tuple[Fill, ...] = get_args(Fill)

Rate = Annotated[float, Ge(1e-9), Le(1e12)]
"""Something divides by it."""
Amount = Annotated[float, Ge(0), Le(1e12)]
Whole = Annotated[int, Ge(1), Le(1_000_000)]
Bits = Annotated[int, Ge(1), Le(32)]


@dataclass(frozen=True)
class Mode:
    """One arithmetic that a processor multiplies in; a matmul runs in the fastest mode that holds both its widths."""

    __pydantic_config__ = ConfigDict(extra="forbid")  # an unknown field is a mistake

    weight: Bits
    """Widest weight in bits."""
    activation: Bits
    """Widest activation in bits."""
    macs: Rate = 1.0
    """Multiply-accumulates per cell and cycle."""
    mac_pj: Amount = 0.0
    """Picojoules per multiply-accumulate."""


@dataclass(frozen=True)
class Processor:
    """What multiplies: a systolic array with its element-wise units, or the vector unit of a CPU."""

    clock_mhz: Rate
    rows: Whole
    """Rows of the array, along the inner dimension of a weight-stationary product."""
    columns: Whole
    """Columns of the array; for `vector`, rows x columns are the lanes along the inner dimension."""
    dataflow: Dataflow
    modes: Annotated[tuple[Mode, ...], MinLen(1)]
    fill: Fill = "serial"
    """Whether an array begins a tile when the last one has left it (`serial`), or while that is still computed, from a
    second set of registers in each cell (`overlapped`)."""
    cores: Whole = 1
    """Arrays that share the output channels of a product."""
    elementwise_per_cycle: Rate = 1.0
    """Additions, products and requantizations per cycle and core."""
    nonlinear_per_cycle: Rate = 1.0
    """Sigmoid and tanh values per cycle and core."""
    weights_per_cycle: Rate | None = None
    """Weight bytes after table expansion per cycle and core: weights of up to 8 bits pass it at one rate whatever
    their width, 16 bits at half of it. Absent: as fast as they are needed."""
    elementwise_pj: Amount = 0.0
    """Picojoules per element-wise or non-linear operation."""
    elementwise_in: Literal["integers", "floats"] = "integers"
    """What the element-wise units compute in. With floats, operators that were not trained in the accelerator's
    integers (`LayerBits.placement` is `products`) lose nothing there, and stay on it."""

    def __post_init__(self) -> None:
        if self.dataflow == "vector" and self.fill != "serial":
            raise UserError(f"fill: vector lanes have no tile to fill; leave out {self.fill!r}.")


@dataclass(frozen=True)
class Memory:
    """On-chip memory, and what lies behind it."""

    sram_kib: Amount
    sram_gb_per_s: Rate
    """Bandwidth of the port between on-chip memory and the processors."""
    dram_gb_per_s: Rate
    dram_latency_us: Amount = 0.0
    """Wait before the first byte of a weight stream; later bytes are prefetched."""
    sram_pj_per_byte: Amount = 0.0
    dram_pj_per_byte: Amount = 0.0


@dataclass(frozen=True)
class Handover:
    """Moving activations between accelerator and CPU, once per direction."""

    latency_us: Amount
    gb_per_s: Rate


@dataclass(frozen=True)
class Accelerator:
    """A device: one processor, or an accelerator with a CPU beside it, and their memory."""

    name: Name
    processor: Processor
    memory: Memory
    cpu: Processor | None = None
    cpu_memory: Memory | None = None
    """The CPU's own; absent: it shares the accelerator's."""
    handover: Handover | None = None

    @property
    def has_energy(self) -> bool:
        """Whether the profile says what a byte and a multiply-accumulate cost."""
        return self.memory.dram_pj_per_byte > 0


def profile_names() -> list[str]:
    """Names of the profiles that come with the package."""
    return sorted(path.stem for path in PROFILES.glob("*.yaml"))


def load_accelerator(name_or_path: str) -> Accelerator:
    """Read a profile of the package by its name, or a YAML file by its path.

    Raises:
        UserError: no such profile or file, or a field is missing, unknown, or out of range.
    """
    path = Path(name_or_path)
    if not path.suffix:
        path, known = PROFILES / f"{name_or_path}.yaml", ", ".join(profile_names())
        if name_or_path not in profile_names():
            raise UserError(f"No accelerator {name_or_path!r}; give the path of a YAML file or one of {known}.")
    return _accelerator(load_yaml(path), path)


def _accelerator(raw: dict[str, Any], path: Path) -> Accelerator:
    with naming(path):
        accelerator = fill(Accelerator, {"name": path.stem, **raw})
    if accelerator.cpu is not None and accelerator.handover is None:
        raise UserError(f"{path}: handover: this field is missing; it says what crossing over to the cpu costs.")
    if accelerator.cpu is None and accelerator.cpu_memory is not None:
        raise UserError(f"{path}: cpu_memory: there is no cpu whose it is; add the field `cpu`, or leave this one out.")
    return accelerator
