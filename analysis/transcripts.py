"""Sample transcripts of the most telling runs, sentence by sentence."""

from dataclasses import dataclass
from itertools import groupby

import jiwer
import numpy as np
import pandas as pd

from analysis.measures import front
from analysis.study import Study

SENTENCES = 8
RUNS = 8
LONGEST = 2_000  # characters of a transcript that are kept

Piece = tuple[str, str]
"""(`same`, `deleted` or `inserted`, neighbouring words); a substitution is a deleted piece and an inserted one."""


@dataclass(frozen=True)
class Line:
    """What one run heard."""

    run: str
    title: str
    """Policy and widths."""
    pieces: list[Piece]

    @property
    def correct(self) -> bool:
        """Whether not a word differs."""
        return all(kind == "same" for kind, _ in self.pieces)


@dataclass(frozen=True)
class Sentence:
    """One reference with what the runs heard, largest model first."""

    reference: str
    lines: list[Line]

    @property
    def right(self) -> list[Line]:
        """Runs that heard every word."""
        return [line for line in self.lines if line.correct]

    @property
    def wrong(self) -> list[Line]:
        """Runs that did not."""
        return [line for line in self.lines if not line.correct]


def sentences(study: Study) -> list[Sentence]:
    """Up to 8 sentences: those that the runs disagree on first, each in the order of the records."""
    shown = _runs(study)
    spoken = study.samples[["run"]].join(study.samples[["reference", "hypothesis"]].map(_kept))
    heard = shown.merge(spoken, on="run")
    found = [
        Sentence(str(reference), [_line(one) for _, one in lines.iterrows()])
        for reference, lines in heard.groupby("reference", sort=False)
    ]
    telling = sorted(range(len(found)), key=lambda place: -len(found[place].wrong))[:SENTENCES]
    return [found[place] for place in sorted(telling)]


def differences(reference: str, hypothesis: str) -> list[Piece]:
    """Where a hypothesis differs from its reference, by the least number of edited words."""
    words, heard = reference.split(), hypothesis.split()
    if not words or not heard:
        return [(kind, " ".join(some)) for kind, some in (("deleted", words), ("inserted", heard)) if some]
    pieces: list[Piece] = []
    for chunk in jiwer.process_words(" ".join(words), " ".join(heard)).alignments[0]:
        old = " ".join(words[chunk.ref_start_idx : chunk.ref_end_idx])
        new = " ".join(heard[chunk.hyp_start_idx : chunk.hyp_end_idx])
        pieces += [("same", old)] if chunk.type == "equal" else [("deleted", old), ("inserted", new)]
    kept = groupby([piece for piece in pieces if piece[1]], key=lambda piece: piece[0])
    return [(kind, " ".join(text for _, text in some)) for kind, some in kept]


def _kept(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[:LONGEST]} ..."


def _runs(study: Study) -> pd.DataFrame:
    """The baseline and trials of the front that bring samples, evenly thinned out, largest first."""
    heard = set(study.samples.run)
    finished = study.finished[study.finished.run.isin(heard)]
    trials = finished[~finished.is_baseline]
    best = trials[trials.run.isin(front(study.settings).run)]
    chosen = (best if len(best) else trials).sort_values("size_bytes", ascending=False, kind="stable")
    places = np.linspace(0, len(chosen) - 1, min(RUNS, len(chosen))).round().astype(int)
    return pd.concat([finished[finished.is_baseline], chosen.iloc[places]])[["run", "policy", "title", "label"]]


def _line(one: pd.Series) -> Line:
    title = one.title if one.policy == "float" else f"{one.title} {one.label}"
    return Line(one.run, title, differences(one.reference, one.hypothesis))
