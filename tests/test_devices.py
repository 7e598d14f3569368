"""The same training on several devices, in several passes, with several loader processes: processors stand for GPUs."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from test_training import assert_same, wait_for_another
from tiny import run_config

from qstudy.errors import UserError
from qstudy.fields import merged
from qstudy.sweep.config import load_study
from qstudy.sweep.launchers.local import GPUS_VARIABLE, visible_gpus
from qstudy.training.config import RunConfig, TrainerConfig, config_from_dict, load_yaml, to_dict
from qstudy.training.devices import PATIENCE, _fabric, join
from qstudy.training.run import run

pytestmark = pytest.mark.usefixtures("one_thread")

SCHEDULE = {"steps": 30, "checkpoint_every": 10, "batch_size": 5, "ctc_only": 0.2, "ctc_weight": 0.3}
TWO = {"devices": 2, "accelerator": "cpu"}
QAT: dict[str, Any] = {"name": "fake_qat", "layers": {"*": {"weight": 4, "activation": 8}}}


def losses(folder: Path) -> list[float]:
    callbacks = torch.load(folder / "last.ckpt", weights_only=True)["callbacks"]
    found: list[float] = callbacks["Progress"]["losses"].tolist()
    return found


def start(config: RunConfig, folder: Path) -> "subprocess.Popen[str]":
    """`qstudy train` in processes of its own; one that is left alone by its kind is not waited for."""
    path = folder.with_suffix(".yaml")
    path.write_text(yaml.safe_dump(to_dict(config)))
    command = [sys.executable, "-m", "qstudy", "train", "--config", str(path), "--out", str(folder)]
    kept = {name: value for name, value in os.environ.items() if name not in ("LOCAL_RANK", "WORLD_SIZE")}
    environment = {**kept, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[1])}
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, env=environment, start_new_session=True, **pipes)


def finish(process: "subprocess.Popen[str]") -> str:
    said, complaint = process.communicate(timeout=300)
    assert process.returncode == 0, complaint
    assert "Traceback" not in complaint
    return said


def test_two_processes_train_as_one_does_and_go_on_after_a_kill(
    corpus: Path, shared_folder: Path, tmp_path: Path
) -> None:
    """Batches of five, so that shares are uneven; the baseline that both processes need is trained by both."""
    config = run_config(corpus, tmp_path, training=SCHEDULE, finetune=SCHEDULE, policy=QAT)
    baseline = run_config(corpus, shared_folder, training=SCHEDULE)
    run(baseline, tmp_path / "one", name="float")
    config.trainer = TrainerConfig(**TWO)
    killed = start(config, tmp_path / "two")
    wait_for_another(tmp_path / "two" / "last.ckpt", killed)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.communicate()
    (folder,) = (tmp_path / "cache" / "baselines").glob("*/")
    assert losses(folder) == pytest.approx(losses(tmp_path / "one"), rel=0, abs=1e-4)
    said = finish(start(config, tmp_path / "two"))
    assert said.count("Next:") == 1
    finish(start(config, tmp_path / "straight"))
    assert_same(tmp_path / "straight", tmp_path / "two")
    assert losses(tmp_path / "straight") == losses(tmp_path / "two")
    record = json.loads((tmp_path / "two" / "record.json").read_text())
    assert (record["steps"], record["config"]["trainer"]["devices"]) == (30, 2)
    assert len(list(tmp_path.rglob("record.json"))) == 4


@pytest.mark.parametrize("strategy", ["auto", "ddp", "ddp_find_unused_parameters_true"])
def test_processes_wait_for_an_evaluation_of_hours(strategy: str) -> None:
    """Lightning's half an hour is not enough for the first one to decode large test sets."""
    strategies = [_fabric(**asdict(TrainerConfig(**TWO, strategy=strategy))).strategy]
    assert [each._timeout for each in strategies] == [PATIENCE]  # type: ignore[attr-defined]
    assert strategies[0].num_processes == 2


def test_passes_divide_a_step_and_change_rounding_only(corpus: Path, shared_folder: Path, tmp_path: Path) -> None:
    """Three passes over batches of five and, at the end of an epoch, of four; dropout-free, so nothing else differs."""
    once = run_config(corpus, shared_folder, training=SCHEDULE)
    thrice = run_config(corpus, shared_folder, training={**SCHEDULE, "accumulate": 3})
    first, second = (run(config, tmp_path / name, name=name) for name, config in (("one", once), ("three", thrice)))
    assert losses(tmp_path / "one") == pytest.approx(losses(tmp_path / "three"), rel=1e-6, abs=1e-4)
    assert first.steps == second.steps == 30


@pytest.mark.parametrize("workers", [2, 4])
def test_loader_processes_change_nothing(corpus: Path, shared_folder: Path, tmp_path: Path, workers: int) -> None:
    alone = run_config(corpus, shared_folder, training={**SCHEDULE, "steps": 12})
    helped = run_config(corpus, shared_folder, training={**SCHEDULE, "steps": 12}, data={"workers": workers})
    for name, config in (("alone", alone), ("helped", helped)):
        record = run(config, tmp_path / name, name="float")
        assert 0 <= record.data_wait < 1
    assert losses(tmp_path / "alone") == losses(tmp_path / "helped")
    assert_same(tmp_path / "alone", tmp_path / "helped")


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"accelerator": "abacus"}, "abacus"),
        ({"accelerator": "cpu", "devices": "many"}, "devices"),
        ({"strategy": "telepathy"}, "telepathy"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_devices_that_there_are_not(wrong: dict[str, Any], named: str) -> None:
    with pytest.raises(UserError, match=named):
        join(TrainerConfig(**wrong))


LIBRISPEECH = Path(__file__).parents[2] / "shared" / "data" / "LibriSpeech"


@pytest.mark.skipif(not LIBRISPEECH.exists(), reason="needs a few utterances in LibriSpeech's layout")
def test_the_librispeech_recipe_on_two_processors(tmp_path: Path) -> None:
    """The recipe as it is, but for the subset, the model's sizes and the devices."""
    manifest = str(tmp_path / "manifests" / "test-clean.jsonl")
    changed = {
        "data": {
            "train": manifest,
            "dev": manifest,
            "test": {"clean": manifest, "other": manifest},
            "make": {"corpus": "librispeech", "root": str(LIBRISPEECH), "out": str(tmp_path / "manifests")},
            "workers": 1,
        },
        "tokenizer": {"name": "sentencepiece", "size": 40},
        "model": {
            "encoder": {"name": "lstm", "hidden": 32, "layers": 2, "stack": 3, "reduction": 2, "running_mean": 50},
            "predictor": {"name": "lstm", "embedding": 16, "hidden": 32},
            "joiner": {"hidden": 32},
        },
        "training": {"steps": 4, "batch_frames": 2000, "evaluate_every": 2, "ctc_only": 0.5},
        "trainer": {"accelerator": "cpu", "devices": 2},
        "cache": str(tmp_path / "cache"),
        "track": False,
    }
    recipe = load_yaml(Path(__file__).parents[1] / "sweeps" / "base" / "librispeech.yaml")
    finish(start(config_from_dict(merged(recipe, changed)), tmp_path / "run"))
    record = json.loads((tmp_path / "run" / "record.json").read_text())
    assert (record["steps"], record["metrics"]["dev"]["utterances"]) == (4, 4)
    assert len(list((tmp_path / "cache" / "tokenizers").iterdir())) == 1


# Sweeps: trials, not shares of them, go to devices


@pytest.mark.parametrize(
    ("named", "there", "seen"),
    [(None, 2, ["0", "1"]), ("3,5", 2, ["3", "5"]), ("GPU-1a, GPU-2b", 2, ["GPU-1a", "GPU-2b"]), ("", 0, [])],
)
def test_the_gpus_that_workers_are_given(
    named: str | None, there: int, seen: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: there)
    monkeypatch.delenv(GPUS_VARIABLE, raising=False)
    if named is not None:
        monkeypatch.setenv(GPUS_VARIABLE, named)
    assert visible_gpus() == seen


def test_a_study_of_trials_on_several_devices_is_refused(tmp_path: Path) -> None:
    study = {"study": "s", "base": {"data": {"train": "t", "dev": "d"}, "trainer": TWO}, "grid": {"policy": QAT}}
    (tmp_path / "s.yaml").write_text(yaml.safe_dump(study))
    with pytest.raises(UserError, match="trainer: a study trains every trial on one device"):
        load_study(tmp_path / "s.yaml")
