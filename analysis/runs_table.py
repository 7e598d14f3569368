"""The table of runs: one row per run, in the columns that papers use; every raw number besides in the CSV file."""

import json
from collections.abc import Iterable
from typing import Any

from analysis.bits import describe
from analysis.pareto import size_front
from analysis.records import Run, Scores
from analysis.study import Study
from analysis.tables import Cell, Column, Table
from analysis.text import DASH, MIB, change, number, percent

PRINTED = (
    Column("policy", "Policy"),
    Column("bits", "Bits"),
    Column("size_mib", "Size (MiB)", "r"),
    Column("compression", "vs float (×)", "r"),
    Column("wer", "WER (%) [95 %]", "r"),
    Column("wer_change", "ΔWER (%)", "r"),
    Column("latency_ms", "Latency (ms)", "r"),
    Column("rtf", "RTF", "r"),
    Column("step_ms", "Step (ms)", "r"),
)
RAW = (
    "run",
    "trial",
    "state",
    "reason",
    "on_front",
    "size_bytes",
    "file_bytes",
    "wer_low",
    "wer_high",
    "cer",
    "substitutions",
    "insertions",
    "deletions",
    "words",
    "utterances",
    "training_model_wer",
    "decoding_rtf",
    "step_p95_ms",
    "train_seconds",
    "steps",
    "loss_last",
    "seed",
    "commit",
    "bit_map",
)


def runs_table(study: Study) -> Table:
    """All runs: the baseline, the finished trials by size, then the others."""
    finished = sorted(study.trials, key=lambda run: (-(run.size_bytes or 0.0), run.trial or 0))
    runs = [run for run in study.finished if run.is_baseline] + finished + study.unfinished
    settings = varying_settings(run.raw.get("config") for run in runs)
    front = {run.name for run in size_front(study)}
    columns = [*PRINTED, *(Column(key, key, printed=False) for key in (*RAW, *settings))]
    rows = [
        (*_printed(run, study, run.name in front), *_raw(run, study, run.name in front), *_settings(run, settings))
        for run in runs
        if run.state == "complete"
    ]
    rows += [
        (*_printed(run, study, False), *_raw(run, study, False), *_settings(run, settings))
        for run in runs
        if run.state != "complete"
    ]
    return Table("runs", "Runs", _caption(study), tuple(columns), tuple(rows))


def wer_cell(scores: Scores | None, bold: bool = False) -> Cell:
    """A word error rate with its interval."""
    if scores is None:
        return Cell(DASH)
    interval = scores.interval
    ends = f"[{percent(interval[0])}, {percent(interval[1])}]" if interval else ""
    return Cell(percent(scores.wer), scores.wer, ends, bold)


def compression(run: Run, reference: Run | None) -> float | None:
    """How many times smaller the run's model is than the float model."""
    floats = reference.size_bytes if reference else None
    floats = floats or 4.0 * sum(layer.parameters for layer in run.layers.values())
    return floats / run.size_bytes if floats and run.size_bytes else None


def varying_settings(configs: Iterable[Any]) -> list[str]:
    """Dotted keys of the configuration fields that differ between runs; widths and paths have columns of their own."""
    seen: dict[str, set[str]] = {}
    for config in configs:
        for key, value in flat(config).items():
            seen.setdefault(key, set()).add(json.dumps(value, sort_keys=True, default=str))
    return sorted(f"config.{key}" for key, values in seen.items() if len(values) > 1)


def flat(config: Any, prefix: str = "") -> dict[str, Any]:
    """A nested configuration as dotted keys; lists stay whole."""
    if not isinstance(config, dict):
        return {prefix: config} if prefix else {}
    pairs = [flat(value, f"{prefix}.{key}" if prefix else str(key)) for key, value in config.items()]
    return {key: value for pair in pairs for key, value in pair.items()}


def _printed(run: Run, study: Study, on_front: bool) -> list[Cell]:
    reference, scores = study.reference, run.scores.get(study.split)
    finished = run.state == "complete"
    smaller = compression(run, reference)
    accelerator = next(iter(study.accelerators), "")
    relative = reference.wer(study.split) if reference and not run.is_baseline else None
    return [
        Cell(run.title if finished else f"{run.title} ({run.state})", run.method),
        Cell(describe(run), describe(run), bold=on_front),
        Cell(number(run.size_bytes / MIB) if run.size_bytes else DASH, run.size_bytes and run.size_bytes / MIB),
        Cell(f"{smaller:.1f}" if smaller else DASH, smaller),
        wer_cell(scores, bold=on_front),
        Cell(change(run.wer(study.split), relative), scores.wer / relative - 1 if scores and relative else None),
        _measured(run.latency_ms.get(accelerator), 3),
        _measured(run.rtf.get(accelerator), 2),
        _measured(run.step_ms, 3),
    ]


def _measured(value: float | None, digits: int) -> Cell:
    return Cell(number(value, digits), value)


def _raw(run: Run, study: Study, on_front: bool) -> list[Cell]:
    record = run.raw
    metrics = (record.get("metrics") or {}).get(study.split) or {}
    step, loss = record.get("step_ms"), record.get("loss")
    values: dict[str, Any] = {
        **{key: record.get(key) for key in RAW},
        **{key: metrics.get(key) for key in RAW if key in metrics},
        "on_front": int(on_front),
        "decoding_rtf": metrics.get("rtf"),
        "step_p95_ms": step.get("p95") if isinstance(step, dict) else None,
        "loss_last": loss.get("last") if isinstance(loss, dict) else None,
        "bit_map": json.dumps({name: f"{width.weight}/{width.activation}" for name, width in run.widths.items()}),
    }
    return [Cell("", _plain(values[key])) for key in RAW]


def _settings(run: Run, settings: list[str]) -> list[Cell]:
    config = flat(run.raw.get("config"))
    return [Cell("", _plain(config.get(key.removeprefix("config.")))) for key in settings]


def _plain(value: Any) -> str | int | float | None:
    return value if value is None or isinstance(value, str | int | float) else json.dumps(value, sort_keys=True)


def _caption(study: Study) -> str:
    accelerator = next(iter(study.accelerators), None)
    simulated = f" Latency and RTF are simulated on {accelerator}." if accelerator else ""
    return (
        f"Runs of the study {study.name}. WER on {study.split} with its 95 % bootstrap interval; ΔWER is the relative "
        f"change against the float baseline; bold: on the Pareto front of size against WER.{simulated} Step is the "
        "median time of a training step."
    )
