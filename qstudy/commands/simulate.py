"""The command `qstudy simulate`: a model priced on a described accelerator, as a table people like to read."""

import json as json_format
import re
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from qstudy.bits import FLOAT
from qstudy.errors import UserError
from qstudy.files import require_other, require_picture
from qstudy.hardware.accelerator import DEFAULT, Accelerator, load_accelerator, profile_names
from qstudy.hardware.search import Search
from qstudy.hardware.simulator import UNKNOWN, OperatorReport, Report
from qstudy.hardware.simulator import simulate as price
from qstudy.hardware.stream import REFERENCE, Speech
from qstudy.hardware.workload import Workload
from qstudy.named import trusting
from qstudy.workloads import Fused, load_workload, speech_of, with_widths

STYLES = {
    "compute": "green",
    "bandwidth": "cyan",
    "on-chip bandwidth": "blue",
    "element-wise": "yellow",
    "expansion": "magenta",
    "hand-over": "red",
}

HEADINGS = ("layer", "widths", "where", "bound", "runs/s", "MACs", "cycles", "DRAM kB", "stall µs", "µs a run", "load")
NARROW = ("layer", "widths", "bound", "DRAM kB", "µs a run", "load")


def simulate(
    model: Path,
    accelerator: str = DEFAULT,
    json: bool = False,
    compare: str | None = None,
    bits: str | None = None,
    beam: int | None = None,
    expansions: float | None = None,
    labels_per_hypothesis: float | None = None,
    batches_per_label: float | None = None,
    lm: Path | None = None,
    source_lm: Path | None = None,
    manifest: Path | None = None,
    operators: bool = False,
    plot: Path | None = None,
    trust: Path | None = None,
) -> None:
    """Latency, traffic and energy of a model on a described accelerator.

    Args:
        model: A packed model (.qst), a checkpoint (.ckpt), a run configuration, or a YAML of sizes alone.
        accelerator: A profile's name, or the path of a YAML file.
        json: Print one JSON object instead of tables.
        compare: What to put beside it: another accelerator, another model, or other widths (w8a8).
        bits: Widths to price instead of the model's own: w4a8 for all layers, or encoder.*=w4a8,joiner.*=w8a8 for those
            layers alone.
        beam: Hypotheses that the search carries, all in one batch; the model's own or 1.
        expansions: Time-synchronous search: how often per joint frame its hypotheses go through the joiner, at most one
            more than a frame may have labels; otherwise once per frame and once per label (greedy, alignment-length
            synchronous).
        labels_per_hypothesis: Labels that go through prediction network and language models, for each hypothesis and
            label of the transcript; 1 otherwise.
        batches_per_label: In how many batches these go through them, per label of the transcript; the whole beam in one
            otherwise, which takes the least.
        lm: A language model that scores every label of every hypothesis: a packed one (.qst), or a YAML of sizes.
        source_lm: The source domain's language model, for density ratio fusion.
        manifest: Take durations and label counts from it, in the labels of a packed model or a checkpoint, of other
            files in characters; one utterance of 4 s with 48 labels otherwise.
        operators: One row per operator instead of one per layer.
        plot: Write a roofline and a bar chart to this file (.png, .svg or .pdf).
        trust: A Python file of yours whose classes model files may name; they can run no other code.
    """
    if plot is not None:
        require_picture(plot)
        others = [Path(name) for name in (accelerator, compare, manifest, lm, source_lm) if name is not None]
        require_other(plot, "--plot", model, *others)
    machine = load_accelerator(accelerator)
    search = Search(beam, expansions, labels_per_hypothesis, batches_per_label)
    fused = {"external_lm": lm, "source_lm": source_lm}
    with trusting(trust):
        speech = speech_of(manifest, model) if manifest else REFERENCE
        work = load_workload(model, bits, search, fused)
        pairs = [(work, machine)]
        if compare is not None:
            pairs.append(_other(compare, work, machine, search, fused))
    reports = [price(w, a, speech) for w, a in pairs]
    if json:
        values = [report.to_dict() for report in reports]
        print(json_format.dumps(values[0] if compare is None else values, allow_nan=False))
    else:
        _print(reports, operators, speech)
    if plot is not None:
        from qstudy.hardware.plots import write_plot  # matplotlib takes a second to import

        write_plot(reports, [machine for _, machine in pairs], plot)


def _other(
    compare: str, work: Workload, machine: Accelerator, search: Search, fused: Fused
) -> tuple[Workload, Accelerator]:
    """What `--compare` names: an accelerator, a model, or widths."""
    path = Path(compare)
    if compare in profile_names() or (path.suffix in (".yaml", ".yml") and _is_accelerator(path)):
        return work, load_accelerator(compare)
    if _exists(path):
        return load_workload(path, None, search, fused), machine
    if not re.match(r"(.*=)?w\d+a\d+", compare):
        known = ", ".join(profile_names())
        raise UserError(f"--compare: {compare!r} is no accelerator ({known}), no file, and no widths such as w4a8.")
    return replace(work, bit_map=with_widths(work.bit_map, compare), name=f"{work.name} {compare}"), machine


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # a list of widths may be too long for a name
        return False


def _is_accelerator(path: Path) -> bool:
    from qstudy.yaml_file import load_yaml

    return path.is_file() and "processor" in load_yaml(path)


def _print(reports: list[Report], operators: bool, speech: Speech) -> None:
    console = Console()
    for report in reports:
        console.print(_layer_table(report, operators, narrow=console.width < 125))
    console.print(_summary_table(reports))
    count = len(speech.durations_s)
    heard = "an utterance of 4 s with 48 labels" if speech == REFERENCE else f"{count} utterances of the manifest"
    console.print(f"[dim]Latency: from the end of speech to the last result, over {heard}. f: float.[/dim]")
    console.print("[dim]Operators are placed for the lowest latency; another placement might compute less.[/dim]")
    if untimed := list(dict.fromkeys(layer for report in reports for layer in report.untimed)):
        named = ", ".join([*untimed[:3], "..."] if len(untimed) > 3 else untimed)
        console.print(escape(f"Totals are unknown, because no rate is set for these layers: {named}."))


def _layer_table(report: Report, operators: bool, narrow: bool) -> Table:
    """One row per layer or operator; a narrow terminal gets the columns that matter most."""
    table = Table(title=escape(f"{report.model} on {report.accelerator}"), title_justify="left", header_style="bold")
    headings = NARROW if narrow else HEADINGS
    for heading in headings:
        left = heading in ("layer", "widths", "where", "bound")
        table.add_column(heading, justify="left" if left else "right", no_wrap=True)
    for row in report.operators if operators else by_layer(report):
        cells = _cells(row)
        table.add_row(*(cells[heading] for heading in headings))
    return table


def _cells(row: OperatorReport) -> dict[str, str | Text]:
    """Heading -> cell."""
    activation = "f" if row.activation_bits == FLOAT else str(row.activation_bits)
    weight = "f" if row.weight_bits == FLOAT else str(row.weight_bits)
    return {
        "layer": escape(row.name),
        "widths": "float" if weight == activation == "f" else f"W{weight}A{activation}",
        "where": row.processor,
        "bound": Text(row.bound, style=STYLES[row.bound]),
        "runs/s": UNKNOWN if row.runs is None else f"{row.runs:.1f}",
        "MACs": f"{row.macs:,}",
        "cycles": f"{row.cycles:,}",
        "DRAM kB": f"{row.dram_bytes / 1000:.1f}",
        "stall µs": f"{row.stall_us:.1f}",
        "µs a run": f"{row.us:.1f}",
        "load": UNKNOWN if row.load is None else f"{row.load:.2%}",
    }


def by_layer(report: Report) -> list[OperatorReport]:
    """The operators of each layer summed; the bound is that of the longest, runs are those of the most frequent, or
    None if those of any are."""
    layers: dict[str, list[OperatorReport]] = {}
    for operator in report.operators:
        layers.setdefault(operator.layer, []).append(operator)
    return [_sum_up(name, parts) for name, parts in layers.items()]


def _sum_up(name: str, parts: list[OperatorReport]) -> OperatorReport:
    if any(part.runs is None for part in parts):  # as if each ran once
        once = [replace(part, runs=1.0, load=part.us * 1e-6) for part in parts]
        return replace(_sum_up(name, once), runs=None, load=None)
    longest = max(parts, key=_load_of)
    runs = max(part.runs or 0.0 for part in parts)

    def per_run(field: str) -> float:
        return sum(getattr(part, field) * part.runs for part in parts) / runs if runs else 0.0

    busy = sum(map(_load_of, parts))
    return replace(
        longest,
        name=name,
        runs=runs,
        processor=longest.processor if len({part.processor for part in parts}) == 1 else "both",
        macs=round(per_run("macs")),
        cycles=round(per_run("cycles")),
        dram_bytes=per_run("dram_bytes"),
        sram_bytes=per_run("sram_bytes"),
        us=per_run("us"),
        stall_us=per_run("stall_us"),
        energy_uj=per_run("energy_uj"),
        load=busy,
        utilization=sum(part.utilization * _load_of(part) for part in parts) / busy if busy else 0.0,
    )


def _load_of(operator: OperatorReport) -> float:
    return operator.load or 0.0


def _summary_table(reports: list[Report]) -> Table:
    table = Table(show_header=len(reports) > 1, header_style="bold")
    table.add_column("")
    for report in reports:
        table.add_column(escape(f"{report.model}\n{report.accelerator}"), justify="right")
    if len(reports) > 1:
        table.add_column("ratio", justify="right")
    for label, field, form in (
        ("user-perceived latency, ms", "latency_ms", "{:.2f}"),
        ("  95th percentile, ms", "latency_p95_ms", "{:.2f}"),
        ("real-time factor", "rtf", "{:.4f}"),
        ("computing per joint frame, ms", "step_ms", "{:.3f}"),
        ("DRAM traffic, MB per s of speech", "dram_mb_per_s", "{:.2f}"),
        ("energy, mJ per s of speech", "energy_mj_per_s", "{:.3f}"),
    ):
        values = [getattr(report, field) for report in reports]
        cells = [UNKNOWN if value is None else form.format(value) for value in values]
        if len(values) > 1:
            known = None not in values and values[1] > 0
            cells.append(f"{values[0] / values[1]:.2f}x" if known else "")
        table.add_row(label, *cells)
    return table
