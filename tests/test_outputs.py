"""What a command writes never replaces what it reads, nor what somebody else wrote."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from tiny import filled, packed, talkative

from qstudy.cli import main

Link = Callable[[Path, Path], object]


def same(path: Path, other: Path) -> Path:
    return path


def dotted(path: Path, other: Path) -> Path:
    return path.parent / ".." / path.parent.name / path.name


def soft(path: Path, other: Path) -> Path:
    other.symlink_to(path)
    return other


def hard(path: Path, other: Path) -> Path:
    other.hardlink_to(path)
    return other


def refusal(arguments: list[str], capfd: pytest.CaptureFixture[str]) -> str:
    """The one sentence that a command gives up with."""
    capfd.readouterr()
    with pytest.raises(SystemExit) as exit:
        main(arguments)
    out, err = capfd.readouterr()
    assert exit.value.code == 2, err
    assert err.count("\n") == 1, err
    assert out == ""
    return err


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A packed model of random weights."""
    path, network = tmp_path_factory.mktemp("made") / "model.qst", talkative()
    packed(network, filled(network, {"name": "ptq", "layers": {"*": {"weight": 4}}})).save(path)
    return path.read_bytes()


@pytest.fixture
def model(made: bytes, tmp_path: Path) -> Path:
    """Its file."""
    (tmp_path / "model.qst").write_bytes(made)
    return tmp_path / "model.qst"


EVALUATED = tuple(f"evaluate {what}" for what in ("model", "manifest", "sound", "config", "fusion", "lm", "source_lm"))
"""What `qstudy evaluate` reads."""


@pytest.mark.parametrize(
    ("command", "link"),
    [
        *(("export", link) for link in (same, dotted, soft, hard)),
        *((command, same) for command in (*EVALUATED, "simulate")),
    ],
    ids=lambda value: value if isinstance(value, str) else value.__name__,
)
def test_no_output_replaces_an_input(
    command: str, link: Link, model: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    sound, manifest, plot, config = (tmp_path / name for name in ("a.flac", "m.jsonl", "sizes.svg", "search.yaml"))
    line = {"audio_filepath": "a.flac", "duration": 1.0, "text": "one"}
    manifest.write_text(f"not JSON\n{json.dumps(line)}\n")
    sound.write_bytes(b"sound")
    config.write_text("decode: beam")
    plot.write_bytes(b"a model with an odd name")
    fusion, lm, source_lm = (tmp_path / name for name in ("fusion.json", "lm.arpa", "source.arpa"))
    factors = {"lm_weight": 1, "source_weight": 1}
    fusion.write_text(json.dumps({"lm": lm.name, "source_lm": source_lm.name, **factors}))
    lm.write_bytes(b"texts to come")
    source_lm.write_bytes(b"texts that were")
    read = dict(zip(EVALUATED, (model, manifest, sound, config, fusion, lm, source_lm), strict=True))
    path = {"export": model, **read}.get(command, plot)
    out = str(link(path, tmp_path / "link.svg"))
    before = path.read_bytes()
    evaluate = ["evaluate", str(model), "--manifest", str(manifest), "--cache", str(tmp_path), "--hypotheses", out]
    evaluate += ["--config", str(config), "--fusion", str(fusion)]
    arguments = {"export": ["export", str(path), "--out", out], "simulate": ["simulate", str(plot), "--plot", out]}
    said = refusal(arguments.get(command, evaluate), capfd)
    assert "is also an input" in said
    assert str(path) in said
    assert path.read_bytes() == before


def test_a_folder_is_no_file(corpus: Path, tmp_path: Path, model: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "folder").mkdir()
    hypotheses = ["--hypotheses", str(tmp_path / "folder"), "--cache", str(tmp_path)]
    evaluate = ["evaluate", str(model), "--manifest", str(corpus / "test.jsonl")]
    for words in (hypotheses, [*hypotheses[2:], "--hypotheses", "."]):
        assert "already exists and is not a regular file; choose another name" in refusal([*evaluate, *words], capfd)
    assert not list((tmp_path / "folder").iterdir())
    assert not (tmp_path / "features").exists()  # nothing was decoded


def test_scores_are_told_even_where_hypotheses_cannot_be_written(
    corpus: Path, tmp_path: Path, model: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    name = "n" * 245 + ".jsonl"  # of a length that file systems take, and its temporary name's not
    place = ["--hypotheses", str(tmp_path / name), "--cache", str(tmp_path / "cache")]
    with pytest.raises(SystemExit) as exit:
        main(["evaluate", str(model), "--manifest", str(corpus / "test.jsonl"), *place])
    out, err = capfd.readouterr()
    assert exit.value.code == 2
    assert "Cannot write" in err
    assert out.startswith("WER ")


def test_a_run_is_not_trained_over_the_model_that_it_starts_from(
    corpus: Path, tmp_path: Path, model: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    data = ["--data.train", str(corpus / "train.jsonl"), "--data.dev", str(corpus / "dev.jsonl")]
    said = refusal(["train", *data, "--start", str(model), "--out", str(tmp_path)], capfd)
    assert "is also an input" in said


@pytest.mark.parametrize(
    "command", [["train", "--data.train", "a", "--data.dev", "b", "--name"], ["worker", "--study"]]
)
@pytest.mark.parametrize("name", ["../x", "/x", "..", "a/b"])
def test_names_stay_in_their_folder(
    command: list[str], name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert "cannot name a file" in refusal([*command, name], capfd)
    assert [path.name for path in tmp_path.rglob("*")] == ["here"]


def test_a_study_is_not_replaced_by_its_resolved_copy(
    corpus: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    data = {"train": str(corpus / "train.jsonl"), "dev": str(corpus / "dev.jsonl")}
    policy = {"name": "ptq", "layers": {"*": {"weight": 8}}}
    values = {"study": "toy", "base": {"data": data}, "grid": {"policy": policy}}
    path = tmp_path / "toy" / "study.yaml"
    path.parent.mkdir()
    path.write_text(yaml.safe_dump(values))
    assert "is also an input" in refusal(["sweep", str(path), "--root", str(tmp_path)], capfd)
    assert yaml.safe_load(path.read_text()) == values
