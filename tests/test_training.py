"""Training: it learns, it goes on exactly where it stopped, and its record says what happened."""

import gc
import json
import os
import signal
import subprocess
import sys
import time
import weakref
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
import yaml
from lightning.pytorch.loggers import Logger
from tiny import TOKENIZER, run_config

from qstudy.cli import main
from qstudy.data.batches import Batch
from qstudy.data.manifest import read_manifest, write_manifest
from qstudy.errors import Diverged, UserError
from qstudy.files import read_json
from qstudy.model import RNNT
from qstudy.quant.packed.model import PackedModel
from qstudy.quant.policies import POLICIES, QuantPolicy, build_policy
from qstudy.quant.policies.fake_qat import FakeQAT
from qstudy.quant.quantizers import activation_quantizers
from qstudy.training.assets import open_assets
from qstudy.training.checkpoint import load_checkpoint
from qstudy.training.checkpoint_file import read_checkpoint
from qstudy.training.conclude import conclude
from qstudy.training.config import RunConfig, to_dict
from qstudy.training.fit import BY_STEP, Progress, Waiting, fit
from qstudy.training.module import TransducerModule
from qstudy.training.price import price
from qstudy.training.record import SCHEMA, Record
from qstudy.training.run import calibrated, float_baseline, run

pytestmark = pytest.mark.usefixtures("one_thread")

QAT: dict[str, Any] = {"name": "fake_qat", "layers": {"*": {"weight": 4, "activation": 8}}}


class Stop(Exception):
    """Thrown into a training, as a power cut would be."""


def stopping(at: int) -> Callable[[int, float], None]:
    def report(step: int, wer: float) -> None:
        if step == at:
            raise Stop

    return report


def weights(folder: Path) -> dict[str, torch.Tensor]:
    """All that training changes, as the last checkpoint has it."""
    checkpoint = torch.load(folder / "last.ckpt", weights_only=True)
    state: dict[str, torch.Tensor] = checkpoint["state_dict"]
    return {**state, "step": torch.tensor(checkpoint["global_step"])}


def assert_same(first: Path, second: Path) -> None:
    one, other = weights(first), weights(second)
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert torch.equal(value, other[name]), name
    assert (first / "model.qst").read_bytes() == (second / "model.qst").read_bytes()


def test_the_loss_falls_and_the_record_says_so(corpus: Path, shared_folder: Path, tmp_path: Path) -> None:
    schedule = {"steps": 50, "ctc_only": 0.2, "learning_rate": 1e-2, "batch_size": 4}
    config = run_config(corpus, shared_folder, training=schedule, data={"test": {"new": str(corpus / "test.jsonl")}})
    record = run(config, tmp_path, name="float")
    assert record.loss["last"] < 0.8 * record.loss["first"]
    assert record.steps == 50
    assert json.loads(json.dumps(asdict(record))) == read_json(tmp_path / "record.json")
    assert (record.schema, record.run, record.state, record.policy) == (SCHEMA, "float", "complete", "float")
    assert record.size_bytes == price(config).size_bytes == PackedModel.load(tmp_path / "model.qst").size_bytes
    assert record.file_bytes == (tmp_path / "model.qst").stat().st_size
    assert list(record.metrics) == ["dev", "new"]
    assert record.metrics["dev"]["utterances"] == 6
    errors, words = (record.utterances["dev"][key].split() for key in ("errors", "words"))
    assert len(errors) == len(words) == 6
    assert sum(map(int, errors)) / sum(map(int, words)) == record.metrics["dev"]["wer"]
    assert record.baseline is None
    assert sum(layer["bytes"] for layer in record.layers.values()) == record.size_bytes
    assert set(record.bit_map) <= set(record.layers)
    assert record.config == json.loads(json.dumps(to_dict(config)))  # tuples are lists
    assert record.latency["edge_nna"]["latency_ms"] > 0
    assert torch.__version__.startswith(record.versions["torch"])


def test_fine_tuning_starts_from_a_baseline_that_is_trained_once(corpus: Path, tmp_path: Path) -> None:
    first = run(run_config(corpus, tmp_path, policy=QAT), tmp_path / "qat", name="qat")
    baseline = float_baseline(run_config(corpus, tmp_path))
    written = (baseline / "record.json").stat().st_mtime_ns
    ptq = {"name": "ptq", "layers": {"*": {"weight": 16}}}
    second = run(run_config(corpus, tmp_path, policy=ptq), tmp_path / "ptq", name="ptq")
    assert first.baseline == second.baseline
    assert first.baseline["id"] == read_json(baseline / "record.json")["run"]
    assert list((tmp_path / "cache" / "baselines").glob("*/record.json")) == [baseline / "record.json"]
    assert (baseline / "record.json").stat().st_mtime_ns == written
    assert (second.steps, second.loss, second.metrics["dev"]["utterances"]) == (0, None, 6)
    before, after = (PackedModel.load(folder / "model.qst") for folder in (baseline, tmp_path / "ptq"))
    assert torch.equal(before.tensors["joiner.output.bias"], after.tensors["joiner.output.bias"])


@pytest.mark.parametrize("options", [{}, {"activation_start": 5, "freeze_step": 9}], ids=["plain", "late activations"])
def test_a_stopped_run_goes_on_exactly(
    corpus: Path, shared_folder: Path, tmp_path: Path, options: dict[str, Any]
) -> None:
    """Twelve steps, or six, a crash, and eight more from the fourth on: the same bits, with dropout and observers."""
    encoder = {"name": "lstm", "hidden": 24, "layers": 1, "stack": 3, "reduction": 3, "dropout": 0.2}
    config = run_config(
        corpus,
        shared_folder,
        model={"encoder": encoder},
        finetune={"evaluate_every": 6, "checkpoint_every": 4, "ctc_weight": 0.3},
        policy={**QAT, **options},
        start="scratch",
    )
    config.training = config.finetune
    straight = run(config, tmp_path / "straight", name="straight")
    with pytest.raises(Stop):
        run(config, tmp_path / "stopped", name="stopped", report=stopping(6))
    assert not (tmp_path / "stopped" / "record.json").exists()
    assert int(weights(tmp_path / "stopped")["step"]) == 4
    resumed = run(config, tmp_path / "stopped", name="stopped")
    assert_same(tmp_path / "straight", tmp_path / "stopped")
    assert resumed.loss == straight.loss
    assert (resumed.steps, resumed.metrics["dev"]["wer"]) == (12, straight.metrics["dev"]["wer"])


def test_the_last_checkpoint_is_the_trained_model(corpus: Path, shared_folder: Path, tmp_path: Path) -> None:
    """Also when the number of steps is no multiple of the checkpoints' distance; exported, it is the run's model."""
    config = run_config(corpus, shared_folder, finetune={"steps": 7}, policy=QAT)
    run(config, tmp_path, name="qat")
    assert int(weights(tmp_path)["step"]) == 7
    main(["export", str(tmp_path / "last.ckpt"), "--out", str(tmp_path / "again.qst")])
    assert (tmp_path / "again.qst").read_bytes() == (tmp_path / "model.qst").read_bytes()


def test_a_finished_run_stays_as_it_is(corpus: Path, shared_folder: Path, tmp_path: Path) -> None:
    config = run_config(corpus, shared_folder, policy=QAT)
    first = run(config, tmp_path, name="qat")
    model = (tmp_path / "model.qst").read_bytes()
    (tmp_path / "record.json").unlink()  # killed between the last step and the record
    again = run(config, tmp_path, name="qat")
    assert (tmp_path / "model.qst").read_bytes() == model
    assert (again.loss, again.steps, again.step_ms) == (first.loss, 12, first.step_ms)


def test_another_configuration_does_not_go_on_from_this_one(corpus: Path, shared_folder: Path, tmp_path: Path) -> None:
    run(run_config(corpus, shared_folder, policy=QAT), tmp_path, name="qat")
    other = run_config(corpus, shared_folder, policy={**QAT, "weight_range": "max"})
    with pytest.raises(UserError, match=r"policy"):
        run(other, tmp_path, name="qat")


def test_another_training_set_does_not_go_on_from_this_one(
    corpus: Path, shared_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By what it holds, not by its path."""
    manifest = tmp_path / "train.jsonl"
    write_manifest(manifest, read_manifest(corpus / "train.jsonl"))
    config = run_config(corpus, shared_folder, data={"train": str(manifest)}, start="scratch")
    run(config, tmp_path / "run", name="float")
    write_manifest(manifest, read_manifest(manifest)[:-1])
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(to_dict(config)))
    with pytest.raises(SystemExit) as stopped:
        main(["train", "--config", str(path), "--out", str(tmp_path / "run")])
    assert stopped.value.code == 2
    assert "last.ckpt is of a run with another data.train; remove" in capsys.readouterr().err


class Exploding(FakeQAT):
    """Its penalty is NaN from step 3 on."""

    def penalty(self, model: torch.nn.Module, step: int) -> torch.Tensor:
        return torch.tensor(float("nan") if step >= 3 else 0.0)


def test_a_loss_that_is_no_number_names_the_step(
    corpus: Path, shared_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known: dict[str, Callable[..., QuantPolicy]] = {**POLICIES, "exploding": Exploding}
    monkeypatch.setattr("qstudy.quant.policies.POLICIES", known)
    with pytest.raises(Diverged, match=r"nan at step 3; lower the learning rate .*\(finetune\.learning_rate is "):
        run(run_config(corpus, shared_folder, policy={**QAT, "name": "exploding"}), tmp_path, name="qat")
    assert not (tmp_path / "record.json").exists()


class Noting(FakeQAT):
    """Notes the steps after which it may change the model."""

    told: ClassVar[list[int]] = []

    def project_(self, model: torch.nn.Module, step: int) -> None:
        super().project_(model, step)
        self.told.append(step)


def test_a_policy_changes_the_model_once_per_step_of_several_passes(
    corpus: Path, shared_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("qstudy.quant.policies.POLICIES", {**POLICIES, "noting": Noting})
    monkeypatch.setattr(Noting, "told", [])
    schedule = {"steps": 3, "accumulate": 2}
    config = run_config(corpus, shared_folder, training=schedule, policy={**QAT, "name": "noting"}, start="scratch")
    run(config, tmp_path, name="qat")
    assert Noting.told == [0, 0, 1, 2, 3, 3]  # when it has calibrated, when training starts, and before it is packed


class Curves(Logger):
    """Keeps what it is told: name -> last value."""

    name, version = "curves", 0

    def __init__(self) -> None:
        super().__init__()
        self.last: dict[str, float] = {}

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        self.last |= metrics

    def log_hyperparams(self, *_: Any, **__: Any) -> None:
        pass


def test_the_curve_of_a_loss_is_that_of_steps_not_of_passes(corpus: Path, shared_folder: Path, tmp_path: Path) -> None:
    config = run_config(corpus, shared_folder, training={"steps": 20, "accumulate": 3})
    model, curves = RNNT(config.model, config.features, TOKENIZER.size), Curves()
    module = TransducerModule(model, build_policy({"name": "float"}), config.training, TOKENIZER, 0)
    fit(module, config, open_assets(config), tmp_path, "float", curves)
    progress = read_checkpoint(tmp_path / "last.ckpt")["callbacks"]["Progress"]
    assert curves.last["loss"] == pytest.approx(float(progress["losses"][-1]))
    assert "loss_of_pass" not in curves.last


def test_an_utterance_that_is_shorter_than_an_encoder_frame(corpus: Path, shared_folder: Path, tmp_path: Path) -> None:
    encoder = {"name": "lstm", "hidden": 8, "layers": 1, "stack": 40, "reduction": 40}
    config = run_config(corpus, shared_folder, model={"encoder": encoder})
    with pytest.raises(UserError, match=r"data\.train: .*train\.jsonl has an utterance of \d+ frames, .* needs 1600"):
        run(config, tmp_path, name="float")


def test_an_utterance_that_augmentation_makes_shorter_than_an_encoder_frame(
    corpus: Path, shared_folder: Path, tmp_path: Path
) -> None:
    """It would end the training once the speed is drawn; without another speed it is long enough."""
    shortest = int(open_assets(run_config(corpus, shared_folder)).train.lengths.min())
    encoder = {"name": "lstm", "hidden": 8, "layers": 1, "stack": shortest, "reduction": 1}
    options: dict[str, Any] = {"model": {"encoder": encoder}, "training": {"steps": 1}}
    with pytest.raises(UserError, match=rf"of {shortest} frames, \d+ at a speed of 1.25 \(augment\), but the encoder"):
        run(run_config(corpus, shared_folder, **options), tmp_path, name="float")
    assert run(run_config(corpus, shared_folder, augment={"speed": 0.0}, **options), tmp_path, name="float").steps == 1


def test_what_no_record_holds_is_said_before_the_training(
    corpus: Path, shared_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hours later, all of them would be lost."""
    tests = {"test": {"x" * 201: str(corpus / "test.jsonl")}}
    with pytest.raises(UserError, match=r"The record of this run: metrics.* should be one line of at most 200"):
        run(run_config(corpus, shared_folder, data=tests), tmp_path, name="float")
    monkeypatch.setattr("qstudy.training.conclude.UTTERANCES", 5)
    with pytest.raises(UserError, match="dev has 6 utterances, more than the 5 that a record holds"):
        run(run_config(corpus, shared_folder), tmp_path, name="float")
    assert list(tmp_path.iterdir()) == []


W8A8 = {"layers": {"*": {"weight": 8, "activation": 8}}}
TRAINED: list[dict[str, Any]] = [
    {"name": "float"},
    *({"name": name, **W8A8} for name in ("fake_qat", "native_int", "s8bqat", "accelerator_aware", "mixed")),
    *({"name": name, **W8A8, "freeze_step": 0} for name in ("native_int", "accelerator_aware")),
    {"name": "int4_e2e"},
    {"name": "encoder_only", "encoder": {"weight": 8, "activation": 8}},
]


@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
@pytest.mark.parametrize("policy", TRAINED, ids=lambda policy: f"{policy['name']} {len(policy)}")
def test_a_weight_that_is_no_number_stops_the_training(
    corpus: Path, shared_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, policy: Any, poison: float
) -> None:
    """Integers have no NaN: a product in them makes some number of it, and the loss looks sound."""
    step = TransducerModule.training_step

    def poisoned(self: TransducerModule, batch: Batch, index: int) -> torch.Tensor:
        if self.global_step == 1:
            self.model.encoder.lstm[0].weight_ih_l0.data[0, 0] = poison
        return step(self, batch, index)

    monkeypatch.setattr(TransducerModule, "training_step", poisoned)
    with pytest.raises(Diverged, match=r"not a number|not finite"):
        run(run_config(corpus, shared_folder, policy=policy, start="scratch"), tmp_path, name="poisoned")
    assert not (tmp_path / "last.ckpt").exists()


def test_checkpoints_are_read_back(corpus: Path, shared_folder: Path, tmp_path: Path) -> None:
    config = run_config(corpus, shared_folder, policy=QAT)
    run(config, tmp_path, name="qat")
    model, policy, again, tokenizer = load_checkpoint(tmp_path / "last.ckpt")
    assert again == config
    assert tokenizer.size == 29
    assert [bits.weight for bits in policy.bit_map(model.shapes()).values()] == [4] * 6
    assert not model.training


def test_a_checkpoint_of_many_steps_is_read_back(tmp_path: Path) -> None:
    """Also one whose beginning was written when the numbers of all steps were lists."""
    before, after = (Progress("long", 400_000, Waiting()) for _ in range(2))
    before.load_state_dict({name: [0.1] * 400_000 for name in BY_STEP})
    torch.save({"Progress": before.state_dict()}, tmp_path / "last.ckpt")
    after.load_state_dict(read_checkpoint(tmp_path / "last.ckpt")["Progress"])
    assert after.losses == after.step_s == after.wait_s == [0.1] * 400_000


# Killed, interrupted


def training(config: RunConfig, folder: Path) -> "subprocess.Popen[str]":
    """`qstudy train` in a process of its own."""
    path = folder.with_suffix(".yaml")
    path.write_text(yaml.safe_dump(to_dict(config)))
    command = [sys.executable, "-m", "qstudy", "train", "--config", str(path), "--out", str(folder)]
    root = str(Path(__file__).parents[1])
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": root}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for_another(checkpoint: Path, process: "subprocess.Popen[str]") -> None:
    """Until the checkpoint was written anew."""

    def version() -> int:
        return checkpoint.stat().st_mtime_ns if checkpoint.exists() else 0

    before = version()
    while version() == before:
        assert process.poll() is None, process.communicate()
        time.sleep(0.005)


def test_killed_then_interrupted_then_finished(corpus: Path, shared_folder: Path, tmp_path: Path) -> None:
    schedule = {"steps": 60, "checkpoint_every": 1, "batch_size": 24}
    config = run_config(corpus, shared_folder, training=schedule)
    folder = tmp_path / "killed"
    killed = training(config, folder)
    wait_for_another(folder / "last.ckpt", killed)
    os.kill(killed.pid, signal.SIGKILL)
    killed.communicate()
    interrupted = training(config, folder)
    wait_for_another(folder / "last.ckpt", interrupted)
    os.kill(interrupted.pid, signal.SIGINT)
    _, said = interrupted.communicate()
    assert interrupted.returncode == 130, said
    assert said.splitlines()[-1] == "Interrupted; the same command goes on where it stopped."
    assert "Traceback" not in said
    assert 1 < int(weights(folder)["step"]) < 60
    assert not list(folder.glob(".*.tmp"))
    run(config, folder, name="float")
    run(config, tmp_path / "straight", name="float")
    assert_same(tmp_path / "straight", folder)


def test_sigterm_leaves_a_checkpoint_as_ctrl_c_does(corpus: Path, shared_folder: Path, tmp_path: Path) -> None:
    config = run_config(corpus, shared_folder, training={"evaluate_every": 4, "checkpoint_every": 100})
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt):
        run(config, tmp_path, name="float", report=lambda step, wer: signal.raise_signal(signal.SIGTERM))
    assert int(weights(tmp_path)["step"]) == 5
    assert signal.getsignal(signal.SIGTERM) == before


def test_ctrl_c_in_the_evaluation_after_the_last_step_is_heard(
    corpus: Path, shared_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = run_config(corpus, shared_folder, training={"steps": 2, "evaluate_every": 2})
    with monkeypatch.context() as patched:
        patched.setattr(TransducerModule, "validation_step", lambda *_: signal.raise_signal(signal.SIGINT))
        with pytest.raises(KeyboardInterrupt):
            run(config, tmp_path, name="float")
    assert int(weights(tmp_path)["step"]) == 2
    assert run(config, tmp_path, name="float").steps == 2


def test_a_training_leaves_neither_handlers_nor_its_model_behind(
    corpus: Path, shared_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Already while the model is evaluated, SIGTERM does what it did before."""
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    models: list[weakref.ref[RNNT]] = []

    def concluding(model: RNNT, *arguments: Any, **entries: Any) -> Record:
        models.append(weakref.ref(model))
        assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
        return conclude(model, *arguments, **entries)

    monkeypatch.setattr("qstudy.training.run.conclude", concluding)
    run(run_config(corpus, shared_folder, training={"steps": 2}), tmp_path, name="float")
    gc.collect()
    assert [model() for model in models] == [None]


def test_no_steps_leave_another_runs_folder_alone(corpus: Path, shared_folder: Path, tmp_path: Path) -> None:
    run(run_config(corpus, shared_folder, policy=QAT), tmp_path, name="qat")
    model = (tmp_path / "model.qst").read_bytes()
    with pytest.raises(UserError, match=r"holds another run \(last\.ckpt\)"):
        run(run_config(corpus, shared_folder, policy=QAT, finetune={"steps": 0}), tmp_path, name="calibrated")
    assert (tmp_path / "model.qst").read_bytes() == model


def test_calibration_is_without_dropout(corpus: Path, shared_folder: Path, tmp_path: Path) -> None:
    """The ranges are those of the model that evaluates, and nothing that dropout draws reaches them."""
    run(run_config(corpus, shared_folder, training={"steps": 2}), tmp_path, name="float")

    def ranges(dropout: float) -> torch.Tensor:
        encoder = {"name": "lstm", "hidden": 24, "layers": 1, "stack": 3, "reduction": 3, "dropout": dropout}
        options = {"model": {"encoder": encoder}, "start": str(tmp_path / "model.qst"), "policy": QAT}
        model, _ = calibrated(run_config(corpus, shared_folder, **options))
        return torch.stack([quantizer.qparams() for quantizer in activation_quantizers(model)])

    assert torch.equal(ranges(0.5), ranges(0.0))


def test_ctc_in_the_second_half_alone_has_its_head(corpus: Path, tmp_path: Path) -> None:
    config = run_config(corpus, tmp_path, training={"ctc_weight": 0.0, "ctc_late": 0.5})
    model = RNNT(config.model, config.features, TOKENIZER.size)
    assert TransducerModule(model, build_policy({"name": "float"}), config.training, TOKENIZER, 0).ctc is not None
