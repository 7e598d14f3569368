"""The rows as a table on the terminal, as Markdown, and as JSON."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from benchmarks.row import Row

COLUMNS = ("what", "ours", "peer", "ratio", "reference", "distance")
TEXT_COLUMNS = ("what", "peer", "reference")
LEGEND = (
    "Less is better; ratio: the peer's figure over ours; distance: ours over the reference. That is a floor, the least",
    "that the job can cost, where one is named below; otherwise it is a known job, and ours may well cost less.",
    "Times are medians of calls in one process, a row's sides in turn; of a side that takes over 10 s, the second.",
    "Reports, status and trials: every side once, one after the other, in processes of their own.",
    "glibc's allocator is set alike for all (qstudy/runtime.py). Subnormal numbers are zero for all:",
    "gradients of whole logits are full of them, and some processors take a hundred cycles for each.",
    "RNN-T loss, B x T x U x V: forward and backward, float32; reference: a log_softmax, forward and backward.",
    "warprnnt-numba's loops for processors are Python that nobody compiles.",
    "Its memory: peak above the logits, each side in a process of its own, once; floor: the gradient of the logits.",
    "Transducer's head, B x T x U x V x J: from joined sides to the loss, forward and backward, float32, untrained;",
    "whole logits: joiner and loss one after the other; reference: the output layer's three products of all nodes in",
    "float32, a fifth more than ours, which leaves out the gradient of nodes that hardly any alignment passes through;",
    "its memory: peak above the sides and the output layer; floor: their gradients.",
    "LSTM step, B x T x H: one layer, forward and backward, D = H; reference: nn.LSTM in float32.",
    "Training step, utterances x length: the digits recognizer: forward, loss, backward, AdamW; ours and float",
    "bf16 under bf16 autocast where the processor multiplies it, as training runs; reference: the same in float32.",
    "W8: weights of 8 bits; W8A8: also inputs and hidden states; fake: policy fake_qat, native: native_int.",
    "Beside Brevitas, whose quantizers are compiled, fake_qat has the same ranges: maxima of weights, learned ones of",
    "activations; in the training step its own defaults: learned ones of weights, moving averages of activations.",
    "torch.ao is its quantizable LSTM with its default settings for 8 bits.",
    "torch only: without our kernels, as on a GPU (QSTUDY_PORTABLE=1).",
    "Frame: 40 ms, batch 1, one thread: three LSTM layers and the joiner's projection, the state carried along;",
    "W4A8: weights of 4 bits, inputs and hidden states of 8; floor: reading as many bytes as the weights have.",
    "torch float32: nn.LSTM, which arranges its weights anew at every call.",
    "Conformer frame: 40 ms, batch 1, one thread: projection and causal blocks that see 16 frames back;",
    "onnxruntime int8: quantize_dynamic of the same graph, of all of it or but for the convolutions; floor: as above.",
    "onnxruntime, of both: bound to buffers beforehand, the states to two sets that take turns.",
    "Amortized encoder: 4 s in one call, batch 1, random weights; floor: the cheap branch alone.",
    "Beam search: through encoder frames that are there, one thread; torchaudio: RNNTBeamSearch, which takes",
    "one utterance at a time.",
    "Report: tables, figures and page; its memory: the peak of the process; floor: parsing, and holding, the records.",
    "Trial: of a tiny model, on the processor, medians without the first; the plain script has no records, checkpoints",
    "or packed models; floor: its steps and decoding.",
    "Status of many trials: from an SQLite file, which ours asks for what it shows; the peers: Optuna's reading of all",
    "trials, and its table of them.",
    "Features: read, checked, computed and written, all threads; opened again: as every run does; neither has a tail;",
    "floor: decoding, and the manifest with one stat per file.",
)


def cells(row: Row) -> tuple[str, ...]:
    """One text per column."""
    peer = f"{row.peer}: skipped ({row.skipped})" if row.skipped else f"{row.peer} {figure(row.theirs, row.unit)}"
    reference = f"{row.reference_is} {figure(row.reference, row.unit)}" if row.reference_is else ""
    return row.what, figure(row.ours, row.unit), peer, times(row.ratio), reference, times(row.distance)


def figure(value: float | None, unit: str) -> str:
    """Three digits and the unit."""
    if value is None:
        return "-"
    return f"{value:,.0f} {unit}" if value >= 100 else f"{value:.3g} {unit}"


def times(value: float | None) -> str:
    """A factor."""
    return "-" if value is None else f"{value:.1f}x" if value >= 10 else f"{value:.2f}x"


def terminal(rows: Sequence[Row]) -> Table:
    """For `rich`."""
    table = Table(box=SIMPLE_HEAD, caption="\n".join(LEGEND), caption_justify="left", pad_edge=False)
    for column in COLUMNS:
        table.add_column(column, justify="left" if column in TEXT_COLUMNS else "right")
    for row in rows:
        table.add_row(*map(escape, cells(row)))
    return table


def markdown(rows: Sequence[Row], machine: dict[str, Any]) -> str:
    """The table, and what it was measured on."""
    versions = ", ".join(f"{name} {number}" for name, number in machine["versions"].items())
    lines = [
        "# Speed and memory beside peers",
        "",
        *(f"{line}  " for line in LEGEND),
        "",
        "| " + " | ".join(COLUMNS) + " |",
        "|---|---:|---|---:|---|---:|",
        *("| " + " | ".join(cells(row)) + " |" for row in rows),
        "",
        f"Machine: {machine['processor']} ({instructions(machine)}), {machine['cores']} cores, "
        f"{machine['threads']} threads used, "
        f"{machine['memory_gib']} GiB, {machine['gpu'] or 'no GPU'}; load before: {machine['load_before']}.  ",
        f"Versions: {versions}.  ",
        f"Commit {machine['commit']}, {machine['created']}: `{machine['command']}`.",
    ]
    return "\n".join(lines) + "\n"


def instructions(machine: dict[str, Any]) -> str:
    """Those of the processor that decide how fast something is; older records have none."""
    portable = ["without our kernels"] if machine.get("portable") else []
    return ", ".join(machine.get("instructions", ["instructions not recorded"]) + portable)


def json(rows: Sequence[Row], machine: dict[str, Any]) -> dict[str, Any]:
    """The same as data."""
    return {"machine": machine, "rows": [asdict(row) | {"ratio": row.ratio, "distance": row.distance} for row in rows]}
