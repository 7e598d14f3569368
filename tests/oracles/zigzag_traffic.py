"""Oracle: DRAM traffic of matrix products at mixed widths by ZigZag (package `zigzag-dse`).

ZigZag searches loop orders and tilings on a machine of registers, one on-chip memory and DRAM for the least energy;
an access to DRAM costs so much more here that this is the least traffic. Run it in an environment of its own
(Python 3.11, `pip install "zigzag-dse==3.9.1" six`); it imports nothing of qstudy:

    python tests/oracles/zigzag_traffic.py > tests/oracles/zigzag_traffic.csv

A first argument stops after that many rows, for a quick check; a second one leaves out that many at the start.

Small products get ZigZag's own search, which tries every order of all prime factors of the loops. Large ones have too
many (17 to 20 loops), and its search then glues them together into few loops, with sizes picked without a look at the
memory: with `lpf_limit=6` it finds 2490368 bytes for 256 x 512 x 512 at 8 bits and 24 KiB, 12 % more than what it
counts itself for a better tile (2228224). So for large products this script hands it the orders to try: all tiles that
fill the memory. ZigZag still decides what each memory level holds, counts the bytes and picks the best. This shows that
both count the same for the best of these tiles; it does not prove that no other order is better.
"""

import contextlib
import csv
import io
import itertools
import logging
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

import yaml

# Vectors, inputs, outputs: streaming LSTM layers and a beam, with on-chip memories (KiB) as devices have them;
LAYERS = [(1, 256, 1024), (1, 640, 2560), (16, 512, 2048)]
LAYER_SRAM_KIB = [24, 96, 384]
# and products whose operands do not fit, small enough that the search may try every tiling.
BLOCKS = [(8, 64, 64), (16, 64, 64)]
BLOCK_SRAM_KIB = [1, 2, 4]
# And larger ones that do not fit either: it gets the tiles to try.
LARGE = [(256, 512, 512), (128, 256, 256), (64, 512, 256), (96, 384, 384), (64, 640, 640)]
LARGE_SRAM_KIB = [24]
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


def large_tiles(m: int, k: int, n: int, weight: int, activation: int, sram_kib: int) -> list[dict[str, int]]:
    """Steps per tile in B, C, K (C and K in steps of 8): divisors, none of which can be larger and still fit."""
    sizes = {"B": m, "C": k // 8, "K": n // 8}
    divisors = [[size for size in range(1, whole + 1) if whole % size == 0] for whole in sizes.values()]

    def fits(places: Sequence[int], room: float) -> bool:
        if any(place >= len(choices) for place, choices in zip(places, divisors, strict=True)):
            return False
        b, c, o = (choices[place] for place, choices in zip(places, divisors, strict=True))
        return 8 * b * c * activation + 64 * c * o * weight + 8 * b * o * 32 <= room

    found = []
    for places in itertools.product(*(range(len(choices)) for choices in divisors)):
        larger = [[place + (index == at) for index, place in enumerate(places)] for at in range(3)]
        # With a little more room too: ZigZag may keep less of one operand than of the others.
        if any(
            fits(places, room) and not any(fits(more, room) for more in larger)
            for room in (sram_kib * 8192, 1.25 * sram_kib * 8192)
        ):
            found.append(
                {name: divisors[at][place] for at, (name, place) in enumerate(zip(sizes, places, strict=True))}
            )
    return found


def large_orders(tiles: list[dict[str, int]]) -> Callable[[Any], Iterator[list[tuple[Any, int]]]]:
    """A generator of loop orders, innermost first: the loops of a tile, then those over tiles."""
    rotations = ("BCK", "CKB", "KBC")  # what matters is the innermost loop that is not 1

    def orders(engine: Any) -> Iterator[list[tuple[Any, int]]]:
        names = {str(name): name for name in engine.temporal_loop_dim_size}
        seen = set()
        for tile, inner, outer in itertools.product(tiles, rotations, rotations):
            loops = [(names[name], tile[name]) for name in inner]
            loops += [(names[name], engine.temporal_loop_dim_size[names[name]] // tile[name]) for name in outer]
            order = tuple(loop for loop in loops if loop[1] > 1)
            if order not in seen:
                seen.add(order)
                yield list(order)

    return orders


def dram_bytes(m: int, k: int, n: int, weight: int, activation: int, sram_kib: int, folder: Path) -> dict[str, float]:
    """Bytes between DRAM and the on-chip memory, by operand: I inputs, W weights, O outputs."""
    from zigzag.api import get_hardware_performance_zigzag
    from zigzag.mapping.data_movement import DataMoveAttr
    from zigzag.opt.loma.engine import LomaEngine

    loops = 12 if m * k * n <= 2**16 else 6  # loops that it orders: large products have too many factors to try all
    orders = LomaEngine.ordering_generator
    if (m, k, n) in LARGE:
        orders = large_orders(large_tiles(m, k, n, weight, activation, sram_kib))

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
    quiet = contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO())
    with quiet[0], quiet[1], patch.object(LomaEngine, "ordering_generator", orders):
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
    stop, start = ([int(argument) for argument in sys.argv[1:]] + [None, None])[:2]
    groups = ((LAYERS, LAYER_SRAM_KIB), (BLOCKS, BLOCK_SRAM_KIB), (LARGE, LARGE_SRAM_KIB))
    cases = [(*gemm, *widths, sram) for gemms, srams in groups for gemm in gemms for widths in WIDTHS for sram in srams]
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(["m", "k", "n", "weight", "activation", "sram_kib", "input_bytes", "weight_bytes", "output_bytes"])
    for index, case in list(enumerate(cases))[start:stop]:
        with tempfile.TemporaryDirectory() as folder:
            found = dram_bytes(*case, Path(folder))
        writer.writerow([*case, *(round(found[operand]) for operand in "IWO")])
        sys.stdout.flush()
        print(f"{index + 1}/{len(cases)}", file=sys.stderr, end="\r")


if __name__ == "__main__":
    main()
