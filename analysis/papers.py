"""What papers claim, held against our records: their number, ours with its interval, the verdict, and why.

The claims are a YAML file beside the reports (`reports/papers.yaml`), because what a number comes to is known only once
it is measured: its `why` is written by who looked at the records, its numbers come from them.

    - paper: Native QAT
      source: Ding et al. 2022, arXiv 2203.15952
      claims:
        - says: 4-bit weights lose nothing
          theirs: as float
          measure: not_worse
          study: native_qat
          of: {architecture: lstm, policy: native_int, bits: W4A8}
          why: ...
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd

from analysis.architectures import settings
from analysis.differences import Difference, between
from analysis.joint import ACCELERATOR
from analysis.measures import compression
from analysis.study import Study
from analysis.tables.table import Column, Table
from analysis.text import DASH, change, percent, points
from analysis.verdicts import REFUTED, SHOWN, not_worse, verdicts
from qstudy.errors import UserError
from qstudy.fields import Text, check_fields, fill
from qstudy.yaml_file import load_yaml

Measure = Literal["not_worse", "better", "smaller", "faster", "saved"]
Where = dict[Text, Text | int | float]
NOT_MEASURED = "not measured"
COLUMNS = (
    Column("paper", "Paper"),
    Column("says", "Claim", link=lambda row: row["report"] and f"{row['report']}/index.html"),
    Column("theirs", "Theirs"),
    Column("ours", "Ours"),
    Column("verdict", "Verdict", bold=lambda row: row["verdict"] in (SHOWN, REFUTED)),
)


@dataclass(frozen=True)
class Claim:
    """One claim, and which of our settings it is held against."""

    says: Text
    theirs: Text
    """The paper's number, in its words."""
    measure: Measure
    """`not_worse`: than the float control, or `against`, by less than a tenth of its rate; `better`: fewer errors than
    `against`; `smaller`: than float, in bytes; `faster`: than `against`, simulated; `saved`: share of the encoder's
    MACs."""
    study: Text
    of: Where
    """Column -> value: the one setting of the study that all of them hold for."""
    against: Where = field(default_factory=dict)
    at_least: float | None = None
    """What `smaller` (times), `faster` (share) and `saved` (share) must come to."""
    why: str = ""

    def __post_init__(self) -> None:
        check_fields(self)
        if self.measure in ("better", "faster") and not self.against:
            raise UserError(f"against: missing; name what {self.says!r} is {self.measure} than.")


@dataclass(frozen=True)
class Paper:
    """One paper."""

    paper: Text
    source: Text
    claims: tuple[Any, ...]
    """Each a `Claim`, of the mapping that the file has."""
    report: str = ""
    """The folder of our report on it, beside the file."""

    def __post_init__(self) -> None:
        check_fields(self)
        made = tuple(fill(Claim, each, f"claims.{place}") for place, each in enumerate(self.claims))
        object.__setattr__(self, "claims", made)


class Finding(NamedTuple):
    """What our records say of a claim."""

    ours: str
    gap: Difference | None = None
    """What is claimed to lie below 0: judged together with all others."""
    value: float = np.nan
    """Of what is counted or simulated: it is what it is."""


def load_papers(path: Path) -> list[Paper]:
    """Read the claims.

    Raises:
        UserError: the file is missing or no YAML, a field is unknown, missing or wrong.
    """
    listed = load_yaml(path).get("papers")
    if not isinstance(listed, list):
        raise UserError(f"{path}: papers: this must be a list of papers, each with its claims.")
    try:
        return [fill(Paper, each, f"papers.{place}") for place, each in enumerate(listed)]
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


def held_against_ours(papers: Sequence[Paper], studies: Sequence[Study], places: Mapping[str, str]) -> Table:
    """A row per claim, which leads to its study's report: `places` has the folder of each."""
    asked = {claim.study for paper in papers for claim in paper.claims}
    known = {study.name: (study, settings(study)) for study in studies if study.name in asked}
    rows = [
        (paper, claim, _finding(claim, *known.get(claim.study, (None, None))))
        for paper in papers
        for claim in paper.claims
    ]
    judged = [found for *_, found in rows if found.gap is not None]
    told = verdicts([found.gap for found in judged if found.gap])
    words = dict(zip(map(id, judged), map(str, told), strict=True))
    frame = pd.DataFrame(
        [
            {
                "paper": paper.paper,
                "says": claim.says,
                "theirs": claim.theirs,
                "ours": found.ours,
                "verdict": words.get(id(found)) or _counted(claim, found),
                "why": " ".join(claim.why.split()),
                "source": paper.source,
                "study": claim.study,
                "report": places.get(claim.study, ""),
            }
            for paper, claim, found in rows
        ]
    )
    caption = (
        "Claims of the papers beside our records. Not worse: by less than a tenth of the float control's rate, a "
        "margin stated beforehand; better: the paired interval lies below 0; both by a bootstrap with Holm's "
        "correction over this table. Latencies are simulated on "
        f"{ACCELERATOR}. Our tasks are not theirs: a verdict is on our records."
    )
    return Table("papers", "What the papers claim, and what our records say", caption, frame, COLUMNS)


def _counted(claim: Claim, found: Finding) -> str:
    """The verdict on what needs no test."""
    if np.isnan(found.value):
        return NOT_MEASURED
    if claim.at_least is None:
        return DASH
    return SHOWN if found.value >= claim.at_least else REFUTED


def _finding(claim: Claim, study: Study | None, known: pd.DataFrame | None) -> Finding:
    if study is None or known is None:
        return Finding(DASH)
    one, other = _chosen(known, claim.of, claim), _chosen(known, claim.against, claim)
    missing = one is None or (claim.against and other is None)
    return Finding(DASH) if missing else MEASURES[claim.measure](study, known, one, other)


def _chosen(known: pd.DataFrame, where: Where, claim: Claim) -> pd.Series | None:
    """The one setting for which all of it holds; None: there is none yet, or nothing was asked for."""
    if not where:
        return None
    if odd := [name for name in where if name not in known]:
        raise UserError(
            f"{claim.says!r}: {odd[0]} is not a column of the settings, which are {', '.join(known)[:600]}."
        )
    holds = np.all([_equal(known[name], value) for name, value in where.items()], axis=0)
    found = known[holds]
    if len(found) > 1:
        listed = ", ".join(found.run)
        raise UserError(f"{claim.says!r}: {len(found)} settings of {claim.study} fit ({listed}); say which is meant.")
    return None if found.empty else found.iloc[0]


def _equal(column: pd.Series, value: str | float) -> pd.Series:
    """Numbers as numbers: means over seeds are no whole ones."""
    return column.astype(str) == value if isinstance(value, str) else pd.to_numeric(column, errors="coerce") == value


def _not_worse(study: Study, _: pd.DataFrame, one: pd.Series, other: Any) -> Finding:
    control = study.control_of(one) if other is None else other
    if control is None:
        return Finding(f"{percent(one.wer)} %, no float control")
    return _compared(study, one, control, not_worse)


def _better(study: Study, _: pd.DataFrame, one: pd.Series, other: Any) -> Finding:
    return _compared(study, one, other, lambda gap: gap)


def _compared(study: Study, one: pd.Series, other: pd.Series, claim: Callable[[Difference], Difference]) -> Finding:
    if one.is_baseline or other.is_baseline:
        raise UserError(f"{study.name}: a float baseline was not trained as its trials were; name its float control.")
    gap = between(study, one, other)
    relative = f", {change(gap.value / gap.other)} %" if gap.other else ""
    said = f"{percent(gap.other + gap.value)} against {percent(gap.other)} %: {points(gap.value)} points"
    return Finding(f"{said} [{points(gap.low)}, {points(gap.high)}]{relative}", claim(gap))


def _smaller(_: Study, __: pd.DataFrame, one: pd.Series, ___: Any) -> Finding:
    ratio = float(compression(one.to_frame().T).iloc[0])
    if np.isnan(ratio):
        return Finding(DASH)
    return Finding(f"{ratio:.1f}× ({percent(one.wer)} %)", value=ratio)


def _faster(_: Study, __: pd.DataFrame, one: pd.Series, other: Any) -> Finding:
    column = f"latency_ms.{ACCELERATOR}"
    share = 1 - float(one.get(column, np.nan)) / float(other.get(column, np.nan))
    if np.isnan(share):
        return Finding(DASH)
    return Finding(
        f"{100 * share:.1f} % ({one[column]:.3g} against {other[column]:.3g} ms)".replace("-", "−"), value=share
    )


def _saved(_: Study, __: pd.DataFrame, one: pd.Series, ___: Any) -> Finding:
    if np.isnan(one.saved):
        return Finding(DASH)
    return Finding(f"{100 * one.saved:.1f} % ({percent(one.wer)} %)", value=float(one.saved))


MEASURES = {"not_worse": _not_worse, "better": _better, "smaller": _smaller, "faster": _faster, "saved": _saved}
