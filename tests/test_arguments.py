"""A run's configuration from files and options: what wins, what is refused, and that nothing in it is imported."""

import re
import shlex
import sys
from pathlib import Path
from typing import Any, get_type_hints

import pytest

from qstudy.arguments import read_configurations
from qstudy.cli import main
from qstudy.commands.evaluate import evaluate
from qstudy.commands.train import train
from qstudy.errors import UserError
from qstudy.training.assets import make_corpus
from qstudy.training.config import RunConfig, config_from_dict, to_dict

ROOT = Path(__file__).parents[1]
LEAST = ["--data.train", "a.jsonl", "--data.dev", "b.jsonl"]


def read(*arguments: str) -> RunConfig:
    configured, rest = read_configurations(get_type_hints(train), [*LEAST, *arguments])
    assert rest == []
    config = configured["config"]
    assert isinstance(config, RunConfig)
    return config


def test_later_arguments_win_and_keep_what_they_do_not_name(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("training: {steps: 5, batch_size: 7}\ndata: {make: {corpus: digits, root: a}}\n")
    (tmp_path / "b.yaml").write_text("training: {steps: 6}\n")
    config = read("--config", f"{tmp_path}/a.yaml", f"--config={tmp_path}/b.yaml", "--data.make.root=c", "--seed", "3")
    assert (config.training.steps, config.training.batch_size, config.seed) == (6, 7, 3)
    assert config.data.make == {"corpus": "digits", "root": "c"}
    assert config.data.train == "a.jsonl"
    assert read("--training.steps=9", "--config", f"{tmp_path}/a.yaml").training.steps == 5


def test_paths_name_options_of_the_corpus() -> None:
    fold = read("--config", "sweeps/base/digits-unheard.yaml", "--data.make.unheard=[lucas, george]").data
    assert fold.make["out"] == "corpora/digits-without-lucas-george"
    assert fold.train == "corpora/digits-without-lucas-george/train.jsonl"
    assert fold.test["test"] == "corpora/digits-without-lucas-george/unheard.jsonl"
    kept = config_from_dict(to_dict(read("--data.make={out: a, root: b}", "--data.dev={x}/{root}/{out}{}"))).data
    assert (kept.dev, kept.train) == ("{x}/b/a{}", "a.jsonl")


def test_the_readmes_own_manifests_are_all_that_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over the configuration that makes a corpus: nothing is made for a training set that lies elsewhere."""
    page = (ROOT / "README.md").read_text(encoding="utf-8")
    (command,) = re.findall(r"^qstudy train (--config .*--data.test .*)$", page, re.MULTILINE)
    monkeypatch.chdir(ROOT)
    config = read(*shlex.split(command))
    data = config.data
    assert (data.train, data.dev, data.test) == ("my/train.jsonl", "my/dev.jsonl", {"mine": "my/test.jsonl"})
    monkeypatch.chdir(tmp_path)
    make_corpus(config)
    assert list(tmp_path.iterdir()) == []


def test_options_add_to_what_a_file_says_of_a_policy(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("policy: {name: ptq, rounding: gptq, layers: {'*': {weight: 4, activation: 8}}}\n")
    given = ["--config", f"{tmp_path}/a.yaml"]
    layers = {"*": {"weight": 4, "activation": 8}, "joiner.*": {"weight": 8}}
    for option in ("--policy.layers={joiner.*: {weight: 8}}", "--policy={layers: {joiner.*: {weight: 8}}}"):
        assert read(*given, option).policy == {"name": "ptq", "rounding": "gptq", "layers": layers}
    assert read(*given, "--policy={name: float}").policy == {"name": "float"}


def test_values_are_yaml_where_the_field_is_no_text() -> None:
    config = read(
        "--policy",
        "{name: ptq, layers: {'*': {weight: 4}}}",
        "--cache",
        "5",
        "--track=false",
        "--seed=7",
        "--augment.speed_range=[0.9, 1]",
        "--model.encoder.hidden",
        "64",
        "--data.test.clean",
        "007",
    )
    assert config.policy == {"name": "ptq", "layers": {"*": {"weight": 4}}}
    assert (config.cache, config.track, config.seed, config.augment.speed_range) == ("5", False, 7, (0.9, 1.0))
    assert config.model.encoder == {"name": "lstm", "hidden": 64}  # the default's others
    assert config.data.test == {"clean": "007"}


def test_paths_are_no_yaml() -> None:
    assert read("--start", "runs/a #1/x.ckpt").start == "runs/a #1/x.ckpt"
    assert read("--start", "a.qst", "--start", "null").start is None
    models = ["--lm", "My Models: v2/lm.qst", "--lm_weight", "0.3", "--source_lm", "2024", "--source_weight", "0.1"]
    configured, _ = read_configurations(get_type_hints(evaluate), ["--decode", "beam", *models])
    decoding = configured["decoding"]
    assert (decoding.lm, decoding.lm_weight) == (Path("My Models: v2/lm.qst"), 0.3)
    assert decoding.source_lm == Path("2024")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--seed"], "--seed: the value is missing"),
        (["--seed", "--track=false"], "--seed: the value is missing"),
        (["--start="], "--start: the value is missing"),
        (["--seed=1:30"], "seed: '1:30' should be a valid integer"),
        (["--training.steps=1:30"], "training.steps: '1:30'"),
        (["--policy={"], "--policy is not valid YAML"),
        (["--policy=ptq"], "policy: 'ptq' should be a mapping"),
        (["--seed.x=1"], "seed: a mapping should be a valid integer"),
        (["--training.step=1"], "training.step: there is no such field"),
        (["--training=3"], "training: this must be a mapping"),
        (["--config", "gone.yaml"], "Cannot read gone.yaml"),
    ],
    ids=str,
)
def test_refused(arguments: list[str], said: str) -> None:
    with pytest.raises(UserError) as error:
        read(*arguments)
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["train", *LEAST, "--seed=1", "--seed=2"], "--seed is given twice"),
        (["sweep", "x.yaml", "--trials", "1", "--trials", "2"], "--trials is given twice"),
        (["sweep", "x.yaml", "--storage", "x://y", "--storage=x://z"], "--storage is given twice"),
        (["sweep", "x.yaml", "--trials", "1:30"], "trials"),
        (["sweep", "x.yaml", "--workers", "0"], "workers: 0"),
        (["sweep", "x.yaml", "--workers", "1000000"], "workers: 1000000"),
        (["cache", "--days", "nan"], "days"),
        (["cache", "--days=-1"], "days: -1"),
        (["cache", "--zzz\x1b[31m"], "--zzz\\x1b[31m"),
        (["simulate", __file__, "--accelerator", "x" * 5000], "xxx..."),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_refused_by_the_command(arguments: list[str], said: str, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit:
        main(arguments)
    told = capfd.readouterr().err
    assert exit.value.code == 2
    assert said in told
    assert told.count("\n") == 1
    assert len(told) < 1100


def test_a_study_that_cannot_be_priced_is_named(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    grid = "{policy: {name: ptq, layers: {encoder.gru: {weight: 4}}}}"
    (tmp_path / "study.yaml").write_text(f"study: s\nbase: {{data: {{train: a, dev: b}}}}\ngrid: {grid}\n")
    with pytest.raises(SystemExit) as exit:
        main(["sweep", str(tmp_path / "study.yaml")])
    told = capfd.readouterr().err
    assert exit.value.code == 2
    assert told.startswith(f"qstudy: {tmp_path / 'study.yaml'}: grid")
    assert "encoder.gru" in told


PLACES: dict[str, Any] = {
    "policy": lambda evil: {"policy": evil},
    "a policy's option": lambda evil: {"policy": {"name": "ptq", "layers": evil}},
    "a policy's text": lambda evil: {"policy": {"name": str(evil).replace("'", "")}},
    "tokenizer": lambda evil: {"tokenizer": {"name": "characters", "alphabet": evil}},
    "encoder": lambda evil: {"model": {"encoder": {"name": "lstm", "hidden": evil}}},
    "model": lambda evil: {"model": evil},
    "data": lambda evil: {"data": evil},
    "make": lambda evil: {"data": {"train": "a", "dev": "b", "make": evil}},
    "test": lambda evil: {"data": {"train": "a", "dev": "b", "test": evil}},
    "augment": lambda evil: {"augment": evil},
    "all": lambda evil: evil,
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("init", ["init_args", "dict_kwargs", None])
def test_no_class_of_a_configuration_is_imported(
    place: str, init: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """jsonargparse, which once read configurations, made objects of `{class_path: ..., init_args: ...}` anywhere."""
    (tmp_path / "evil_class.py").write_text("open('owned', 'w')\nclass E: ...\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    evil = {"class_path": "evil_class.E", **({init: {}} if init else {})}
    values = {"data": {"train": "a", "dev": "b"}, **PLACES[place](evil)}
    try:
        config_from_dict(values)
        read(*(f"--{name}={value}" for name, value in values.items()))
    except UserError:
        pass
    assert "evil_class" not in sys.modules
    assert not (tmp_path / "owned").exists()
