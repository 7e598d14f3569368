"""Tables and figures of a study of searches (`qstudy decode`): what language models and wider beams are worth, in float
and in few bits, what of their worth is kept, and what it costs.

    qstudy report studies/int4-commands --alone --table+ analysis.fusion.searches --table+ analysis.fusion.kept \
        --figure+ analysis.fusion.by_beam --figure+ analysis.fusion.against_latency
"""

import json
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis.differences import Difference, difference
from analysis.figures.axes import cost_scale, set_axis
from analysis.figures.style import INK, MARKS, MUTED, WIDTH, Picture
from analysis.records import unpacked
from analysis.study import Study, first
from analysis.tables.claims import MARGIN_TEXT
from analysis.tables.quantizers import choices_of
from analysis.tables.table import Column, Row, Table, rate
from analysis.text import DASH, number, percent, points
from analysis.verdicts import not_worse, verdicts

KEYS = {"models": "name", "form": "form", "beam": "beam"}
"""Column -> field of a record's `config.decoding`."""
NONE = "none"
"""The form of fusion that has no language model."""
SHARE = 0.9
"""Of the gain that fusion gives the first models: what the others are claimed to keep at least."""
LINES = {"none": ":", "shallow": "--", "density": "-"}
FORMS = {"none": "no language model", "shallow": "shallow fusion", "density": "density ratio"}


def cells(study: Study) -> pd.DataFrame:
    """The searches of a study, a row each: models, form, beam, and what `Study.runs` tells, those of the reference
    first; empty if it has none."""
    told = [_decoding(record) for record in study.finished.record]
    found = study.finished.assign(**{name: [one.get(key) for one in told] for name, key in KEYS.items()})
    found = found.dropna(subset=list(KEYS)).astype({"beam": int})
    found = found[found.form.isin(FORMS)]  # others are a stranger's, or of a version to come
    if found.empty:
        return found
    models = list(dict.fromkeys([_reference(found), *found.models]))
    places = {"models": models.index, "form": [*FORMS].index, "beam": int}
    return found.sort_values(list(KEYS), key=lambda column: column.map(places[column.name]), ignore_index=True)


def _reference(found: pd.DataFrame) -> str:
    """The models that the others are held against: those of the run that these name as their baseline, whatever its
    policy."""
    named = first(found[found.baseline != ""])
    if named is None:
        return str(found.models.iloc[0])
    own = found.models[found.run == named.baseline]
    # its record may be missing: its name begins with that of its models
    likely = [name for name in found.models.unique() if named.baseline.startswith(f"{name}-")]
    return str(max(likely, key=len, default=found.models.iloc[0]) if own.empty else own.iloc[0])


def _decoding(record: bytes) -> dict[str, Any]:
    """What a record says of its search; frames have columns of what differs between runs alone."""
    config = (json.loads(unpacked(record)).get("config") or {}) if record else {}
    return config.get("decoding") or {}


def searches(study: Study) -> Table | None:
    """A row per search: word error rate, bytes on disk, simulated latency, measured real-time factor."""
    found = cells(study)
    if found.empty:
        return None
    floats = found[found.models == found.models.iloc[0]].set_index(["form", "beam"]).file_bytes
    ratio = floats.reindex(pd.MultiIndex.from_frame(found[["form", "beam"]])).to_numpy() / found.file_bytes
    frame = found.assign(
        fusion=found.form.map(FORMS),
        mb=found.file_bytes / 1e6,
        ratio=ratio.mask(found.models == found.models.iloc[0]),
        measured=found[f"decoding_rtf.{study.split}"],
        wer_low=found.low,
        wer_high=found.high,
    )
    devices = [f"latency_ms.{name}" for name in study.accelerators]
    columns = (
        Column("models", "Models"),
        Column("fusion", "Fusion"),
        Column("beam", "Beam", "r"),
        rate("wer", "WER (%) [95 %]"),
        Column("mb", "MB on disk", "r", number),
        Column("ratio", "smaller (×)", "r", "{:.1f}".format, missing=DASH),
        *(Column(key, f"Latency, {key.partition('.')[2]} (ms)", "r", number, missing=DASH) for key in devices),
        Column("measured", "Real-time factor", "r", "{:.4f}".format),
    )
    caption = (
        f"Every search on {study.described_split}, decoded from the packed files alone. Latency: simulated, from the "
        "end of speech to the last label, with as many calls of joiner, prediction network and language models as the "
        "search was seen to make. Real-time factor: measured over the whole set, many utterances at a time, on a "
        "machine that may have done other work too."
    )
    names = [*(column.key for column in columns), "wer_low", "wer_high", "run"]
    return Table("searches", "Searches", caption, frame[names], columns)


def kept(study: Study) -> Table | None:
    """A row per form of fusion and beam: its gain for the first models and for others, and whether they keep it."""
    found = cells(study)
    rows = [row for form in FORMS for row in _held(study, found, form)]
    if not rows:
        return None
    shares = [row["claim"] for row in rows]
    losses = [row["loss"] for row in rows]
    known = [one for one in shares if one is not None]
    told = verdicts([*known, *map(not_worse, losses)])
    of_shares = iter(told[: len(known)])
    frame = pd.DataFrame(
        {
            **{name: row[name] for name in ("models", "fusion", "beam", "float_wer", "wer")},
            **_interval("loss", row["loss"]),
            "not_worse": str(verdict),
            **_interval("float_gain", row["float_gain"]),
            **_interval("gain", row["gain"]),
            "share": row["share"],
            "kept": "" if row["claim"] is None else str(next(of_shares)),
        }
        for row, verdict in zip(rows, told[len(known) :], strict=True)
    )
    reference = str(found.models.iloc[0])
    columns = (
        Column("models", "Models"),
        Column("fusion", "Fusion"),
        Column("beam", "Beam", "r"),
        Column("float_wer", f"{reference[0].upper()}{reference[1:]} WER (%)", "r", percent),
        Column("wer", "WER (%)", "r", percent),
        Column("loss", "Δ (points)", "r", points, _ends("loss")),
        Column("not_worse", "Not worse?"),
        Column("float_gain", f"Gain in {reference} (points)", "r", points, _ends("float_gain"), missing=""),
        Column("gain", "Gain (points)", "r", points, _ends("gain"), missing=""),
        Column("share", "kept (%)", "r", percent, missing=""),
        Column("kept", f"At least {SHARE:.0%}?".replace("%", " %")),
    )
    caption = (
        f"What fusion takes off the word error rate on {study.described_split} at the same beam, in {reference} and in "
        f"few bits, and how much of it is kept. Intervals of 95 %: a paired bootstrap over {study.resampled}, the same "
        f"draws for all. Not worse: by less than {MARGIN_TEXT} of the {reference} rate. Verdicts with Holm's "
        "correction over the table."
    )
    return Table("kept", "Gain of fusion that is kept", caption, frame, columns)


def choices(study: Study) -> Table | None:
    """The quantizer of every tensor of recognizer and language models, with the error of each that it was chosen over:
    those of the largest search that has any."""
    found = cells(study).sort_values("size_bytes", kind="stable")
    told = [told for record in found.record if (told := choices_of(record))]
    if not told:
        return None
    rows = [
        {"tensor": tensor, "quantizer": one.get("quantizer"), **(one.get("errors") or {})}
        for tensor, one in told[-1].items()
    ]
    frame = pd.DataFrame(rows)
    rivals = [name for name in frame if name not in ("tensor", "quantizer")]
    columns = (
        Column("tensor", "Tensor"),
        Column("quantizer", "Chosen"),
        *(Column(name, name, "r", lambda error: number(error, 2), bold=_chosen(name)) for name in rivals),
    )
    caption = (
        "The quantizer that calibration chose for each tensor of recognizer and language models, and the squared "
        "errors of all candidates relative to the power of the tensor, the chosen one in bold. Without numbers there "
        "was nothing to choose: the range is known."
    )
    return Table("choices", "Quantizer by tensor", caption, frame, columns)


def _chosen(name: str) -> Callable[[Row], bool]:
    return lambda row: row["quantizer"] == name


def by_beam(study: Study) -> Iterator[Picture]:
    """Word error rate over beam widths, a line per models and form of fusion."""
    found = cells(study)
    if found.empty:
        return
    figure = Figure(figsize=(WIDTH, 3.4), layout="constrained")
    axes = figure.subplots()
    for _, mine in found.groupby(["models", "form"], sort=False):
        mark, mine = _mark(mine), mine.sort_values("beam")
        axes.fill_between(mine.beam, 100 * mine.low, 100 * mine.high, color=mark.color, alpha=0.08, lw=0)
        axes.plot(mine.beam, 100 * mine.wer, **_look(mine))
    axes.set_xscale("log", base=2)
    axes.set(xticks=sorted(found.beam.unique()), xticklabels=sorted(found.beam.unique()))
    axes.set(xlabel="Hypotheses that are kept (beam)", ylabel=f"WER on {study.split} (%)")
    axes.set_ylim(bottom=0)
    _legend(figure, found)
    caption = (
        f"Word error rates on {study.described_split} over beam widths, with 95 % intervals of a bootstrap over "
        f"{study.resampled}."
    )
    yield Picture("by_beam", "Word error rate over beam widths", caption, figure)


def against_latency(study: Study) -> Iterator[Picture]:
    """Word error rate against simulated latency, beam by beam: what few bits buy."""
    found = cells(study)
    if found.empty or not study.accelerators:
        return
    figure = Figure(figsize=(WIDTH, 3.6), layout="constrained")
    parts = figure.subplots(1, len(study.accelerators), sharey=True, squeeze=False)[0]
    for axes, device in zip(parts, study.accelerators, strict=True):
        for _, mine in found.groupby(["models", "form"], sort=False):
            mine = mine.sort_values("beam").assign(ms=mine[f"latency_ms.{device}"])
            axes.plot(mine.ms, 100 * mine.wer, **_look(mine))
            for _, one in mine.iloc[[0, -1]].iterrows():
                at = (one.ms, 100 * one.wer)
                axes.annotate(str(one.beam), at, xytext=(3, 4), textcoords="offset points", color=MUTED, fontsize=7)
        values = [*found[f"latency_ms.{device}"].dropna()]
        set_axis(axes, "x", cost_scale(values, values), f"Latency on {device} (ms)")
    parts[0].set_ylabel(f"WER on {study.split} (%)")
    _legend(figure, found)
    caption = (
        f"Word error rates on {study.described_split} against the latency of the whole search, simulated, over beam "
        "widths (the numbers: the narrowest and the widest)."
    )
    yield Picture("against_latency", "What few bits buy: wider beams at equal latency", caption, figure)


def _held(study: Study, found: pd.DataFrame, form: str) -> Iterator[dict[str, Any]]:
    """Each search of a form against the first models' at the same beam, and its gain over no language model."""
    if found.empty:
        return
    reference = found.models.iloc[0]
    for _, one in found[(found.form == form) & (found.models != reference)].iterrows():
        places = ((reference, form), (reference, NONE), (one.models, form), (one.models, NONE))
        there = [_at(found, *place, one.beam) for place in places]
        if there[0] is None:
            continue
        told = {"models": one.models, "fusion": FORMS.get(form, form), "beam": one.beam, "wer": one.wer}
        told |= {"float_wer": there[0].wer.iloc[0]}
        yield told | {"loss": difference(study, there[2], there[0])} | _gains(study, form, *there)


def _gains(study: Study, form: str, *there: pd.DataFrame | None) -> dict[str, Any]:
    """What a form takes off, for the first models and the others; the claim that these keep most of it."""
    first_form, first_none, form_, none = there
    if form == NONE or first_none is None or none is None:
        return {"float_gain": None, "gain": None, "share": np.nan, "claim": None}
    reference, gain = difference(study, first_none, first_form), difference(study, none, form_, models=(2, 3))
    lost = SHARE * reference.value - gain.value
    claim = Difference(lost, SHARE * reference.draws - gain.draws, drawn=gain.drawn, grouped=gain.grouped)
    share = gain.value / reference.value if reference.low > 0 else np.nan  # of what is no gain there is no share
    return {"float_gain": reference, "gain": gain, "share": share, "claim": claim}


def _at(found: pd.DataFrame, models: str, form: str, beam: int) -> pd.DataFrame | None:
    here = found[(found.models == models) & (found.form == form) & (found.beam == beam)]
    return None if first(here) is None else here.iloc[:1]


def _interval(name: str, gap: Difference | None) -> dict[str, float]:
    values = (np.nan,) * 3 if gap is None else (gap.value, gap.low, gap.high)
    return dict(zip((name, f"{name}_low", f"{name}_high"), values, strict=True))


def _ends(name: str) -> Any:
    def small(row: Row) -> str:
        low, high = row[f"{name}_low"], row[f"{name}_high"]
        return "" if np.isnan(low + high) else f"[{points(low)}, {points(high)}]"

    return small


def _mark(mine: pd.DataFrame) -> Any:
    return MARKS.get(mine.policy.iloc[0], MARKS["ptq"])


def _look(mine: pd.DataFrame) -> dict[str, Any]:
    mark = _mark(mine)
    return {"color": mark.color, "marker": mark.marker, "ms": 0.7 * mark.size, "ls": LINES[mine.form.iloc[0]], "lw": 1}


def _legend(figure: Figure, found: pd.DataFrame) -> None:
    """Colours for models, lines for forms of fusion."""
    models = [mine for _, mine in found.groupby("models", sort=False)]
    handles = [
        Line2D([], [], color=_mark(mine).color, marker=_mark(mine).marker, ls="", label=mine.models.iloc[0])
        for mine in models
    ]
    handles += [
        Line2D([], [], color=INK, ls=LINES[form], label=FORMS[form]) for form in FORMS if form in set(found.form)
    ]
    figure.legend(handles=handles, loc="outside upper center", ncols=len(handles), fontsize=8)
