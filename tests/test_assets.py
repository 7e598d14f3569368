"""What a run reads: a corpus that is made on first use."""

from pathlib import Path
from typing import Any

import pytest

from qstudy.errors import UserError
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


@pytest.mark.parametrize("change", [{"train": 5}, {"seed": 1}, {"noisy": 0.5}])
def test_a_corpus_of_another_recipe_is_refused(corpus: Path, change: dict[str, float]) -> None:
    make = {"corpus": "commands", "out": str(corpus), "train": 24, "dev": 6, "test": 6}
    data = {"train": str(corpus / "train.jsonl"), "dev": str(corpus / "dev.jsonl")}
    make_corpus(config_from_dict({"data": {**data, "make": make}}))
    make_corpus(config_from_dict({"data": {**data, "make": {**make, "processes": 7}}}))
    (name,) = change
    with pytest.raises(UserError, match=rf"data\.make: {corpus} holds a corpus of another recipe \({name} "):
        make_corpus(config_from_dict({"data": {**data, "make": {**make, **change}}}))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"train": 10**12}, "--train"),
        ({"test": 0}, "--test"),
        ({"processes": 10**9}, "--processes"),
        ({"seed": -1}, "--seed"),
        ({"seed": 10**30}, "--seed"),
        ({"train": "many"}, "train"),
        ({"noisy": "x"}, "noisy"),
        ({"noisy": float("nan")}, "noisy"),
        ({"noisy": 1.5}, "--noisy"),
        ({"colour": 1}, "colour"),
        ({"corpus": ["commands"]}, "data.make.corpus"),
        ({"corpus": "songs"}, "data.make.corpus: 'songs' is not known; give one of commands, "),
        ({"corpus": "os.path"}, "'os.path' cannot be imported"),
        ({"corpus": "pathlib.Path"}, "is no function with the parameter `out`"),
        ({"corpus": "shutil.move"}, "is no function with the parameter `out`"),
    ],
    ids=str,
)
def test_nonsense_recipes(tmp_path: Path, change: dict[str, Any], named: str) -> None:
    make = {"corpus": "commands", "out": str(tmp_path), "train": 4, "dev": 2, "test": 2, **change}
    with pytest.raises(UserError, match=named):
        make_corpus(config_from_dict({"data": {"train": str(tmp_path / "train.jsonl"), "dev": "dev", "make": make}}))


def test_a_corpus_whose_making_was_stopped_at_its_end_is_made_again(tmp_path: Path) -> None:
    make = {"corpus": "commands", "out": str(tmp_path), "train": 4, "dev": 2, "test": 2, "processes": 1}
    data = {"train": str(tmp_path / "train.jsonl"), "dev": str(tmp_path / "dev.jsonl"), "make": make}
    config = config_from_dict({"data": data})
    (tmp_path / "corpus.json").write_text("{}")
    (tmp_path / "train.jsonl").write_text("{}")
    make_corpus(config)
    assert len((tmp_path / "train.jsonl").read_text().splitlines()) == 4
