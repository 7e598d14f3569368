"""What is claimed of quantization policies, held against a study's records: it holds, does not, or cannot be told."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from analysis.measures import Difference, difference
from analysis.records import unpacked
from analysis.series import series
from analysis.study import Study
from analysis.tables.table import Column, Table
from analysis.text import DASH, counted, listed, points

HOLDS, FAILS, OPEN = "holds", "does not hold", "cannot be told"
FEW = (4, 3, 2)  # weight bits at which training is held against rounding


@dataclass(frozen=True)
class Finding:
    """One claim about one method in one study."""

    claim: str
    method: str
    """And how its activations are treated."""
    gap: Difference
    verdict: str


def findings(study: Study) -> list[Finding]:
    """Every claim about every series of the study."""
    found = series(study)
    return [finding for check in CHECKS for finding in check(study, found)]


def _lossless(study: Study, found: pd.DataFrame) -> Iterator[Finding]:
    """8 bits lose nothing: the rate is within the float baseline's interval."""
    if study.reference is None:
        return
    for one in _at(found, 8):
        gap = _difference(study, one, study.reference)
        verdict = HOLDS if one.wer <= one.float_high else FAILS if gap.higher else OPEN
        yield Finding("8 bits: WER within the float baseline's interval, or below", _name(one), gap, verdict)


def _no_worse(study: Study, found: pd.DataFrame) -> Iterator[Finding]:
    """8 bits trained lose nothing against float weights trained as long."""
    control = study.settings[study.settings.policy == "float"].sort_values("wer", kind="stable")
    if control.empty:
        return
    middle = control.iloc[(len(control) - 1) // 2]
    for one in _at(found[_trained(found)], 8):
        gap = _difference(study, one, middle)
        yield Finding(
            "8 bits: no worse than the float control, trained as long", _name(one), gap, FAILS if gap.higher else HOLDS
        )


def _beats_rounding(study: Study, found: pd.DataFrame) -> Iterator[Finding]:
    """Trained policies beat rounding to the largest magnitude, the activations being equally wide."""
    rivals = found[_rounds_to_max(found)]
    for width in FEW:
        for one in _at(found[_trained(found)], width):
            rival = rivals[(rivals.kind == one.kind) & (rivals.width == width)]
            if not rival.empty:
                gap = _difference(study, one, rival.iloc[-1])
                verdict = HOLDS if gap.lower else FAILS if gap.higher else OPEN
                yield Finding(f"{width} bits: lower WER than ptq max", _name(one), gap, verdict)


def _packed(study: Study, found: pd.DataFrame) -> Iterator[Finding]:
    """The packed model recognizes what the training model does; told by their rates on the dev set."""
    rates = found["wer.dev"] if "wer.dev" in found else pd.Series(np.nan, index=found.index)
    known = found.assign(gap=rates - found.training_model_wer).dropna(subset="gap")
    for _, mine in known.groupby(["kind", "name"], sort=False):
        widest = mine.gap.iloc[int(mine.gap.abs().argmax())]
        yield Finding(
            "all widths: the packed model's WER on dev is the training model's",
            _name(mine.iloc[0]),
            Difference(widest),
            HOLDS if widest == 0 else FAILS,
        )


CHECKS: tuple[Callable[[Study, pd.DataFrame], Iterator[Finding]], ...] = (
    _lossless,
    _no_worse,
    _beats_rounding,
    _packed,
)


def claims(studies: Sequence[tuple[str, Study]]) -> Table | None:
    """A row per claim and method, for every (name, study) its difference and its verdict; None without findings."""
    found = [{(one.claim, one.method): one for one in findings(study)} for _, study in studies]
    keys = list(dict.fromkeys(key for one in found for key in one))
    if not keys:
        return None
    order = list(dict.fromkeys(claim for claim, _ in keys))
    keys.sort(key=lambda key: order.index(key[0]))
    values: dict[str, list[Any]] = {"claim": [claim for claim, _ in keys], "method": [method for _, method in keys]}
    columns = [Column("claim", "Claim"), Column("method", "Method")]
    for (name, _), mine in zip(studies, found, strict=True):
        prefix = f"{name} " if len(studies) > 1 else ""
        values |= _values([mine.get(key) for key in keys], prefix.replace(" ", "_"))
        columns += _columns(prefix)
    return Table("claims", "Claims", CAPTION, pd.DataFrame(values), tuple(columns))


def _values(found: Sequence[Finding | None], prefix: str) -> dict[str, list[Any]]:
    return {
        f"{prefix}difference": [one.gap.value if one else None for one in found],
        f"{prefix}low": [one.gap.low if one else None for one in found],
        f"{prefix}high": [one.gap.high if one else None for one in found],
        f"{prefix}verdict": [one.verdict if one else None for one in found],
    }


def _columns(prefix: str) -> list[Column]:
    name = prefix.replace(" ", "_")
    gap = Column(
        f"{name}difference",
        f"{prefix}Δ (points) [95 %]",
        "r",
        points,
        missing=DASH,
        small=lambda row: Difference(0, row[f"{name}low"], row[f"{name}high"]).words[1],
    )
    verdict = Column(f"{name}verdict", f"{prefix}verdict", bold=lambda row: row[f"{name}verdict"] == FAILS)
    return [gap, verdict]


CAPTION = (
    "Δ: WER minus that of what it is held against, in percentage points (of the packed against the training model: the "
    "largest over all widths), with the 95 % interval of a bootstrap over utterances in which both runs get the same "
    "draw (where records lack errors by utterance: made of both runs' intervals, hence wider). A difference counts if "
    "its interval leaves zero out; no correction for the number of rows: of twenty rows without any difference one is "
    "expected to look like one."
)


@dataclass(frozen=True)
class Summary:
    """A claim in a few words."""

    claim: str
    lines: list[str]
    """One per study: how often it holds."""


def summaries(studies: Sequence[tuple[str, Study]]) -> list[Summary]:
    """Every claim with its tally in every (name, study)."""
    found = [(name, findings(study)) for name, study in studies]
    claims = dict.fromkeys(one.claim for _, mine in found for one in mine)
    return [Summary(claim, [_line(name, mine, claim) for name, mine in found]) for claim in claims]


def _line(name: str, found: Sequence[Finding], claim: str) -> str:
    return f"{name}: {_tally([one for one in found if one.claim == claim]) or 'no such runs'}"


def _tally(found: Sequence[Finding]) -> str:
    parts = []
    for verdict in (HOLDS, FAILS, OPEN):
        mine = [one.method for one in found if one.verdict == verdict]
        if mine:
            names = "" if verdict == HOLDS or len(mine) == len(found) else f" ({'; '.join(mine)})"
            parts.append(f"{verdict} for {len(mine)} of {counted(len(found), 'method')}{names}")
    return listed(parts)


def _difference(study: Study, one: pd.Series, other: pd.Series) -> Difference:
    return difference(study, study.runs_of(one), study.runs_of(other))


def _at(found: pd.DataFrame, width: int) -> Iterator[pd.Series]:
    """The setting of every series at this width; one that ends two series (8/8 bits) once."""
    for _, one in found[found.width == width].drop_duplicates("setting").iterrows():
        yield one


def _name(one: pd.Series) -> str:
    return f"{one['name']}, {one.kind}"  # `one.name` is pandas' own


def _trained(found: pd.DataFrame) -> pd.Series:
    """Whether training steps went into any run of the row's series."""
    return found.groupby(["kind", "name"]).steps.transform("max") > 0


def _rounds_to_max(found: pd.DataFrame) -> pd.Series:
    """Whether all runs of the row's series are `ptq` whose widest weight is the last level."""
    policies = [(json.loads(unpacked(record)).get("config") or {}).get("policy") or {} for record in found.record]
    rounds = [
        (p.get("name"), p.get("weight_range"), p.get("rounding", "nearest")) == ("ptq", "max", "nearest")
        for p in policies
    ]
    return found.assign(rounds=rounds).groupby(["kind", "name"]).rounds.transform("all")
