"""What a run reads: a corpus that is made on first use."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tiny import run_config

from qstudy.data.manifest import read_manifest, write_manifest
from qstudy.errors import UserError
from qstudy.training.assets import make_corpus, open_assets
from qstudy.training.config import config_from_dict
from qstudy.training.run import run


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
        ({"corpus": "pathlib.Path"}, "is not a function with the parameter `out`"),
        ({"corpus": "shutil.move"}, "is not a function with the parameter `out`"),
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


def test_a_dev_set_that_is_not_there_shows_before_the_training_features_are_made(corpus: Path, tmp_path: Path) -> None:
    data = {"train": str(corpus / "train.jsonl"), "dev": "gone.jsonl"}
    with pytest.raises(UserError, match=r"gone\.jsonl"):
        open_assets(run_config(corpus, tmp_path, data=data))
    assert not (tmp_path / "cache").exists()


def test_speakers_and_groups_are_in_the_record_and_in_its_intervals(corpus: Path, tmp_path: Path) -> None:
    """Three sets of the same six utterances: without speakers, by two of them, and with groups in the manifest."""
    lines = [replace(item, speaker=None) for item in read_manifest(corpus / "test.jsonl")]
    speakers = [replace(item, speaker="ab"[number % 2]) for number, item in enumerate(lines)]
    groups = [replace(item, group=f"room {number // 2}") for number, item in enumerate(speakers)]
    sets = {"nobody": lines, "speakers": speakers, "groups": groups}
    for name, items in sets.items():
        write_manifest(tmp_path / f"{name}.jsonl", items)
    test = {name: str(tmp_path / f"{name}.jsonl") for name in sets}
    data = {"train": str(corpus / "train.jsonl"), "dev": str(corpus / "dev.jsonl"), "test": test}
    config = run_config(corpus, tmp_path, data=data, training={"steps": 2, "batch_size": 4, "precision": "32-true"})
    record = run(config, tmp_path / "run", name="made")
    told = {name: edits.get("groups") for name, edits in (record.utterances or {}).items() if name != "dev"}
    assert told == {"nobody": None, "speakers": "0 1 0 1 0 1", "groups": "0 0 1 1 2 2"}
    assert record.metrics is not None
    ends = {name: (record.metrics[name]["wer_low"], record.metrics[name]["wer_high"]) for name in sets}
    assert len(set(ends.values())) == 3 or all(low == high for low, high in ends.values())
    assert len({record.metrics[name]["wer"] for name in sets}) == 1
