"""The command line: what goes wrong is one sentence on stderr and exit code 2; what goes right is what was promised."""

import dataclasses
import json
import os
import re
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO, TextIOWrapper
from pathlib import Path
from typing import Any

import jiwer
import pytest
import yaml
from tiny import filled, packed, run_config, talkative

from qstudy.cli import COMMANDS, all_options, main
from qstudy.commands.train import train
from qstudy.errors import UNREAD
from qstudy.quant.policies import MAPS, POLICIES
from qstudy.training.config import RunConfig, to_dict

ROOT = Path(__file__).parents[1]
MODEL = ROOT / "sweeps" / "base" / "commands.qst"
SECTIONS: dict[str, Any] = {f.name: f.type for f in dataclasses.fields(RunConfig) if dataclasses.is_dataclass(f.type)}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A packed model of random weights."""
    path = tmp_path_factory.mktemp("model") / "model.qst"
    network = talkative()
    packed(network, filled(network, {"name": "ptq", "layers": {"*": {"weight": 4}}})).save(path)
    return path


@pytest.fixture
def config(corpus: Path, shared_folder: Path, tmp_path: Path) -> Path:
    """The YAML file of a tiny run."""
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(to_dict(run_config(corpus, shared_folder))))
    return path


def complaint(arguments: list[str], capfd: pytest.CaptureFixture[str], lines: int = 1) -> str:
    """What a command says on stderr, in so many lines of which the first is a sentence, before it exits with code 2."""
    capfd.readouterr()
    with pytest.raises(SystemExit) as exit:
        main(arguments)
    out, err = capfd.readouterr()
    assert exit.value.code == 2, err
    assert err.count("\n") == lines, err
    assert err.startswith("qstudy: ")
    assert "Traceback" not in err
    assert out == ""
    return err


Damage = Callable[[Path], object]


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def text(path: Path) -> None:
    path.write_text("Not what you think it is.\n" * 20)


# Bad input


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["trian"], ["'trian' is not a command (did you mean 'train'?)", "evaluate", "sweep"]),
        (["evaluate", "--colour"], ["colour"]),
        (["evaluate", "--json"], ["model and --manifest are required"]),
        (["data", "commands", "--out", "x", "--trian", "3"], ["--trian is no option", "(did you mean '--train'?)"]),
        (["data", "commands", "--out", "x", "--train", "few"], ["--train: 'few' must be a whole number."]),
        (["data", "commands", "--out", "x", "--domain", "sea"], ["--domain: 'sea' must be one of all, home, world."]),
        (["sweep", "x.yaml", "--workers", "two"], ["--workers: 'two' must be a whole number."]),
        (
            ["simulate", str(MODEL), "--compare", "edge_nnna"],
            ["--compare: 'edge_nnna' is no accelerator (cortex_a76, "],
        ),
        (
            ["tune-fusion", str(MODEL), "--manifest", "x", "--lm", "y", "--out", "."],
            ["Cannot write .: it already exists"],
        ),
        (["evaluate", str(MODEL), "--manifest", "/dev/null"], ["/dev/null is not a file."]),
        (["beams", "m.qst", "--beams", "4"], ["--beams: '4' must be a list: [4]"]),
        (["sweep", "x.yaml", "--known", "reports/x"], ["--known: 'reports/x' must be a list: [reports/x]"]),
        (["simulate", "m.qst", "n.qst"], ["'n.qst' is one argument too many"]),
        (["transcribe", "nothing.qst", "a.wav", "--colour", "red"], ["colour"]),
        (["transcribe"], ["model"]),
        (["transcribe", "nothing.qst", "a.wav"], ["nothing.qst"]),
        (["transcribe", "nothing.ckpt", "a.wav"], ["nothing.ckpt"]),
        (["export", "nothing.ckpt", "--out", "x.qst"], ["nothing.ckpt"]),
        (["export", "nothing.ckpt"], ["out"]),
        (["evaluate", "nothing.qst", "--manifest", "m.jsonl", "--decode", "beams"], ["decode"]),
        (["train"], ["data.train"]),
        (["train", "--config", "nothing.yaml"], ["nothing.yaml"]),
    ],
    ids=" ".join,
)
def test_bad_arguments(arguments: list[str], named: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    said = complaint(arguments, capfd)
    assert all(word in said for word in named), said


@pytest.mark.parametrize(
    ("option", "named"),
    [
        ("--training.step=5", ["training.step: there is no such field (did you mean 'steps'?)"]),
        ("--training.steps=many", ["training.steps", "many"]),
        ("--training.steps=0", ["training.steps", "0"]),
        ("--features.bins=1", ["bins"]),
        ("--augment.noise=2", ["noise"]),
        ("--seed=x", ["seed"]),
        ('--policy={"name": "qat"}', ["policy", "'qat'", "fake_qat"]),
        ('--policy={"name": "ptq", "bits": 3, "layers": {}}', ["policy", "bits"]),
        (
            '--policy={"name": "ptq", "layers": {"*": {"weight": 9}}}',
            ["layers: '*': weight: 9 bits is not one of 2, 3"],
        ),
        ('--policy={"name": "ptq", "layers": {"*": {"wieght": 4}}}', ["'wieght' (did you mean 'weight'?)"]),
        ('--policy={"name": "float", "bits": 4}', ["policy: 'float': it has no option 'bits'; it takes none."]),
        ('--policy={"name": "fake_qta", "layers": {}}', ["'fake_qta' is not known (did you mean 'fake_qat'?)"]),
        ("--accelerator=edge_nna", ["accelerator: 'edge_nna' should be a list: [edge_nna]"]),
        ('--policy={"name": "ptq", "layers": {"encoder.gru": {"weight": 4}}}', ["encoder.gru", "encoder.lstm.0"]),
        ('--model.encoder={"name": "lstm", "size": 4}', ["model.encoder", "size", "hidden"]),
        ('--tokenizer={"name": "words"}', ["tokenizer", "words", "characters"]),
        ('--accelerator=["abacus"]', ["abacus", "edge_nna"]),
        ("--data.train=nothing.jsonl", ["nothing.jsonl"]),
        ('--data={"train": "nothing.jsonl", "dev": "x", "make": {"corpus": "songs"}}', ["data.make.corpus", "songs"]),
    ],
)
def test_bad_configurations(
    config: Path, tmp_path: Path, option: str, named: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    said = complaint(["train", "--config", str(config), "--out", str(tmp_path / "run"), option], capfd)
    assert all(word in said for word in named), said


@pytest.mark.parametrize(
    "words",
    [["simulate", "m\udcff.qst"], ["worker", "--root=m\udcff.qst"], ["train", "--config", "m\udcff.qst"]],
    ids=ascii,
)
def test_a_name_that_is_not_utf_8(words: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    assert "m\\udcff.qst is not UTF-8 text; rename that file or folder." in complaint(words, capfd)


def test_a_working_folder_whose_name_is_not_utf_8(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "m\udcff").mkdir()
    monkeypatch.chdir(tmp_path / "m\udcff")
    assert "m\\udcff is not UTF-8 text; rename that file or folder." in complaint(["presets"], capfd)


@pytest.mark.parametrize("content", ["data: [", "- a\n- b\n", "data: 3\n", "sead: 1\n"], ids=repr)
def test_broken_yaml(tmp_path: Path, content: str, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "run.yaml").write_text(content)
    complaint(["train", "--config", str(tmp_path / "run.yaml")], capfd)


@pytest.mark.parametrize("suffix", [".qst", ".ckpt"])
@pytest.mark.parametrize("damage", [truncated, text], ids=lambda damage: damage.__name__)
def test_broken_models(
    model: Path, tmp_path: Path, suffix: str, damage: Damage, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / f"broken{suffix}"
    path.write_bytes(model.read_bytes())
    damage(path)
    assert str(path) in complaint(["transcribe", str(path), "a.wav"], capfd)


def test_names_that_standard_output_lacks_letters_for(
    model: Path, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sounds = [tmp_path / "café.flac", tmp_path / "two.flac"]
    for sound in sounds:
        sound.write_bytes(next(iter(sorted((corpus / "test").glob("*.flac")))).read_bytes())
    printed = BytesIO()
    monkeypatch.setattr(sys, "stdout", TextIOWrapper(printed, "ascii"))
    main(["transcribe", str(model), *map(str, sounds)])
    sys.stdout.flush()
    first, second = printed.getvalue().decode().splitlines()
    assert first.startswith(f"{tmp_path}/caf\\xe9.flac: ")
    assert second.startswith(f"{tmp_path}/two.flac: ")


@pytest.mark.parametrize("damage", [truncated, text, Path.unlink], ids=lambda damage: damage.__name__)
def test_broken_sound(
    model: Path, corpus: Path, tmp_path: Path, damage: Damage, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "broken.wav"
    path.write_bytes(next(iter(sorted((corpus / "test").glob("*.flac")))).read_bytes())
    damage(path)
    assert str(path) in complaint(["transcribe", str(model), str(path)], capfd)


@pytest.mark.parametrize(
    ("line", "named", "lines"),
    [
        ("{", "m.jsonl:1", 2),  # a sentence, and each broken line in one of its own
        ('{"audio_filepath": "gone.wav", "duration": 1, "text": "one"}', "gone.wav", 2),
        ('{"audio_filepath": "gone.wav", "duration": 1}', "text", 2),
        ("", "empty", 1),
        (None, "m.jsonl", 1),
    ],
    ids=["no JSON", "no sound", "no text", "empty", "missing"],
)
def test_broken_manifests(
    model: Path, tmp_path: Path, line: str | None, named: str, lines: int, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "m.jsonl"
    if line is not None:
        path.write_text(line + "\n")
    said = complaint(["evaluate", str(model), "--manifest", str(path), "--cache", str(tmp_path)], capfd, lines)
    assert named in said
    assert "m.jsonl" in said


@contextmanager
def full_disk(largest: int) -> Iterator[None]:
    """No file may grow beyond `largest` bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (largest, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_full_disk(config: Path, corpus: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """While a checkpoint is written, a packed model, hypotheses: a sentence, and no half file."""
    out = tmp_path / "run"
    often = ["train", "--config", str(config), "--training.checkpoint_every", "1"]
    train = [*often, "--out", str(out)]
    main([*often, "--out", str(tmp_path / "first")])  # features and compiled functions are in their caches already
    with full_disk(30_000):
        assert str(out / "last.ckpt") in complaint(train, capfd)
    assert list(out.iterdir()) == []
    main(train)
    with full_disk(2000):
        said = complaint(["export", str(out / "last.ckpt"), "--out", str(tmp_path / "x.qst")], capfd)
    assert str(tmp_path / "x.qst") in said
    assert not (tmp_path / "x.qst").exists()
    assert not list(tmp_path.glob(".*"))


def test_outputs_where_none_can_be(
    model: Path, corpus: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    out = tmp_path / "file" / "texts.jsonl"
    test = ["evaluate", str(model), "--manifest", str(corpus / "test.jsonl"), "--cache", str(tmp_path / "cache")]
    main(test)
    assert str(out) in complaint([*test, "--hypotheses", str(out)], capfd)


# Good input


def test_evaluate_agrees_with_jiwer(
    model: Path, corpus: Path, shared_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "texts.jsonl"
    test = ["evaluate", str(model), "--manifest", str(corpus / "test.jsonl"), "--cache", str(shared_folder / "cache")]
    main([*test, "--hypotheses", str(out), "--json"])
    scores = json.loads(capsys.readouterr().out)
    pairs = [json.loads(line) for line in out.read_text().splitlines()]
    references, hypotheses = [pair["reference"] for pair in pairs], [pair["hypothesis"] for pair in pairs]
    assert len(set(hypotheses)) > 3  # they are not all empty
    words = jiwer.process_words(references, hypotheses)
    assert scores["wer"] == words.wer
    assert scores["cer"] == jiwer.cer(references, hypotheses)
    assert scores["substitutions"] == words.substitutions
    assert (scores["insertions"], scores["deletions"]) == (words.insertions, words.deletions)
    assert scores["words"] == sum(len(reference.split()) for reference in references)
    assert scores["utterances"] == 6
    main(test)
    printed = capsys.readouterr().out
    assert f"WER {100 * words.wer:.2f} %" in printed
    assert f"CER {100 * scores['cer']:.2f} %" in printed


def test_train_from_the_command_line(config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    policy = '{"name": "encoder_only", "encoder": {"weight": 4}, "base": "ptq"}'
    main(["train", "--config", str(config), "--out", str(out), "--policy", policy, "--seed", "0"])
    said = capsys.readouterr().out
    record = json.loads((out / "record.json").read_text())
    assert f"{record['size_bytes']:,} bytes" in said
    assert f"WER {100 * record['metrics']['dev']['wer']:.2f} %" in said
    assert f"Next: qstudy transcribe {out / 'model.qst'}" in said
    assert record["bit_map"]["encoder.lstm.0"]["weight"] == 4
    assert record["bit_map"]["joiner.output"]["weight"] == 32


@pytest.mark.parametrize("name", COMMANDS)
def test_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit:
        main([*name.split(), "--help"])
    assert exit.value.code == 0
    said = capsys.readouterr().out
    assert said.startswith(f"usage: qstudy {name} ")
    assert said.split("\n\n")[1].rstrip().endswith((".", ":")), "a sentence to its end"
    for parameter in COMMANDS[name].positional:
        assert parameter in said


def test_every_field_of_a_configuration_has_help() -> None:
    """The prose beneath a field, and its default."""
    parser = all_options("train", train, ())
    names = {field.name for field in dataclasses.fields(RunConfig)} - SECTIONS.keys()
    names |= {f"{section}.{field.name}" for section, kind in SECTIONS.items() for field in dataclasses.fields(kind)}
    helped = {action.dest: action.help for action in parser._actions}
    for name in names:
        assert helped[name], name
    said = parser.format_help()
    assert "Steps between checkpoints: what a killed run loses at" in said
    assert "(type: float, default: 0.007)" in said


TORCHLESS = """
import json, sys
from qstudy.cli import main
told = []
for arguments in json.loads(sys.argv[1]):
    code = None
    try:
        main(arguments)
    except SystemExit as error:
        code = error.code
    told.append([arguments, code, sorted({"torch", "lightning", "numba", "optuna"} & set(sys.modules))])
print(json.dumps(told))
"""
ANSWERED = [
    ["--help"],
    ["trian"],
    ["train", "--colour", "red"],
    ["train", "--data.train", "a", "--data.dev", "b", "--training.step", "5"],
    ["evaluate", "--json"],
    ["sweep", "sweeps/smoke.yaml", "--worker", "2"],
    *([*name.split(), "--help"] for name in COMMANDS),
]


def test_answers_do_not_wait_for_torch(tmp_path: Path) -> None:
    """One process asks for all: the first that imports torch is told of, and so are those behind it."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", TORCHLESS, json.dumps(ANSWERED)]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert [arguments for arguments, *_ in told] == ANSWERED
    assert not [each for each in told if each[1] not in (0, 2) or each[2]], done.stderr


def test_the_help_of_a_policy_names_all_of_them(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    assert {*POLICIES, *MAPS} <= set(re.findall(r"\w+", capsys.readouterr().out))


def test_usage_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in ([], ["--help"], ["-h"]):
        with pytest.raises(SystemExit) as exit:
            main(arguments)
        assert exit.value.code == 0
        said = capsys.readouterr().out
        assert all(f"  {name} " in said for name in COMMANDS)
    with pytest.raises(SystemExit) as exit:
        main(["data", "--help"])
    assert "data digits" in capsys.readouterr().out


@pytest.mark.parametrize("buffered", [True, False])
@pytest.mark.parametrize("arguments", ["--help", "presets --help", "presets"])
def test_a_reader_that_has_read_enough_is_no_mistake(arguments: str, buffered: bool) -> None:
    """As `head`, which closes the pipe. argparse (0) and rich (1) may notice it first."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "" if buffered else "1"}
    command = [sys.executable, "-m", "qstudy", *arguments.split()]
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(command, env=environment, stdout=writing, stderr=subprocess.PIPE, text=True)
    os.close(writing)
    assert done.returncode in {UNREAD, 0, 1}
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("ending", "code", "told"),
    [
        ("UserError('the mend.')", 2, "the mend."),
        ("RuntimeError('a bug')", 1, "a bug"),
        ("SystemExit(3)", 3, ""),
        ("KeyboardInterrupt()", 130, "Interrupted"),
    ],
)
def test_what_went_wrong_is_told_though_nobody_reads(ending: str, code: int, told: str) -> None:
    """Of `qstudy ... | head` the code and the sentence are those of the command."""
    lines = [
        "from qstudy import cli",
        "from qstudy.errors import UserError",
        "def run(arguments):",
        "    print(end='x')",
    ]
    program = "\n".join([*lines, f"    raise {ending}", "cli._run = run", "cli.main(['presets'])"])
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-c", program]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": ""}
    done = subprocess.run(command, env=environment, stdout=writing, stderr=subprocess.PIPE, text=True)
    os.close(writing)
    assert done.returncode == code
    assert told in done.stderr


def test_as_a_program(tmp_path: Path) -> None:
    """In a process of its own: code 2, one line, no warning of any library."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "qstudy", "train", "--data.train", "gone.jsonl", "--data.dev", "gone.jsonl"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("qstudy: ")
    assert "gone.jsonl" in done.stderr
    assert done.stdout == ""
