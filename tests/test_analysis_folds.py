"""A recipe trained once for every speaker who is left out."""

from pathlib import Path
from typing import Any

import pytest
from analysis_study import study

from analysis.folds import folds
from analysis.joint import tasks
from analysis.study import Study

RATES = {"anna": (0.04, 0.01), "bert": (0.08, 0.03)}


def record(who: str) -> dict[str, Any]:
    sets = dict(zip(("test", "heard"), RATES[who], strict=True))
    scores = {
        name: {"wer": rate, "wer_low": rate / 2, "wer_high": 2 * rate, "words": 100, "utterances": 20}
        for name, rate in sets.items()
    }
    make = {"corpus": "digits", "out": f"corpora/without-{who}", "unheard": [who]}
    return {
        "schema": 2,
        "run": f"without-{who}",
        "study": None,
        "state": "complete",
        "policy": "float",
        "size_bytes": 1_000_000,
        "config": {"policy": {"name": "float"}, "data": {"make": make}},
        "metrics": scores,
    }


def of(folder: Path, *names: str) -> Study:
    return study(folder, [record(name) for name in names])


def test_folds_may_be_trials(tmp_path: Path) -> None:
    start = record("anna") | {"run": "float", "config": {}}
    trials = [record(name) | {"baseline": {"id": "float"}} for name in RATES]
    table = folds(study(tmp_path, [start, *trials]))
    assert table is not None
    assert table.frame.fold.tolist() == ["anna", "bert", "mean"]


def test_every_fold_has_a_row_and_their_mean_another(tmp_path: Path) -> None:
    table = folds(of(tmp_path, "bert", "anna"))
    assert table is not None
    assert table.frame.fold.tolist() == ["anna", "bert", "mean"]
    assert table.frame["wer.test"].tolist() == pytest.approx([0.04, 0.08, 0.06])
    assert table.frame["wer.heard"].tolist() == pytest.approx([0.01, 0.03, 0.02])
    shown = [f"{cell.text} {cell.small}" for cell in table.cells[2]]
    assert shown[3:] == ["6.00 ± 2.83", "2.00 ± 1.41"]
    assert [cell.bold for row in table.cells for cell in row[:1]] == [False, False, True]
    assert table.cells[0][3].small == "[2.00, 8.00]"
    assert table.columns[0].header == "Unheard"


def test_their_corpora_are_no_common_task(tmp_path: Path) -> None:
    assert tasks([of(tmp_path / "several", "anna", "bert")]) == []
    assert len(tasks([of(tmp_path / "one", "anna")])) == 1


def test_of_one_corpus_there_is_nothing_to_show(tmp_path: Path) -> None:
    assert folds(of(tmp_path, "anna")) is None
