"""Sample transcripts of the most telling runs, sentence by sentence."""

from itertools import groupby
from typing import NamedTuple

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


class Line(NamedTuple):
    """What one run heard."""

    run: str
    title: str
    """Policy and widths."""
    pieces: list[Piece]


class Sentence(NamedTuple):
    """One reference with the runs that heard another, largest model first, and the titles of those that heard it."""

    reference: str
    wrong: list[Line]
    right: list[str]


def sentences(study: Study) -> list[Sentence]:
    """Up to 8 sentences: those that the runs disagree on first, each in the order of the records."""
    spoken = study.samples.assign(**study.samples[["reference", "hypothesis"]].map(_kept))
    heard = _runs(study).merge(spoken[["run", "reference", "hypothesis"]], on="run")
    found = [_sentence(str(reference), lines) for reference, lines in heard.groupby("reference", sort=False)]
    telling = sorted(range(len(found)), key=lambda place: -len(found[place].wrong))[:SENTENCES]
    return [found[place] for place in sorted(telling)]


def _sentence(reference: str, heard: pd.DataFrame) -> Sentence:
    lines = [Line(one.run, one.title, differences(reference, one.hypothesis)) for one in heard.itertuples()]
    wrong = [line for line in lines if any(kind != "same" for kind, _ in line.pieces)]
    return Sentence(reference, wrong, [line.title for line in lines if line not in wrong])


def differences(reference: str, hypothesis: str) -> list[Piece]:
    """Where a hypothesis differs from its reference, by the least number of edited words."""
    words, heard = reference.split(), hypothesis.split()
    if not words or not heard:
        return [(kind, " ".join(some)) for kind, some in (("deleted", words), ("inserted", heard)) if some]
    pieces: list[Piece] = []
    for chunk in jiwer.process_words(" ".join(words), " ".join(heard)).alignments[0]:
        same = chunk.type == "equal"
        pieces += [("same" if same else "deleted", word) for word in words[chunk.ref_start_idx : chunk.ref_end_idx]]
        pieces += [("inserted", word) for word in heard[chunk.hyp_start_idx : chunk.hyp_end_idx] if not same]
    return [(kind, " ".join(text for _, text in some)) for kind, some in groupby(pieces, key=lambda piece: piece[0])]


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
    shown = pd.concat([finished[finished.is_baseline], chosen.iloc[places]])
    return shown[["run"]].assign(title=shown.title.where(shown.policy == "float", shown.title + " " + shown.label))
