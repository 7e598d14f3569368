"""Oracle: compute cycles of random matrix products on random arrays by SCALE-Sim 3 (package `scalesim`).

Run it in an environment of its own (`pip install "numpy<2.4" "scalesim==3.0.0"`); it imports nothing of qstudy:

    python tests/oracles/scalesim_cycles.py > tests/oracles/scalesim_cycles.csv

A first argument other than 200 stops after that many cases, for a quick check.
"""

import contextlib
import csv
import io
import random
import sys
import tempfile
from pathlib import Path

CASES, SEED = 200, 0
DATAFLOWS = {"weight_stationary": "ws", "output_stationary": "os"}

CONFIG = """[general]
run_name = run
[architecture_presets]
ArrayHeight = {rows}
ArrayWidth = {columns}
IfmapSramSzkB = 1024
FilterSramSzkB = 1024
OfmapSramSzkB = 1024
IfmapOffset = 0
FilterOffset = 10000000
OfmapOffset = 20000000
Dataflow = {dataflow}
ReadRequestBuffer = 64
WriteRequestBuffer = 64
Bandwidth = 10
[layout]
IfmapCustomLayout = False
IfmapSRAMBankBandwidth = 10
IfmapSRAMBankNum = 10
IfmapSRAMBankPort = 2
FilterCustomLayout = False
FilterSRAMBankBandwidth = 10
FilterSRAMBankNum = 10
FilterSRAMBankPort = 2
[sparsity]
SparsitySupport = false
[run_presets]
InterfaceBandwidth = CALC
UseRamulatorTrace = False
"""


def cycles(m: int, k: int, n: int, rows: int, columns: int, dataflow: str, folder: Path) -> tuple[int, int]:
    """SCALE-Sim's cycles of (m, k) x (k, n) on a rows x columns array, memory as fast as needed.

    Returns the length of its schedule of outputs, and the "Total Cycles" of its report: the number of the last of
    these cycles, counted from 0, hence one less.
    """
    from scalesim.scale_sim import scalesim

    files = {name: folder / f"{name}.csv" for name in ("config", "topology", "layout")}
    files["config"].write_text(CONFIG.format(rows=rows, columns=columns, dataflow=DATAFLOWS[dataflow]))
    files["topology"].write_text(f"Layer, M, N, K, Sparsity,\ngemm, {m}, {n}, {k}, 1:1,\n")
    files["layout"].write_text("Layer," * 21 + "\ngemm," + "1," * 20 + "\n")
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        paths = {name: str(path) for name, path in files.items()}
        simulator = scalesim(save_disk_space=True, verbose=False, input_type_gemm=True, **paths)
        simulator.run_scale(top_path=str(folder))
    with (folder / "run" / "COMPUTE_REPORT.csv").open() as file:
        row = next(csv.DictReader(file, skipinitialspace=True))
    stalls = float(row["Stall Cycles"])
    if stalls:
        raise RuntimeError(f"SCALE-Sim stalled for {stalls} cycles; these are not compute cycles alone.")
    (layer,) = simulator.runner.single_layer_sim_object_list
    return len(layer.compute_system.get_demand_matrices()[2]), int(float(row["Total Cycles"]))


def main() -> None:
    """Write one CSV row per case and dataflow to standard output."""
    generator = random.Random(SEED)
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(["m", "k", "n", "rows", "columns", "dataflow", "cycles", "last_cycle"])
    cases = int(sys.argv[1]) if len(sys.argv) > 1 else CASES
    for index in range(cases):
        m = generator.choice([1, generator.randint(1, 8), generator.randint(1, 160)])
        k, n = (generator.randint(1, 300) for _ in range(2))
        rows, columns = (generator.randint(1, 40) for _ in range(2))
        for dataflow in DATAFLOWS:
            with tempfile.TemporaryDirectory() as folder:
                case = (m, k, n, rows, columns, dataflow)
                writer.writerow([*case, *cycles(*case, Path(folder))])
        print(f"{index + 1}/{cases}", file=sys.stderr, end="\r")


if __name__ == "__main__":
    main()
