"""`precision`: bfloat16 where the device multiplies in it, one sentence where it is asked for in vain."""

from pathlib import Path

import pytest
import torch
from processors import on_x86, python_on
from tiny import filled, run_config, speech, talkative

from qstudy.files import read_json
from qstudy.model import ModelConfig
from qstudy.quant import bfloat16
from qstudy.training.devices import used_precision
from qstudy.training.module import joiner_loss
from qstudy.training.run import run

HEAD = {"predictor": {"name": "lstm", "hidden": 16, "embedding": 8}, "joiner": {"hidden": 12}}


@on_x86
def test_auto_is_float32_where_onednn_has_no_bfloat16() -> None:
    said = "from qstudy.training.devices import used_precision; print(used_precision('auto', 'cpu'))"
    done = python_on("AVX2", "-c", said)
    assert (done.returncode, done.stdout.strip()) == (0, "32-true"), done.stderr


@on_x86
def test_what_the_device_lacks_is_said_before_anything_is_made(tmp_path: Path) -> None:
    corpus = tmp_path / "corpus"
    data = ["--data.train", str(corpus / "train.jsonl"), "--data.dev", str(corpus / "dev.jsonl")]
    make = ["--data.make", f"{{corpus: commands, out: {corpus}, train: 4, dev: 2, test: 2}}"]
    options = ["--training.precision", "bf16-mixed", "--policy", "{name: fake_qat}", "--out", str(tmp_path / "run")]
    done = python_on("AVX2", "-m", "qstudy", "train", *data, *make, *options)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "bf16-mixed" in done.stderr
    assert "precision: auto" in done.stderr
    assert not list(tmp_path.iterdir())


def test_the_record_says_what_auto_was(corpus: Path, tmp_path: Path) -> None:
    config = run_config(corpus, tmp_path, training={"precision": "auto", "steps": 2})
    record = run(config, tmp_path / "run", name="float")
    assert record.precision == used_precision("auto")
    written = read_json(tmp_path / "run" / "record.json")
    assert written["config"]["training"]["precision"] == "auto"  # so that a study is one study on every machine


@pytest.mark.skipif(not bfloat16.computes("cpu"), reason="needs a processor with an LSTM in bfloat16")
def test_what_is_asked_for_is_used() -> None:
    assert used_precision("bf16-mixed", "cpu") == "bf16-mixed"
    assert used_precision("32-true", "cpu") == "32-true"


def test_trying_leaves_random_numbers_alone() -> None:
    bfloat16.computes.cache_clear()
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    with torch.no_grad():  # as while calibrating
        bfloat16.computes("cpu")
    assert torch.equal(torch.rand(3), expected)


def test_all_in_integers_trains_alike_in_either() -> None:
    """Integer products leave nothing to autocast, and `native_int` asks for float32 gradients by default."""
    config = ModelConfig({"name": "conformer", "size": 24, "blocks": 2, "heads": 3, "kernel": 5, "stack": 2}, **HEAD)
    model, x = talkative(config), speech()
    filled(model, {"name": "native_int", "layers": {"*": {"weight": 4, "activation": 8}}})
    found = []
    for precision in (False, True):
        model.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=precision):
            encoded, frames, _ = model.encoder(x, torch.full((len(x),), x.shape[1]))
            targets = torch.ones(len(x), 5, dtype=torch.int64)
            loss = joiner_loss(
                model.joiner, encoded, model.predictor(targets), targets, frames, torch.full((len(x),), 5)
            )
        loss.backward()
        found.append([loss.detach(), *(each.grad for each in model.parameters() if each.grad is not None)])
    assert all(torch.equal(*pair) for pair in zip(*found, strict=True))
