"""Whether evaluation alone ranks allocations as fine-tunes of their own do."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from benchmarks.search.curves import trained_parameters
from benchmarks.search.studies import SCREENING, Entry
from qstudy.sweep.config import Screening
from qstudy.sweep.screening.allocations import Allocations
from qstudy.sweep.screening.screen import FOLDER, judge_of

COMPARED = 20


def rank_correlation(screened: Entry, plain: Sequence[Entry], folder: Path) -> dict[str, Any]:
    """Spearman's rank correlation of dev WERs: fine-tunes of plain studies against evaluation of one model; JSON-able.

    Args:
        screened: the study whose switchable model is asked.
        plain: the studies whose trials have a fine-tune each, of the same seed.
        folder: for the scores of the rounded model.
    """
    allocations = Allocations(screened.config)
    trained = {allocations.member(p): wer for each in plain for p, (wer, _) in trained_parameters(each)}
    members = list(trained)[:COMPARED]
    ways = {
        "switchable": (Screening(by="switchable", steps=SCREENING.steps, utterances=None), screened.folder / FOLDER),
    }
    if screened.seed == 0:  # it hardly depends on the seed
        ways["rounding"] = Screening(by="rounding", utterances=None), folder / "rounding"
    wers = {"fine-tuned": [trained[member] for member in members]}
    for way, (settings, place) in ways.items():
        judge = judge_of(screened.config, settings, allocations, place)
        wers[way] = [judge.score(allocations.named(m), allocations.bit_map(m)).wer for m in members]
    sizes = [allocations.costs(member)["size_bytes"] for member in members]
    found = {way: _spearman(wers["fine-tuned"], wers[way]) for way in ways}
    found["fewer bytes"] = -_spearman(wers["fine-tuned"], sizes)
    names = [allocations.named(member) for member in members]
    return {"seed": screened.seed, "correlation": found, "allocations": names, "wer": wers}


def _spearman(one: Sequence[float], other: Sequence[float]) -> float:
    return float(pd.Series(one).rank().corr(pd.Series(other).rank()))
