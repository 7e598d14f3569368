"""Sample transcripts of the most telling runs, sentence by sentence."""

from dataclasses import dataclass

from analysis.bits import label
from analysis.differences import Piece, word_differences
from analysis.pareto import size_front
from analysis.records import Run
from analysis.study import Study

SENTENCES = 8
RUNS = 8


@dataclass(frozen=True)
class Line:
    """What one run heard."""

    name: str
    title: str
    """Policy and widths."""
    pieces: list[Piece]

    @property
    def correct(self) -> bool:
        """Whether not a word differs."""
        return all(piece.kind == "same" for piece in self.pieces)


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
    runs = _runs(study)
    references = list(dict.fromkeys(reference for run in runs for reference, _ in run.samples))
    found = [Sentence(reference, _lines(reference, runs)) for reference in references]
    telling = sorted(found, key=lambda sentence: -len(sentence.wrong))[:SENTENCES]
    return [sentence for sentence in found if sentence in telling]


def _runs(study: Study) -> list[Run]:
    """The baseline and trials of the front that bring samples, evenly thinned out, largest first."""
    front = [run for run in size_front(study) if run.samples][::-1] or [run for run in study.trials if run.samples]
    if len(front) > RUNS:
        front = [front[round(index * (len(front) - 1) / (RUNS - 1))] for index in range(RUNS)]
    return [run for run in study.finished if run.is_baseline and run.samples] + front


def _lines(reference: str, runs: list[Run]) -> list[Line]:
    return [
        Line(
            run.name,
            run.title if run.policy == "float" else f"{run.title} {label(run)}",
            word_differences(reference, hypothesis),
        )
        for run in runs
        for original, hypothesis in run.samples
        if original == reference
    ]
