"""What is claimed of quantization policies, held against a study's records: it holds, does not, or cannot be told."""

import json
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from analysis.measures import Difference, difference, same_seeds
from analysis.records import unpacked
from analysis.series import series
from analysis.study import Study, middle
from analysis.tables.table import Column, Row, Table
from analysis.text import DASH, counted, listed, points

HOLDS, FAILS, OPEN = "holds", "does not hold", "cannot be told"
FEW = (4, 3, 2)  # weight bits at which training is held against rounding
CAPTION = (
    "Δ: WER minus that of what it is held against, in percentage points (of the packed against the training model: the "
    "largest over all widths), with the 95 % interval of a bootstrap over utterances in which both runs get the same "
    "draw (where records lack errors by utterance: made of both runs' intervals, hence wider). A difference counts if "
    "its interval leaves zero out; no correction for the number of rows: of twenty rows without any difference one is "
    "expected to look like one."
)


class Finding(NamedTuple):
    """One claim about one method in one study."""

    claim: str
    method: str
    """And how its activations are treated."""
    difference: float
    low: float
    high: float
    verdict: str


def findings(study: Study) -> pd.DataFrame:
    """Every claim about every series of the study: a row per `Finding`."""
    found = series(study)
    found = found.assign(method=found["name"] + ", " + found.kind, rounds=[*map(_rounds_to_max, found.record)])
    grouped = found.groupby("method")
    found = found.assign(trained=grouped.steps.transform("max") > 0, rounds=grouped.rounds.transform("all"))
    return pd.DataFrame([one for check in CHECKS for one in check(study, found)], columns=Finding._fields)


def _lossless(study: Study, found: pd.DataFrame) -> Iterator[Finding]:
    """8 bits lose nothing: the rate is within the float baseline's interval."""
    for one in _at(found, 8) if study.reference is not None else ():
        runs = study.runs_of(one)
        gap = difference(study, runs, study.floats_of(runs))
        claim = "8 bits: WER within the float baseline's interval, or below"
        yield Finding(claim, one.method, *gap, _verdict(gap, one.wer <= one.float_high))


def _no_worse(study: Study, found: pd.DataFrame) -> Iterator[Finding]:
    """8 bits trained lose nothing against float weights trained as long."""
    for _, control in middle(study.settings[study.settings.policy == "float"], ["policy"]).iterrows():
        for one in _at(found[found.trained], 8):
            gap = difference(study, *same_seeds(study.runs_of(one), study.runs_of(control)))
            claim = "8 bits: no worse than the float control, trained as long"
            yield Finding(claim, one.method, *gap, _verdict(gap, not gap.low > 0))


def _beats_rounding(study: Study, found: pd.DataFrame) -> Iterator[Finding]:
    """Trained policies beat rounding to the largest magnitude, the activations being equally wide."""
    for width in FEW:
        for one in _at(found[found.trained], width):
            rivals = found[found.rounds & (found.kind == one.kind) & (found.width == width)]
            for _, rival in rivals.tail(1).iterrows():
                gap = difference(study, *same_seeds(study.runs_of(one), study.runs_of(rival)))
                claim = f"{width} bits: lower WER than ptq max"
                yield Finding(claim, one.method, *gap, _verdict(gap, gap.high < 0))


def _packed(study: Study, found: pd.DataFrame) -> Iterator[Finding]:
    """The packed model recognizes what the training model does; told by their rates on the dev set."""
    known = found.assign(gap=found.get("wer.dev", np.nan) - found.training_model_wer).dropna(subset="gap")
    for method, mine in known.groupby("method", sort=False):
        widest = mine.gap.iloc[int(mine.gap.abs().argmax())]
        said, verdict = "all widths: the packed model's WER on dev is the training model's", FAILS if widest else HOLDS
        yield Finding(said, str(method), *Difference(widest), verdict)


Check = Callable[[Study, pd.DataFrame], Iterator[Finding]]
"""Findings about the series of a study."""
CHECKS: tuple[Check, ...] = (_lossless, _no_worse, _beats_rounding, _packed)


def claims(studies: Sequence[tuple[str, Study]]) -> Table | None:
    """A row per claim and method, for every (name, study) its difference and its verdict; None without findings."""
    prefixes = [f"{name} " if len(studies) > 1 else "" for name, _ in studies]
    keys = ["claim", "method"]
    parts = [
        findings(study).set_index(keys).add_prefix(prefix.replace(" ", "_"))
        for prefix, (_, study) in zip(prefixes, studies, strict=True)
    ]
    frame = pd.concat(parts, axis=1, sort=False).reset_index()
    if frame.empty:
        return None
    frame = frame.sort_values("claim", key=lambda found: found.map(list(found.unique()).index), kind="stable")
    columns = [column for prefix in prefixes for column in _columns(prefix)]
    return Table("claims", "Claims", CAPTION, frame, (Column("claim", "Claim"), Column("method", "Method"), *columns))


def _columns(prefix: str) -> list[Column]:
    name = prefix.replace(" ", "_")

    def interval(row: Row) -> str:
        low, high = row[f"{name}low"], row[f"{name}high"]
        return "" if np.isnan(low + high) else f"[{points(low)}, {points(high)}]"

    gap = Column(f"{name}difference", f"{prefix}Δ (points) [95 %]", "r", points, interval, missing=DASH)
    verdict = Column(f"{name}verdict", f"{prefix}verdict", bold=lambda row: row[f"{name}verdict"] == FAILS)
    return [gap, verdict]


def summaries(studies: Sequence[tuple[str, Study]]) -> dict[str, list[str]]:
    """Claim -> for every (name, study) how often it holds."""
    found = {name: findings(study) for name, study in studies}
    claims = pd.concat(found.values()).claim.unique()
    return {claim: [f"{name}: {_tally(mine[mine.claim == claim])}" for name, mine in found.items()] for claim in claims}


def _tally(found: pd.DataFrame) -> str:
    parts = []
    for verdict in (HOLDS, FAILS, OPEN):
        mine = found.method[found.verdict == verdict]
        if len(mine):
            names = "" if verdict == HOLDS or len(mine) == len(found) else f" ({'; '.join(mine)})"
            parts.append(f"{verdict} for {len(mine)} of {counted(len(found), 'method')}{names}")
    return listed(parts) or "no such runs"


def _verdict(gap: Difference, holds: bool) -> str:
    return HOLDS if holds else FAILS if gap.low > 0 else OPEN


def _at(found: pd.DataFrame, width: int) -> Iterator[pd.Series]:
    """The setting of every series at this width; one that ends two series (8/8 bits) once."""
    for _, one in found[found.width == width].drop_duplicates("setting").iterrows():
        yield one


def _rounds_to_max(record: bytes) -> bool:
    """Whether the run is `ptq` whose widest weight is the last level."""
    policy = (json.loads(unpacked(record)).get("config") or {}).get("policy") or {}
    given = (policy.get("name"), policy.get("weight_range"), policy.get("rounding", "nearest"))
    return given == ("ptq", "max", "nearest")
