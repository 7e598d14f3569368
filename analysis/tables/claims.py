"""What is claimed of quantization policies, held against a study's records: shown, refuted, or open."""

import json
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from analysis.differences import Difference, between, difference, same_seeds
from analysis.records import unpacked
from analysis.series import series
from analysis.study import Study
from analysis.tables.table import Column, Row, Table
from analysis.text import DASH, counted, listed, points
from analysis.verdicts import MARGIN, OPEN, REFUTED, SHOWN, caution, not_worse, verdicts

MARGIN_TEXT = f"{MARGIN:.0%}".replace("%", " %")
FEW = (4, 3, 2)  # weight bits at which training is held against rounding
MOST = 8  # weight bits up to which somebody might lose something
CAPTION = (
    "Δ: WER minus that of what it is held against, in percentage points (of the packed against the training model: the "
    "largest of all runs), with the 95 % interval of a bootstrap over {drawn}, and over seeds where there are "
    "several, in which both runs get the same draw, and either may make an error more than was seen (where records "
    "lack errors by utterance: made of both runs' intervals, hence wider). Not worse: by less than "
    f"{MARGIN_TEXT} of the float rate, a margin stated beforehand and drawn like that rate. A "
    "claim is shown, or refuted, where the bootstrap lies on one side, with Holm's correction over all claims of a "
    "study: the chance of one false verdict among them is 5 %. Else it cannot be told; in brackets how many "
    "utterances, or groups, would tell, if the difference stayed what it is (and seeds grew in proportion)."
)


class Finding(NamedTuple):
    """One claim about one method in one study."""

    claim: str
    method: str
    """And how its activations are treated."""
    gap: Difference
    claimed: Difference | None = None
    """What is claimed to lie below 0; None: the difference is claimed to be 0, and nothing is left to chance."""
    setting: str = ""
    """Of the one that is claimed to be not worse than float."""


def findings(study: Study) -> pd.DataFrame:
    """Every claim about every series of the study, a row each: claim, method, difference, low, high, verdict."""
    found = series(study)
    found = found.assign(method=found["name"] + ", " + found.kind, rounds=[*map(_rounds_to_max, found.record)])
    grouped = found.groupby("method")
    found = found.assign(trained=grouped.steps.transform("max") > 0, rounds=grouped.rounds.transform("all"))
    made = [one for check in CHECKS for one in check(study, found)]
    left = [one for one in made if one.claimed]
    told = dict(zip(map(id, left), verdicts([one.claimed for one in left if one.claimed]), strict=True))
    rows = [
        {
            "claim": one.claim,
            "method": one.method,
            **{"difference": one.gap.value, "low": one.gap.low, "high": one.gap.high},
            "verdict": str(told.get(id(one), _exact(one))),
            "setting": one.setting,
        }
        for one in made
    ]
    return pd.DataFrame(rows, columns=["claim", "method", "difference", "low", "high", "verdict", "setting"])


def shown_not_worse(study: Study) -> set[str]:
    """The settings that are shown to be not worse than float."""
    found = findings(study)
    return set(found.setting[(found.verdict == SHOWN) & (found.setting != "")])


def _exact(one: Finding) -> str:
    return REFUTED if one.gap.value else SHOWN


def _not_worse(study: Study, found: pd.DataFrame) -> Iterator[Finding]:
    """Whatever was trained against float weights trained as long; the rest, or without them, against the baseline."""
    for width in sorted({int(width) for width in found.width if width <= MOST}, reverse=True):
        for one in _at(found, width):
            control = study.control_of(one) if one.trained else None
            if control is None:  # each run's own, of which there may be one for all seeds
                runs = study.runs_of(one)
                floats = study.floats_of(runs)
                if len(floats) < len(runs) or floats.wer.isna().any():  # without a record, or a rate on this set
                    continue
                against, pair = "the float baseline", (runs, floats)
            else:
                against = "the float control, trained as long"
                pair = same_seeds(study.runs_of(one), study.runs_of(control))
            claim = f"{width} bits: not worse than {against}"
            gap = difference(study, *pair)
            yield Finding(claim, one.method, gap, not_worse(gap), one.setting)


def _beats_rounding(study: Study, found: pd.DataFrame) -> Iterator[Finding]:
    """Trained policies beat rounding to the largest magnitude, the activations being equally wide."""
    for width in FEW:
        for one in _at(found[found.trained], width):
            alike = (found.float_run == one.float_run) & (found.kind == one.kind) & (found.width == width)
            rivals = found[found.rounds & alike]
            for _, rival in rivals.tail(1).iterrows():
                gap = between(study, one, rival)
                yield Finding(f"{width} bits: lower WER than ptq max", one.method, gap, gap)


def _packed(study: Study, found: pd.DataFrame) -> Iterator[Finding]:
    """The packed model recognizes what the training model does; told by their rates on the dev set."""
    trials = study.trials.assign(gap=study.trials.get("wer.dev", np.nan) - study.trials.training_model_wer)
    known = trials[["setting", "gap"]].dropna().merge(found[["setting", "method"]].drop_duplicates(), on="setting")
    for method, mine in known.groupby("method", sort=False):  # by run: of a mean over seeds, differences cancel
        widest = mine.gap.iloc[int(mine.gap.abs().argmax())]
        claim = "all widths: the packed model's WER on dev is the training model's"
        yield Finding(claim, str(method), Difference(widest, np.array([np.nan])))


Check = Callable[[Study, pd.DataFrame], Iterator[Finding]]
"""Findings about the series of a study."""
CHECKS: tuple[Check, ...] = (_not_worse, _beats_rounding, _packed)


def claims(studies: Sequence[tuple[str, Study]]) -> Table | None:
    """A row per claim and method, for every (name, study) its difference and its verdict; None without findings."""
    prefixes = [f"{name} " if len(studies) > 1 else "" for name, _ in studies]
    keys = ["claim", "method"]
    parts = [
        findings(study).drop(columns="setting").set_index(keys).add_prefix(prefix.replace(" ", "_"))
        for prefix, (_, study) in zip(prefixes, studies, strict=True)
    ]
    frame = pd.concat(parts, axis=1, sort=False).reset_index()
    if frame.empty:
        return None
    drawn = " or ".join(dict.fromkeys(study.resampled for _, study in studies))
    frame = frame.sort_values("claim", key=lambda found: found.map(list(found.unique()).index), kind="stable")
    columns = [column for prefix in prefixes for column in _columns(prefix)]
    columns = [Column("claim", "Claim"), Column("method", "Method"), *columns]
    return Table("claims", "Claims", CAPTION.format(drawn=drawn) + caution(max(map(len, parts))), frame, tuple(columns))


def _columns(prefix: str) -> list[Column]:
    name = prefix.replace(" ", "_")

    def interval(row: Row) -> str:
        low, high = row[f"{name}low"], row[f"{name}high"]
        return "" if np.isnan(low + high) else f"[{points(low)}, {points(high)}]"

    gap = Column(f"{name}difference", f"{prefix}Δ (points) [95 %]", "r", points, interval, missing=DASH)
    verdict = Column(f"{name}verdict", f"{prefix}verdict", bold=lambda row: row[f"{name}verdict"] == REFUTED)
    return [gap, verdict]


def summaries(studies: Sequence[tuple[str, Study]]) -> dict[str, list[str]]:
    """Claim -> for every (name, study) how often it was shown."""
    found = {name: findings(study) for name, study in studies}
    claims = pd.concat(found.values()).claim.unique()
    return {claim: [f"{name}: {_tally(mine[mine.claim == claim])}" for name, mine in found.items()] for claim in claims}


def _tally(found: pd.DataFrame) -> str:
    parts = []
    for verdict in (SHOWN, REFUTED, OPEN):
        mine = found.method[found.verdict.str.startswith(verdict)]
        if len(mine):
            names = "" if verdict == SHOWN or len(mine) == len(found) else f" ({'; '.join(mine)})"
            parts.append(f"{verdict} for {len(mine)} of {counted(len(found), 'method')}{names}")
    return listed(parts) or "no such runs"


def _at(found: pd.DataFrame, width: int) -> Iterator[pd.Series]:
    """The setting of every series at this width; one that ends two series (8/8 bits) once."""
    for _, one in found[found.width == width].drop_duplicates("setting").iterrows():
        yield one


def _rounds_to_max(record: bytes) -> bool:
    """Whether the run is `ptq` whose widest weight is the last level."""
    policy = (json.loads(unpacked(record)).get("config") or {}).get("policy") or {}
    given = (policy.get("name"), policy.get("weight_range"), policy.get("rounding", "nearest"))
    return given == ("ptq", "max", "nearest")
