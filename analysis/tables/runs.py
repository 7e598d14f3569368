"""The tables of runs: one row per run, in the columns that papers use; every raw number besides in the CSV file."""

import json
from functools import partial

import numpy as np
import pandas as pd

from analysis.measures import compression, front
from analysis.study import Study
from analysis.tables.table import RATE, Column, Table, rate, with_rates
from analysis.text import DASH, MIB, change, number

LATENCY = Column("latency_ms", "Latency (ms)", "r", number, missing=DASH)
PRINTED = (
    Column("run", "Run"),
    Column("title", "Policy"),
    Column("bits", "Bits", bold=lambda row: row.get("on_front") == 1),
    Column("size_mib", "Size (MiB)", "r", number, missing=DASH),
    Column("compression", "vs float (×)", "r", "{:.1f}".format, missing=DASH),
    rate("wer", "WER (%) [95 %]", "on_front", missing=DASH),
    Column("wer_change", "ΔWER (%)", "r", change, missing=DASH),
    LATENCY,
    Column("rtf", "RTF", "r", partial(number, digits=2), missing=DASH),
    Column("step_ms", "Step (ms)", "r", number, missing=DASH),
)
SCORES = ("cer", "substitutions", "insertions", "deletions", "words", "utterances", "decoding_rtf")
RAW = ["policy", "trial", "state", "reason", "on_front", "size_bytes", "file_bytes"]
RAW += [*RATE, *SCORES, "training_model_wer", "step_p95_ms"]
RAW += ["train_seconds", "steps", "loss_last", "seed", "commit", "bit_map"]


def runs(study: Study) -> Table:
    """The baseline, the settings by size (a row for all seeds of each), then the runs that were not finished."""
    settings = study.settings.sort_values(["size_bytes", "trial"], ascending=[False, True], kind="stable")
    found = pd.concat([study.references, settings, study.unfinished.assign(n=1)])
    widths = _widths(study.layers)
    frame = with_rates(found).assign(
        policy=found.method,
        title=found.title.mask(found.state != "complete", found.title + " (" + found.state + ")"),
        on_front=(found.setting.isin(front(study.settings).setting) & ~found.is_baseline).astype(int),
        size_mib=found.size_bytes / MIB,
        compression=compression(found),
        wer_change=(found.wer / found.float_wer.where(found.float_wer > 0) - 1).mask(found.is_baseline),
        bit_map=[widths.get(run, "{}") for run in found.run],
        **{name: found[f"{name}.{study.split}"] for name in SCORES},
    )
    varying = [name for name in found if name.startswith("config.") and found[name].dropna().nunique() > 1]
    names = [*(column.key for column in PRINTED), *RAW, *varying]
    return Table("runs", "Runs", _caption(study), frame[names].reset_index(drop=True), PRINTED)


def unfinished(study: Study) -> Table | None:
    """Pruned and failed runs, and what stopped them; None if there are none."""
    found = study.unfinished
    if found.empty:
        return None
    missing = np.where(found.state == "complete", f"no word error rate on {study.split}", "no reason recorded")
    frame = found.assign(size_mib=found.size_bytes / MIB, reason=found.reason.where(found.reason != "", missing))
    run, _, bits, size, *_ = PRINTED
    latency, state, reason = LATENCY, Column("state", "State"), Column("reason", "Reason")
    columns = (run, Column("method", "Policy"), bits, size, latency, state, reason)
    return Table("unfinished", "Pruned and failed runs", "", frame[[column.key for column in columns]], columns)


def _widths(layers: pd.DataFrame) -> dict[str, str]:
    """Run -> its widths as JSON: layer -> weight/activation."""
    found: dict[str, dict[str, str]] = {}
    known = layers.loc[layers.weight.notna(), ["run", "layer", "weight", "activation"]]
    for run, layer, weight, activation in known.itertuples(index=False):
        found.setdefault(run, {})[layer] = f"{weight:.0f}/{activation:.0f}"
    return {run: json.dumps(widths) for run, widths in found.items()}


def _caption(study: Study) -> str:
    accelerator = next(iter(study.accelerators), None)
    simulated = f" Latency and RTF are simulated on {accelerator}." if accelerator else ""
    return (
        f"Runs of the study {study.name}. WER on {study.split} with its 95 % bootstrap interval; ΔWER is the relative "
        f"change against the float baseline; bold: on the Pareto front of size against WER"
        f"{'' if study.chosen_on == study.split else f' on {study.chosen_on}'}.{simulated} Step is the "
        "median time of a training step."
    )
