"""What is claimed of quantization policies, held against a study's records: it holds, does not, or cannot be told."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from analysis.difference import Difference, difference
from analysis.records import Run
from analysis.study import Study
from analysis.tables import Cell, Column, Table
from analysis.text import DASH, counted, listed
from analysis.widths import Series, representative, series
from analysis.widths_table import within

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


def _lossless(study: Study, found: Sequence[Series]) -> Iterator[Finding]:
    """8 bits lose nothing: the rate is within the float baseline's interval."""
    if study.reference is None:
        return
    for one, run in _at(found, 8, study.split):
        gap = difference(run, study.reference, study.split)
        inside = within(run.scores[study.split], study.float_scores)
        verdict = HOLDS if inside else FAILS if gap.higher else OPEN
        yield Finding("8 bits: WER within the float baseline's interval, or below", _name(one), gap, verdict)


def _no_worse(study: Study, found: Sequence[Series]) -> Iterator[Finding]:
    """8 bits trained lose nothing against float weights trained as long."""
    control = [run for run in study.trials if run.policy == "float"]
    if not control:
        return
    for one, run in _at([one for one in found if one.trained], 8, study.split):
        gap = difference(run, representative(control, study.split), study.split)
        yield Finding(
            "8 bits: no worse than the float control, trained as long", _name(one), gap, FAILS if gap.higher else HOLDS
        )


def _beats_rounding(study: Study, found: Sequence[Series]) -> Iterator[Finding]:
    """Trained policies beat rounding to the largest magnitude, the activations being equally wide."""
    rivals = {one.kind: one for one in found if _rounds_to_max(one)}
    for width in FEW:
        for one, run in _at([one for one in found if one.trained and one.kind in rivals], width, study.split):
            rival = rivals[one.kind].runs.get(width)
            if rival:
                gap = difference(run, representative(rival, study.split), study.split)
                verdict = HOLDS if gap.lower else FAILS if gap.higher else OPEN
                yield Finding(f"{width} bits: lower WER than ptq max", _name(one), gap, verdict)


def _served(study: Study, found: Sequence[Series]) -> Iterator[Finding]:
    """The packed model recognizes what the training model does; told by their rates on the dev set."""
    for one in found:
        runs = [representative(runs, study.split) for runs in one.runs.values()]
        gaps = [
            run.scores["dev"].wer - float(rate)
            for run in runs
            if "dev" in run.scores and (rate := run.raw.get("training_model_wer")) is not None
        ]
        if gaps:
            widest = max(gaps, key=abs)
            yield Finding(
                "all widths: the packed model's WER on dev is the training model's",
                _name(one),
                Difference(widest),
                HOLDS if widest == 0 else FAILS,
            )


CHECKS: tuple[Callable[[Study, Sequence[Series]], Iterator[Finding]], ...] = (
    _lossless,
    _no_worse,
    _beats_rounding,
    _served,
)


def claims_table(studies: Sequence[tuple[str, Study]]) -> Table | None:
    """A row per claim and method, for every (name, study) its difference and its verdict; None without findings."""
    found = [{(one.claim, one.method): one for one in findings(study)} for _, study in studies]
    keys = list(dict.fromkeys(key for one in found for key in one))
    if not keys:
        return None
    columns = [Column("claim", "Claim"), Column("method", "Method")]
    for name, _ in studies:
        prefix = f"{name} " if len(studies) > 1 else ""
        columns += [
            Column(f"{prefix}difference".replace(" ", "_"), f"{prefix}Δ (points) [95 %]", "r"),
            Column(f"{prefix}low".replace(" ", "_"), "", printed=False),
            Column(f"{prefix}high".replace(" ", "_"), "", printed=False),
            Column(f"{prefix}verdict".replace(" ", "_"), f"{prefix}verdict"),
        ]
    ordered = sorted(keys, key=lambda key: list(dict.fromkeys(claim for claim, _ in keys)).index(key[0]))
    rows = [(*map(Cell, key, key), *(cell for one in found for cell in _cells(one.get(key)))) for key in ordered]
    return Table("claims", "Claims", CAPTION, tuple(columns), tuple(rows))


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


def _cells(finding: Finding | None) -> list[Cell]:
    if finding is None:
        return [Cell(DASH), Cell(""), Cell(""), Cell("")]
    gap = finding.gap
    text, ends = gap.words
    verdict = Cell(finding.verdict, finding.verdict, bold=finding.verdict == FAILS)
    return [Cell(text, gap.value, ends), Cell("", gap.low), Cell("", gap.high), verdict]


def _at(found: Sequence[Series], width: int, split: str) -> Iterator[tuple[Series, Run]]:
    """The run of every series at this width; one that ends two series (8/8 bits) once."""
    seen = set()
    for one in found:
        if width in one.runs and (run := representative(one.runs[width], split)).name not in seen:
            seen.add(run.name)
            yield one, run


def _name(one: Series) -> str:
    return f"{one.policy}, {one.kind}"


def _rounds_to_max(one: Series) -> bool:
    """Whether these runs are `ptq` with grids that end at the largest weight."""
    configs = [run.raw.get("config") or {} for runs in one.runs.values() for run in runs]
    policies = [config.get("policy") or {} for config in configs if isinstance(config, dict)]
    return all(
        (p.get("name"), p.get("weight_range"), p.get("rounding", "nearest")) == ("ptq", "max", "nearest")
        for p in policies
    )
