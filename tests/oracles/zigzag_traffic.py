"""Oracle: DRAM traffic of matrix products at mixed widths by ZigZag (package `zigzag-dse`).

ZigZag searches loop orders and tilings on a machine of registers, one on-chip memory and DRAM for the least energy;
an access to DRAM costs so much more here that this is the least traffic. Run it in an environment of its own
(`pip install "zigzag-dse==3.9.1" six`); it imports nothing of qstudy:

    python tests/oracles/zigzag_traffic.py > tests/oracles/zigzag_traffic.csv

A first argument stops after that many rows, for a quick check.
"""

import contextlib
import csv
import io
import logging
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml

# Vectors, inputs, outputs: streaming LSTM layers and a beam, with on-chip memories (KiB) as devices have them;
LAYERS = [(1, 256, 1024), (1, 640, 2560), (16, 512, 2048)]
LAYER_SRAM_KIB = [24, 96, 384]
# and products whose operands do not fit, small enough that the search may try every tiling.
BLOCKS = [(8, 64, 64), (16, 64, 64)]
BLOCK_SRAM_KIB = [1, 2, 4]
WIDTHS = [(4, 8), (8, 8), (16, 16)]  # weight, activation
PORTS = [f"{operand}, {way}" for operand in ("I1", "I2", "O") for way in ("fh", "tl")] + ["O, fl", "O, th"]


def memory(bits: int, cost: float) -> dict[str, Any]:
    """A memory that holds all operands, with one wide port; `cost` per access of 8 bits."""
    port = {"name": "rw_port_1", "type": "read_write", "bandwidth_min": 8, "bandwidth_max": 4096, "allocation": PORTS}
    common = {"area": 0, "latency": 1, "operands": ["I1", "I2", "O"], "served_dimensions": ["D1", "D2"]}
    return {"size": bits, "r_cost": cost, "w_cost": cost, "ports": [port], **common}


def accelerator(sram_kib: int) -> dict[str, Any]:
    """8 x 8 cells that share an accumulator per column, on-chip memory, DRAM; the lowest memory comes first."""
    ways = (
        ("r_port_1", "read", "tl"),
        ("r_port_2", "read", "th"),
        ("w_port_1", "write", "fh"),
        ("w_port_2", "write", "fl"),
    )
    ports = [
        {"name": name, "type": kind, "bandwidth_min": 32, "bandwidth_max": 32, "allocation": [f"O, {way}"]}
        for name, kind, way in ways
    ]
    register = {"size": 32, "r_cost": 0.01, "w_cost": 0.01, "area": 0, "latency": 1, "operands": ["O"], "ports": ports}
    memories = {
        "accumulator": {**register, "served_dimensions": ["D1"]},
        "sram": memory(sram_kib * 1024 * 8, 1),
        "dram": memory(10**12, 1e5),
    }
    cells = {"unit_energy": 0.01, "unit_area": 1, "dimensions": ["D1", "D2"], "sizes": [8, 8]}
    return {"name": "two_levels", "memories": memories, "operational_array": cells}


def dram_bytes(m: int, k: int, n: int, weight: int, activation: int, sram_kib: int, folder: Path) -> dict[str, float]:
    """Bytes between DRAM and the on-chip memory, by operand: I inputs, W weights, O outputs."""
    from zigzag.api import get_hardware_performance_zigzag
    from zigzag.mapping.data_movement import DataMoveAttr

    loops = 12 if m * k * n <= 2**16 else 6  # loops that it orders: large products have too many factors to try all

    layer = {
        "id": 0,
        "name": "gemm",
        "operator_type": "Gemm",
        "equation": "O[b][k]+=I[b][c]*W[k][c]",
        "loop_dims": ["B", "C", "K"],
        "loop_sizes": [m, k, n],
        "operand_precision": {"I": activation, "W": weight, "O": 32, "O_final": activation},
        "operand_source": {"I": 0, "W": 0},
    }
    spatial = {"D1": ["C, 8"], "D2": ["K, 8"]}
    mapping = {"name": "default", "spatial_mapping": spatial, "memory_operand_links": {"O": "O", "W": "I2", "I": "I1"}}
    inputs = {"workload": [layer], "accelerator": accelerator(sram_kib), "mapping": [mapping]}
    for name, value in inputs.items():
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(value, sort_keys=False))
    paths = {name: str(folder / f"{name}.yaml") for name in inputs}
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        *_, evaluations = get_hardware_performance_zigzag(
            **paths, opt="energy", dump_folder=str(folder / "out"), loma_show_progress_bar=False, lpf_limit=loops
        )
    evaluation = evaluations[0][1][0][0]
    found = {}
    for operand, levels in evaluation.mapping.unit_mem_data_movement.items():
        amount, precision, count = (
            levels[-1].get_attribute(attribute)
            for attribute in (
                DataMoveAttr.DATA_TRANS_AMOUNT_PER_PERIOD,
                DataMoveAttr.DATA_PRECISION,
                DataMoveAttr.DATA_TRANS_PERIOD_COUNT,
            )
        )
        ways = list(amount.data)
        found[str(operand)] = sum(amount.get(way) * precision.get(way) * count.get(way) for way in ways) / 8
    return found


def main() -> None:
    """Write one CSV row per product, pair of widths and size of on-chip memory to standard output."""
    logging.disable(logging.CRITICAL)
    limit = int(sys.argv[1]) if len(sys.argv) > 1 else None
    groups = ((LAYERS, LAYER_SRAM_KIB), (BLOCKS, BLOCK_SRAM_KIB))
    cases = [(*gemm, *widths, sram) for gemms, srams in groups for gemm in gemms for widths in WIDTHS for sram in srams]
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(["m", "k", "n", "weight", "activation", "sram_kib", "input_bytes", "weight_bytes", "output_bytes"])
    for index, case in enumerate(cases[:limit]):
        with tempfile.TemporaryDirectory() as folder:
            found = dram_bytes(*case, Path(folder))
        writer.writerow([*case, *(round(found[operand]) for operand in "IWO")])
        sys.stdout.flush()
        print(f"{index + 1}/{len(cases)}", file=sys.stderr, end="\r")


if __name__ == "__main__":
    main()
