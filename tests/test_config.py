"""Run configurations: from YAML, checked by name, and back."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import yaml

from qstudy.errors import UserError
from qstudy.training.config import config_from_dict, load_config, to_dict

LEAST = {"data": {"train": "a/train.jsonl", "dev": "a/dev.jsonl"}}


def test_defaults() -> None:
    config = config_from_dict(LEAST)
    assert config.policy == {"name": "float"}
    assert config.training.steps > config.finetune.steps
    assert config.finetune.learning_rate < config.training.learning_rate
    assert config.finetune.ctc_only == 0


def test_a_fine_tune_keeps_its_own_defaults() -> None:
    """Not those of a training from scratch, whatever few fields are given."""
    given = config_from_dict({**LEAST, "finetune": {"steps": 7}}).finetune
    assert given == dataclasses.replace(config_from_dict(LEAST).finetune, steps=7)
    assert (given.learning_rate, given.ctc_only, given.augment_from) == (1e-3, 0, 0)


def test_the_resolved_configuration_comes_back_the_same(tmp_path: Path) -> None:
    values = {**LEAST, "seed": 3, "features": {"bins": 20}, "policy": {"name": "ptq", "layers": {"*": {"weight": 4}}}}
    config = config_from_dict(values)
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(to_dict(config)))
    assert load_config(path) == config
    assert (config.seed, config.features.bins, config.features.hop_ms) == (3, 20, 10)
    assert load_config(path, {"seed": 5}) == dataclasses.replace(config, seed=5)


def test_overrides_change_what_they_name_and_nothing_else(tmp_path: Path) -> None:
    values = {
        **LEAST,
        "training": {"steps": 5, "batch_size": 7},
        "policy": {"name": "ptq", "layers": {"*": {"weight": 4}}},
    }
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(values))
    overrides = {"training": {"steps": 6}, "policy": {"layers": {"joiner.*": {"weight": 8}}}}
    config = load_config(str(path), overrides)
    assert (config.training.steps, config.training.batch_size) == (6, 7)
    assert config.policy == {"name": "ptq", "layers": {"*": {"weight": 4}, "joiner.*": {"weight": 8}}}
    assert load_config(path, {"policy": {"name": "float"}}).policy == {"name": "float"}


@pytest.mark.parametrize(
    ("policy", "start", "scratch"),
    [("float", None, True), ("fake_qat", None, False), ("float", "baseline", False), ("fake_qat", "scratch", True)],
)
def test_where_training_starts(policy: str, start: str | None, scratch: bool) -> None:
    config = config_from_dict({**LEAST, "policy": {"name": policy}, "start": start})
    assert config.from_scratch == scratch
    assert config.schedule is (config.training if scratch else config.finetune)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"sead": 1}, ["sead"]),
        ({"training": {"step": 10}}, ["step"]),
        ({"training": {"steps": "many"}}, ["steps", "many"]),
        ({"training": {"steps": 0}}, ["training.steps", "0"]),
        ({"training": {"learning_rate": 0.0}}, ["learning_rate"]),
        ({"training": {"precision": "16"}}, ["precision", "bf16-mixed"]),
        ({"finetune": {"batch_size": -1}}, ["batch_size", "-1"]),
        ({"features": {"bin": 20}}, ["bin"]),
        ({"features": {"bins": 1}}, ["bins", "1"]),
        ({"augment": {"noise": 2.0}}, ["noise", "2.0"]),
        ({"start": "middle"}, ["start", "middle"]),
        ({"policy": "float"}, ["policy"]),
        ({"data": {"train": "a"}}, ["dev"]),
        ({"model": {"encoder": 3}}, ["encoder"]),
    ],
    ids=str,
)
def test_errors_name_the_field(change: dict[str, Any], named: list[str]) -> None:
    with pytest.raises(UserError) as error:
        config_from_dict({**LEAST, **change})
    assert all(word in str(error.value) for word in named), error.value
    assert "Traceback" not in str(error.value)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("a: [1", "not valid YAML"),
        ("- 1\n- 2\n", "mapping"),
        ("", "mapping"),
        (b"\xff\xfe", "Cannot read"),
        (None, "Cannot read"),
    ],
    ids=["broken", "list", "empty", "binary", "missing"],
)
def test_files_that_are_no_configuration(tmp_path: Path, content: str | bytes | None, said: str) -> None:
    path = tmp_path / "run.yaml"
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError, match=said) as error:
        load_config(path)
    assert str(path) in str(error.value)


def test_yaml_tags_run_no_code(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(
        f"data: !!python/object/apply:pathlib.Path.touch [!!python/object/apply:pathlib.Path ['{tmp_path}/x']]\n"
    )
    with pytest.raises(UserError):
        load_config(path)
    assert not (tmp_path / "x").exists()
