"""A table and figures of a study over architectures: what each costs, how well it recognizes, what amortizing saves.

    qstudy report studies/architectures-digits --table analysis.architectures.architectures \
        --figure+ analysis.architectures.word_errors --figure+ analysis.architectures.amortized
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from analysis.differences import between, columns
from analysis.figures.labels import along, write_labels
from analysis.figures.style import INK, MARKS, SHADE, WIDTH, Picture, handle, marks
from analysis.measures import compression
from analysis.records import parsed
from analysis.study import Study, by_setting
from analysis.tables.table import GAP, RATE, Column, Table, gap, rate, with_rates
from analysis.text import DASH, MIB, listed, number, percent
from analysis.verdicts import MARGIN, caution, not_worse, verdicts
from qstudy.presets import preset_names
from qstudy.settings import ModelConfig

FIRST, TOLERATED = "lstm", 1.3
"""The architecture that others are held against, and what they may have of its error rate."""
TRAINING_ONLY = ("strength", "branch_from", "hard_from", "temperature", "last_temperature", "dropout")
"""Options of an encoder that its architecture does not depend on."""
UNKNOWN = "unknown"
COLUMNS = (
    Column("architecture", "Architecture"),
    Column("title", "Policy"),
    Column("bits", "Bits"),
    Column("strength", "λ", "r", "{:g}".format, missing=""),
    Column("parameters", "Parameters", "r", "{:,.0f}".format),
    rate("wer", "WER (%) [95 %]"),
    Column("first_wer", "first pass (%)", "r", percent, missing=""),
    gap("Δ to float control (points)"),
    Column("verdict", "Not worse?"),
    Column("size_mib", "MiB", "r", number),
    Column("compression", "vs float (×)", "r", "{:.1f}".format, missing=DASH),
    Column("saved", "MACs saved (%)", "r", percent, missing=""),
    Column("full", "full branch (%)", "r", percent, missing=""),
    Column("latency_ms", "Latency (ms)", "r", number, missing=DASH),
    Column("train_s", "Training (s)", "r", "{:,.0f}".format, missing=DASH),
)
OF_SOME = {
    "strength": "λ: the strength of the penalty on the full branch.",
    "first_wer": "First pass: the word error rate of a cascaded encoder's first pass alone.",
    "saved": "MACs saved: of the encoder, counted while the packed model recognized this set.",
    "full": "Full branch: share of frames and layers that took it.",
}
"""Columns that only some architectures fill, and what a caption says of them."""


def architectures(study: Study) -> Table | None:
    """A row per architecture and setting: float models, then what was quantized."""
    found = settings(study)
    if found.empty:
        return None
    frame = with_rates(found).assign(
        size_mib=found.size_bytes / MIB,
        compression=compression(found).mask(found.is_baseline),
        train_s=found.train_seconds,
    )
    shown = tuple(each for each in COLUMNS if each.key not in OF_SOME or frame[each.key].notna().any())
    told = [said for key, said in OF_SOME.items() if said and any(each.key == key for each in shown)]
    amortized = ", with the measured shares" * bool(frame.saved.notna().any())
    caption = " ".join(
        [
            f"Architectures on {study.described_split}. Δ: against the float control of the same architecture, trained "
            f"as long, with the 95 % interval of a paired bootstrap over {study.resampled}; "
            "not worse: by less than a tenth of the control's rate, with Holm's correction over the table.",
            *told,
            "Training: seconds of the steps, on machines that did other work too. "
            f"Latency: simulated on {next(iter(study.accelerators), 'no accelerator')}{amortized}."
            f"{caution(found.gap.count())}{_unlike(study, found)}",
        ]
    )
    names = dict.fromkeys([*(column.key for column in shown), "run", *GAP, *RATE])
    return Table("architectures", "Architectures", caption, frame[list(names)].reset_index(drop=True), shown)


def word_errors(study: Study) -> Iterator[Picture]:
    """Error rates of all architectures, float and quantized, and how much worse than the first they may be."""
    found = settings(study)
    names = list(found.architecture.unique())
    if len(names) < 2:
        return
    figure = Figure(figsize=(WIDTH, 0.6 + 0.42 * len(names)), layout="constrained")
    axes = figure.subplots()
    first = found[found.is_baseline & (found.architecture == FIRST)]
    if len(first):
        axes.axvspan(0, 100 * TOLERATED * first.wer.iloc[0], color=SHADE, zorder=0)
    looks = marks(found.policy)
    policies = list(dict.fromkeys(found.policy))
    for place, policy in enumerate(policies):
        mine, mark = found[found.policy == policy], looks[policy]
        y = mine.architecture.map(names.index) + 0.5 * (place - (len(policies) - 1) / 2) / len(policies)
        axes.hlines(y, 100 * mine.low, 100 * mine.high, color=mark.color, lw=0.9)
        axes.plot(100 * mine.wer, y, mark.marker, color=mark.color, ms=mark.size)
    axes.set(yticks=range(len(names)), yticklabels=names, xlabel=f"Word error rate on {study.split} (%)")
    axes.set_xlim(left=0)
    axes.invert_yaxis()
    legend = [handle(policy, looks[policy]) for policy in policies]
    axes.legend(handles=legend, loc="upper left", bbox_to_anchor=(1, 1))
    caption = f"Word error rates on {study.described_split}, with 95 % bootstrap intervals over {study.resampled}."
    if len(first):
        caption += (
            f" Shaded: up to {TOLERATED:g} times that of {FIRST} in float; the table says how long trainings took."
        )
    yield Picture("architectures", "Word error rate by architecture", caption, figure)


def against_control(study: Study) -> Iterator[Picture]:
    """Quantized settings minus the float control of their architecture: not worse by more than a tenth of its rate?"""
    found = settings(study).dropna(subset="gap_low")
    if found.empty:
        return
    figure = Figure(figsize=(WIDTH, 0.7 + 0.3 * len(found)), layout="constrained")
    axes, looks = figure.subplots(), marks(found.policy)
    for y, (_, one) in enumerate(found.iterrows()):
        mark = looks[one.policy]
        axes.barh(y, 100 * MARGIN * one.control_wer, height=0.8, color=SHADE, zorder=0)
        axes.hlines(y, 100 * one.gap_low, 100 * one.gap_high, color=mark.color, lw=1.2)
        axes.plot(100 * one.gap, y, mark.marker, color=mark.color, ms=mark.size)
    ratios = compression(found)
    labels = [
        f"{one.architecture}, {one.title} {one.bits} ({ratio:.1f}×)"
        for (_, one), ratio in zip(found.iterrows(), ratios, strict=True)
    ]
    axes.axvline(0, color=INK, lw=0.8)
    axes.set(yticks=range(len(found)), yticklabels=labels, xlabel="WER minus that of the float control (points)")
    axes.invert_yaxis()
    caption = (
        f"Word error rate on {study.split} minus that of the float control of the same architecture, fine-tuned as "
        f"long, with the 95 % interval of a paired bootstrap over {study.resampled}; "
        "in brackets how many times smaller than float. Shaded: a tenth of the control's rate; what is shown to be not "
        "worse by less, which is asked of all settings at once, the table says."
    )
    yield Picture("against_control", "Quantized against the float control", caption, figure)


def amortized(study: Study) -> Iterator[Picture]:
    """What amortized encoders save against their error rate: the curve that the penalty's strength traces."""
    found = settings(study).dropna(subset="saved")
    if found.empty:
        return
    figure = Figure(figsize=(WIDTH, 3.0), layout="constrained")
    axes = figure.subplots()
    labels: list[tuple[float, float, str]] = []
    for place, (name, mine) in enumerate(found.groupby("architecture", sort=False)):
        color = list(MARKS.values())[(2 + 2 * place) % len(MARKS)].color
        axes.errorbar(
            100 * mine.saved,
            100 * mine.wer,
            yerr=100 * np.stack([mine.wer - mine.low, mine.high - mine.wer]),
            fmt="o",
            color=color,
            lw=0.9,
            label=name,
        )
        for _, one in mine.iterrows():
            text = f"λ {one.strength:g}" + ("" if one.policy == "float" else f", {one.bits}")
            labels.append((100 * one.saved, 100 * one.wer, text))
    axes.set(xlabel="Multiply-accumulates of the encoder that were saved (%)", ylabel=f"WER on {study.split} (%)")
    axes.set_ylim(bottom=0)
    axes.legend()
    figure.draw_without_rendering()
    x, y = 100 * found.saved, 100 * found.wer
    bars = along(axes, np.column_stack([x, 100 * found.low]), np.column_stack([x, 100 * found.high]))
    write_labels(axes, labels, np.vstack([bars, axes.transData.transform(np.column_stack([x, y]))]))
    caption = (
        "Amortized encoders: multiply-accumulates that were not computed, counted while the packed model recognized "
        f"{study.split}, against the word error rate, by the strength λ of the penalty."
        f"{' At 0 % saved: the full branch alone.' * bool((found.saved == 0).any())}"
    )
    yield Picture("amortized", "What amortizing saves", caption, figure)


def settings(study: Study) -> pd.DataFrame:
    """The study's settings and float baselines with their architecture, in the order of the trials."""
    baselines = study.finished[study.finished.is_baseline]
    found = pd.concat([by_setting(baselines), study.settings], ignore_index=True)
    if found.empty:
        return found.assign(architecture=[], gap=[], gap_low=[], gap_high=[], verdict=[], saved=[], full=[])
    runs = study.finished.groupby("setting", sort=False)
    told = [_told_of(runs.get_group(one), study.split) for one in found.setting]
    found = pd.concat([found, pd.DataFrame(told, index=found.index)], axis=1)
    found = found.assign(architecture=_architectures(found))
    order = list(dict.fromkeys([*found.architecture[~found.is_baseline], *found.architecture]))
    found = found.sort_values("architecture", key=lambda names: names.map(order.index), kind="stable")
    found = found.reset_index(drop=True)
    return found.join(_against_controls(study, found)).copy()  # pandas warns of a frame that was joined so often


def architectures_of(study: Study) -> dict[str, str]:
    """Run -> its architecture, of float baselines, and of the runs that stand for a setting."""
    baselines = study.finished[study.finished.is_baseline]
    found = pd.concat([baselines, study.settings], ignore_index=True)
    return dict(zip(found.run, _architectures(found), strict=True))


def _architectures(found: pd.DataFrame) -> pd.Series:
    """The architectures; of a baseline without a record of its own, that of the trials which started from it."""
    models = [(parsed(record).get("config") or {}).get("model") or {} for record in found.record]
    told = pd.Series([*map(architecture, models)], found.index, dtype=object)
    trials = found[~found.is_baseline].drop_duplicates("float_run")
    named = dict(zip(trials.float_run, told[trials.index], strict=True))
    lost = found.is_baseline & (told == UNKNOWN) & found.run.isin(list(named))
    return told.mask(lost, found.run.map(named))


def _told_of(runs: pd.DataFrame, split: str) -> dict[str, Any]:
    """What only the records of a setting know: means over its seeds, and the precision that each was trained in."""
    told = pd.DataFrame([_told(record, split) for record in runs.record])
    numbers = told[["saved", "full", "first_wer"]].mean().to_dict()
    precisions = dict(zip(runs.seed, told.pop("precision"), strict=True))
    return {**told.iloc[0], **numbers, "precision": precisions}


def _told(record: bytes, split: str) -> dict[str, Any]:
    """What only one record knows."""
    read = parsed(record)
    model = (read.get("config") or {}).get("model") or {}
    usage = (read.get("usage") or {}).get(split) or {}
    first = (read.get("first_pass") or {}).get(split) or {}
    return {
        "saved": usage.get("saved", np.nan),
        "full": np.mean(usage.get("full_share") or np.nan),
        "strength": (model.get("encoder") or {}).get("strength", np.nan),
        "first_wer": first.get("wer", np.nan),
        "precision": read.get("precision") or "",
    }


def architecture(model: dict[str, Any]) -> str:
    """The preset whose encoder a configuration has, whatever only matters while it trains; else the encoder's name, and
    how its cheap branch is made."""
    encoder = model.get("encoder") or {}
    alone = ", full alone" if encoder.get("branch_from") == 1 else ""
    for name in preset_names():
        if _sizes(ModelConfig(preset=name).encoder) == _sizes(encoder):
            return name + alone
    return " ".join(str(encoder[option]) for option in ("name", "branch") if option in encoder) or UNKNOWN


def _sizes(encoder: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in encoder.items() if name not in TRAINING_ONLY}


def _unlike(study: Study, found: pd.DataFrame) -> str:
    """The sentence that names settings trained in another precision than their control; empty where none were."""
    precisions = dict(zip(found.setting, found.precision, strict=True))
    odd = []
    for _, one in found[found.gap.notna()].iterrows():
        control = study.control_of(one)
        theirs = {} if control is None else precisions[control.setting]
        seeds = [seed for seed, mine in one.precision.items() if seed in theirs and theirs[seed] != mine]
        if seeds:
            of_seeds = f" (seed {listed([f'{seed:.0f}' for seed in seeds])})" if len(one.precision) > 1 else ""
            odd.append(f"{one.architecture} {one.title} {one.bits}{of_seeds}")
    return f" Trained in another precision than their controls: {listed(odd)}." if odd else ""


def _against_controls(study: Study, found: pd.DataFrame) -> pd.DataFrame:
    """Quantized settings minus their float controls: not worse?"""
    pairs = {place: study.control_of(found.loc[place]) for place in found.index[found.policy != "float"]}
    controls = {place: control for place, control in pairs.items() if control is not None}
    gaps = {place: between(study, found.loc[place], control) for place, control in controls.items()}
    rates = [gap.other for gap in gaps.values()]
    told = verdicts([not_worse(gap) for gap in gaps.values()])
    frame = columns(gaps).assign(control_wer=np.array(rates, float), verdict=np.array([*map(str, told)], object))
    return frame.reindex(found.index)
