"""`qstudy cache`: lists what is there, finds damage, removes what is unused and never what is in use."""

import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from qstudy.cli import main
from qstudy.commands.cache import cache
from qstudy.data.columns import Table, write_table
from qstudy.data.feature_set import FeatureSet
from qstudy.data.features import FeatureSettings
from qstudy.data.tokenizer import CharTokenizer
from qstudy.errors import UserError
from qstudy.locks import locked
from qstudy.training.cache import entries
from qstudy.training.record import Record, write_record

DAY = 86400
KEY = "abcdef0123456789"
"""Of a float baseline."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A cache with the features of two manifests and one float baseline."""
    soundfile.write(tmp_path / "a.wav", np.random.default_rng(0).standard_normal(16000) * 0.1, 16000)
    for name, count in (("train", 3), ("dev", 1)):
        line = json.dumps({"audio_filepath": "a.wav", "duration": 1, "text": "one"})
        (tmp_path / f"{name}.jsonl").write_text(f"{line}\n" * count)
        opened(tmp_path, name)
    record = Record(
        run="float-abc",
        state="complete",
        policy="float",
        size_bytes=8,
        config={"data": {"train": "corpora/digits.jsonl"}, "model": {"encoder": {"name": "lstm"}}},
        layers={"encoder": {"parameters": 1_500_000}, "joiner": {"parameters": 500_000}},
        metrics={"dev": {"wer": 0.2}, "test": {"wer": 0.1234}},
    )
    write_record(tmp_path / "cache" / "baselines" / KEY, record)
    return tmp_path / "cache"


def opened(root: Path, name: str) -> FeatureSet:
    return FeatureSet.open(root / f"{name}.jsonl", FeatureSettings(), CharTokenizer(), root / "cache" / "features")


def listed(folder: Path, capsys: pytest.CaptureFixture[str], **options: Any) -> dict[str, Any]:
    capsys.readouterr()
    cache(folder, json=True, **options)
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def store(folder: Path, name: str) -> Path:
    (found,) = (entry.folder for entry in entries(folder) if entry.about.get("manifest", "").endswith(f"{name}.jsonl"))
    return found


def age(path: Path, days: float) -> None:
    """Make a folder and all that is in and beside it as old as that."""
    for each in (path, *path.rglob("*"), *path.parent.glob(f"*{path.name}*")):
        os.utime(each, (time.time() - days * DAY,) * 2)


def test_lists_what_is_there(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = {Path(entry.get("manifest", "?")).name: entry for entry in listed(folder, capsys)["entries"][:2]}
    assert found["train.jsonl"]["utterances"] == 3
    assert found["train.jsonl"]["hours"] == pytest.approx(3 * 1.3 / 3600, rel=0.02)
    assert found["dev.jsonl"]["state"] == "whole"
    assert found["dev.jsonl"]["size_bytes"] == sum(
        p.stat().st_size for p in Path(found["dev.jsonl"]["folder"]).iterdir()
    )
    baseline = listed(folder, capsys)["entries"][2]
    assert baseline["model"] == "lstm, 2.00 M parameters"
    assert baseline["wer"] == 0.1234
    main(["cache", "--cache", str(folder)])
    text = capsys.readouterr().out
    assert all(part in text for part in ("2.00", "12.34", KEY[:4], "holds"))
    assert len(text.splitlines()[2]) <= 80


def test_opening_is_use(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train = store(folder, "train")
    age(train, 50)
    features = opened(folder.parent, "train")
    (entry,) = (entry for entry in entries(folder) if entry.folder == train)
    assert time.time() - entry.last_used < DAY
    assert entry.state == "in use"
    del features
    (entry,) = (entry for entry in entries(folder) if entry.folder == train)
    assert entry.state == "whole"


def test_prunes_what_is_unused_and_nothing_else(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train, dev = store(folder, "train"), store(folder, "dev")
    age(train, 31)
    age(dev, 29)
    size = next(entry.size_bytes for entry in entries(folder) if entry.folder == train)
    result = listed(folder, capsys, prune=True)
    assert result["freed_bytes"] == size
    assert str(train) in [item["path"] for item in result["removed"]]
    assert len(result["entries"]) == 2
    assert not list(folder.rglob(f"*{train.name}*"))  # nor its lock
    assert dev.is_dir()
    age(folder / "baselines" / KEY, 8)
    cache(folder, prune=True, days=7)
    out = capsys.readouterr().out
    assert f"Removed {dev}" in out
    assert f"Removed {folder / 'baselines' / 'abc'}" in out
    assert not entries(folder)
    assert len(opened(folder.parent, "dev")) == 1  # built again


def test_never_what_is_in_use(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train = store(folder, "train")
    features = opened(folder.parent, "train")
    baseline = folder / "baselines" / KEY
    with locked(baseline.with_name(f"{KEY}.lock")):  # somebody trains it
        for path in (train, store(folder, "dev"), baseline):
            age(path, 100)
        result = listed(folder, capsys, prune=True)
    assert sorted(entry["folder"] for entry in result["entries"]) == sorted([str(train), str(baseline)])
    assert len(features.frames(0)) == features.lengths[0]


def test_leftovers_of_killed_processes_go(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train, features = store(folder, "train"), folder / "features"
    (features / ".0123012301230123.tmp").mkdir()  # of an earlier version
    (features / ".0123012301230123.tmp" / "features.i16").write_bytes(bytes(100))
    (features / "4567456745674567.lock").touch()
    (train / ".labels-1.safetensors.99999.tmp").write_bytes(bytes(1000))
    (features / f".{train.name}.partial").mkdir()  # killed just after its store got its name
    (features / ".89ab89ab89ab89ab.partial").mkdir()  # of today: somebody may go on with it
    result = listed(folder, capsys, prune=True)
    assert result["freed_bytes"] == 1100
    assert not list(folder.rglob("*.tmp"))
    assert not (features / "4567456745674567.lock").exists()
    assert not (features / f".{train.name}.partial").exists()
    states = {Path(entry["folder"]).name: entry["state"] for entry in result["entries"]}
    assert states.pop("89ab89ab89ab89ab") == "unfinished"
    assert set(states.values()) == {"whole"}
    sizes = {entry["folder"]: entry["size_bytes"] for entry in result["entries"]}
    assert sizes == {str(entry.folder): entry.size_bytes for entry in entries(folder)}


def test_earlier_versions_are_listed_and_pruned_by_age(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old = folder / "features" / "00ff00ff00ff00ff"
    old.mkdir()
    (old / "index.json").write_text("{}")
    assert "earlier version" in [entry["state"] for entry in listed(folder, capsys, verify=True)["entries"]]
    age(old, 40)
    assert listed(folder, capsys, prune=True)["removed"][0]["path"] == str(old)


def test_damage_is_found_and_removed(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cache(folder, verify=True)
    train = store(folder, "train")
    content = bytearray((train / "features.i16").read_bytes())
    content[50] ^= 4
    (train / "features.i16").write_bytes(content)
    with pytest.raises(UserError, match=f"Damaged: {train}; remove it with `qstudy cache --verify --prune`"):
        cache(folder, verify=True)
    assert str(train) in [item["path"] for item in listed(folder, capsys, verify=True, prune=True)["removed"]]
    cache(folder, verify=True)


def test_what_is_no_cache_is_left_alone(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [folder / "features" / name for name in ("thesis/one.tex", ".git/HEAD", ".DS_Store", f"{KEY}.zip")]
    for path in files:
        path.parent.mkdir(exist_ok=True)
        path.touch()
        age(path.parent, 100)
    result = listed(folder, capsys, prune=True, verify=True, days=1)
    assert all(path.exists() for path in files)
    assert not [item for item in (*result["entries"], *result["removed"]) if str(item).count("thesis")]


def test_what_is_damaged_goes_where_it_was_verified(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train = store(folder, "train")
    (train / "index.safetensors").write_bytes(b"torn")
    with pytest.raises(UserError, match=f"Damaged: {train}"):
        cache(folder, prune=True)
    assert train.is_dir()
    assert str(train) in [item["path"] for item in listed(folder, capsys, verify=True, prune=True)["removed"]]
    assert not train.exists()


def test_nothing_is_cached(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert listed(tmp_path / "cache", capsys, prune=True, verify=True)["entries"] == []
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize(
    "about", [{}, {"manifest": "a", "utterances": None, "seconds": 1}, {"seconds": "long"}], ids=str
)
def test_a_description_that_makes_no_sense(folder: Path, about: dict[str, Any]) -> None:
    file = store(folder, "train") / "index.safetensors"
    write_table(file, Table(file).columns, about)
    assert sorted(entry.state for entry in entries(folder) if entry.kind == "features") == ["damaged", "whole"]
    with pytest.raises(UserError, match="Damaged"):
        cache(folder)
