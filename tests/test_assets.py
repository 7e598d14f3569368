"""What a run reads: a corpus that is made on first use."""

from pathlib import Path

import pytest

from qstudy.training.assets import make_corpus
from qstudy.training.config import config_from_dict


def test_a_corpus_is_made_once_and_says_nothing_of_what_to_do_next(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make = {"corpus": "commands", "out": str(tmp_path), "train": 4, "dev": 2, "test": 2, "processes": 1}
    data = {"train": str(tmp_path / "train.jsonl"), "dev": str(tmp_path / "dev.jsonl"), "make": make}
    config = config_from_dict({"data": data})
    make_corpus(config)
    said = capsys.readouterr().out
    assert f"The manifests are in {tmp_path}." in said
    assert "Next:" not in said
    assert len((tmp_path / "train.jsonl").read_text().splitlines()) == 4
    make_corpus(config)
    assert capsys.readouterr().out == ""
