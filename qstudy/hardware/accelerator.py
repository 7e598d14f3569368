"""Descriptions of accelerators, read from YAML: the package's profiles by name, or a user's own file."""

from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any

import yaml

from qstudy.errors import UserError

PROFILES = Path(__file__).parent / "profiles"
DATAFLOWS = ("weight_stationary", "output_stationary", "vector")


@dataclass(frozen=True)
class Mode:
    """One arithmetic that a processor multiplies in; a matmul runs in the fastest mode that holds both its widths."""

    weight: int
    """Widest weight in bits."""
    activation: int
    """Widest activation in bits."""
    macs: float = 1.0
    """Multiply-accumulates per cell and cycle."""
    mac_pj: float = 0.0
    """Picojoules per multiply-accumulate."""


@dataclass(frozen=True)
class Processor:
    """What multiplies: a systolic array with its element-wise units, or the vector unit of a CPU."""

    clock_mhz: float
    rows: int
    """Rows of the array, along the inner dimension of a weight-stationary product."""
    columns: int
    """Columns of the array; for `vector`, rows x columns are the lanes along the inner dimension."""
    dataflow: str
    modes: tuple[Mode, ...]
    cores: int = 1
    """Arrays that share the output channels of a product."""
    elementwise_per_cycle: float = 1.0
    """Additions, products and requantizations per cycle and core."""
    nonlinear_per_cycle: float = 1.0
    """Sigmoid and tanh values per cycle and core."""
    weights_per_cycle: float | None = None
    """Weight bytes after table expansion per cycle and core: weights of up to 8 bits pass it at one rate whatever
    their width, 16 bits at half of it. Absent: as fast as they are needed."""
    elementwise_pj: float = 0.0
    """Picojoules per element-wise or non-linear operation."""


@dataclass(frozen=True)
class Memory:
    """On-chip memory, and what lies behind it."""

    sram_kib: float
    sram_gb_per_s: float
    """Bandwidth of the port between on-chip memory and the processors."""
    dram_gb_per_s: float
    dram_latency_us: float = 0.0
    """Wait before the first byte of a weight stream; later bytes are prefetched."""
    sram_pj_per_byte: float = 0.0
    dram_pj_per_byte: float = 0.0


@dataclass(frozen=True)
class Handover:
    """Moving activations between accelerator and CPU, once per direction."""

    latency_us: float
    gb_per_s: float


@dataclass(frozen=True)
class Accelerator:
    """A device: one processor, or an accelerator with a CPU beside it, and their memory."""

    name: str
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
        path = PROFILES / f"{name_or_path}.yaml"
        if not path.exists():
            known = ", ".join(profile_names())
            raise UserError(f"No accelerator {name_or_path!r}; give the path of a YAML file or one of {known}.")
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"Cannot read the accelerator {path}: {error}.") from error
    except yaml.YAMLError as error:
        raise UserError(f"{path} is not valid YAML: {' '.join(str(error).split())}.") from error
    return _accelerator(raw, path)


def _accelerator(raw: Any, path: Path) -> Accelerator:
    if isinstance(raw, dict):
        raw = {"name": path.stem, **raw}
    values = _fields(Accelerator, raw, str(path))
    values["name"] = str(values["name"])
    values["processor"] = _processor(values["processor"], f"{path}: processor")
    values["memory"] = _memory(values["memory"], f"{path}: memory")
    if values.get("cpu_memory") is not None:
        values["cpu_memory"] = _memory(values["cpu_memory"], f"{path}: cpu_memory")
    if values.get("cpu") is not None:
        values["cpu"] = _processor(values["cpu"], f"{path}: cpu")
        handover = _fields(Handover, values.get("handover"), f"{path}: handover")
        values["handover"] = Handover(**_numbers(handover, f"{path}: handover"))
    return Accelerator(**values)


def _memory(raw: Any, where: str) -> Memory:
    return Memory(**_numbers(_fields(Memory, raw, where), where))


def _processor(raw: Any, where: str) -> Processor:
    values = _fields(Processor, raw, where)
    modes, dataflow = values.pop("modes"), values.pop("dataflow")
    if dataflow not in DATAFLOWS:
        raise UserError(f"{where}: dataflow: {dataflow!r} is not one of {', '.join(DATAFLOWS)}.")
    if not isinstance(modes, list) or not modes:
        raise UserError(f"{where}: modes: needs a list of at least one mode, e.g. {{weight: 8, activation: 8}}.")
    values = _numbers(values, where)
    for name in ("rows", "columns", "cores"):
        if values.get(name, 1) != int(values.get(name, 1)):
            raise UserError(f"{where}: {name}: {values[name]!r} is not a whole number.")
    listed = (_numbers(_fields(Mode, mode, f"{where}: modes"), f"{where}: modes") for mode in modes)
    return Processor(dataflow=dataflow, modes=tuple(Mode(**mode) for mode in listed), **values)


def _fields(cls: type, raw: Any, where: str) -> dict[str, Any]:
    """`raw` as keyword arguments of the dataclass `cls`, with unknown and missing fields refused."""
    if not isinstance(raw, dict):
        raise UserError(f"{where}: needs a mapping with the fields {', '.join(f.name for f in fields(cls))}.")
    known = {field.name: field.default is MISSING for field in fields(cls)}
    if unknown := [str(name) for name in raw if name not in known]:
        raise UserError(f"{where}: unknown field {unknown[0]!r}; fields are {', '.join(known)}.")
    if missing := [name for name, needed in known.items() if needed and name not in raw]:
        raise UserError(f"{where}: the field {missing[0]!r} is missing.")
    return dict(raw)


def _numbers(values: dict[str, Any], where: str) -> dict[str, Any]:
    """`values`, checked to be numbers: positive, or zero where nothing divides by it."""
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise UserError(f"{where}: {name}: {value!r} is not a number.")
        may_be_zero = name == "sram_kib" or name.endswith(("_pj", "_pj_per_byte", "latency_us"))
        if not (0 <= value < float("inf")) or (value == 0 and not may_be_zero):
            raise UserError(f"{where}: {name}: {value!r} must be {'at least' if may_be_zero else 'above'} 0.")
    return values
