"""Parts in the user's own file: trained, packed, exported, streamed, evaluated, priced, with all that they store."""

import json
import os
import re
import shlex
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
import yaml
from tiny import FEATURES, TOKENIZER, filled, model_config, packed, run_config, talkative

from qstudy.cli import main
from qstudy.data.manifest import read_manifest
from qstudy.files import read_json
from qstudy.hardware.size import size_bytes
from qstudy.model import RNNT, ModelConfig
from qstudy.quant.packed.model import PackedModel
from qstudy.recognize.recognizer import Recognizer, RecognizerStream, recognizer_from_packed
from qstudy.training.checkpoint import pack_checkpoint
from qstudy.training.config import to_dict

ROOT = Path(__file__).parents[1]
POLICY = "{name: fake_qat, layers: {'*': {weight: 4, activation: 8}}}"


def printed() -> tuple[str, list[str]]:
    """The contributor's page: its encoder, and the option that names it."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    [code] = re.findall(r"```python\n(# my_encoder\.py\n.*?)```", text, re.DOTALL)
    [words] = re.findall(r"^qstudy train .*?(--model\.encoder .*)$", text, re.MULTILINE)
    return code, shlex.split(words)


@pytest.fixture(scope="module")
def folder(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the user works, after `qstudy train` in a process of its own: `my_encoder.py`, `run/`."""
    folder = tmp_path_factory.mktemp("own")
    code, words = printed()
    (folder / "my_encoder.py").write_text(code)
    (folder / "run.yaml").write_text(yaml.safe_dump(to_dict(run_config(corpus, folder))))
    train = ["train", "--config", "run.yaml", "--out", "run", "--policy", POLICY, "--training.ctc_only=0.4", *words]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "qstudy", *train], cwd=folder, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    (folder / "said.txt").write_text(done.stdout)
    return folder


@pytest.fixture(autouse=True)
def at_work(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """This process knows nothing of the user's file but what `--trust` says."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.delitem(sys.modules, "my_encoder", raising=False)


def test_it_is_packed_in_the_predicted_bytes_with_all_that_it_learned() -> None:
    record, file = read_json(Path("run/record.json")), PackedModel.load(Path("run/model.qst"))
    assert record["steps"] == 12
    assert record["size_bytes"] == file.size_bytes == sum(layer["bytes"] for layer in record["layers"].values())
    state = torch.load("run/last.ckpt", weights_only=True)["state_dict"]
    for name in ("convolution.weight", "convolution.bias", "norm.weight", "norm.bias", "normalize.deviation"):
        assert torch.equal(file.tensors[f"encoder.{name}"], state[f"model.encoder.{name}"])
    assert not torch.equal(file.tensors["encoder.norm.weight"], torch.ones(96))  # it was trained
    assert file.bit_map["encoder.lstm"].weight == 4
    assert list(file.bit_map) == [shape.name for shape in file.shapes if shape.kind != "constant"]


@pytest.mark.parametrize("words", ["transcribe run/model.qst a.wav", "export run/last.ckpt --out a.qst"])
def test_no_model_file_runs_it_by_itself(words: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(words.split())
    assert stopped.value.code == 2
    assert "--trust my_encoder.py" in capsys.readouterr().err
    assert "my_encoder" not in sys.modules


def test_the_command_that_is_printed_next_takes_it(corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    [after_train] = re.findall(r"^Next: qstudy (.*)$", Path("said.txt").read_text(), re.MULTILINE)
    main(["export", "run/last.ckpt", "--out", "a.qst", "--trust", str(Path.cwd() / "my_encoder.py")])
    [after_export] = re.findall(r"^Next: qstudy (.*)$", capsys.readouterr().out, re.MULTILINE)
    sound = str(read_manifest(corpus / "dev.jsonl")[0].audio)
    for command in (after_train, after_export):
        assert command.endswith(" --trust my_encoder.py")
        sys.modules.pop("my_encoder", None)
        main(command.replace("some.wav", sound).split())


def test_every_command_takes_it(corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trust = ["--trust", "my_encoder.py"]
    main(["export", "run/last.ckpt", "--out", "exported.qst", *trust])
    assert Path("exported.qst").read_bytes() == Path("run/model.qst").read_bytes()
    capsys.readouterr()
    manifest = ["--manifest", str(corpus / "dev.jsonl"), "--cache", "cache", "--json"]
    main(["evaluate", "exported.qst", *manifest, *trust])
    assert json.loads(capsys.readouterr().out)["wer"] == read_json(Path("run/record.json"))["metrics"]["dev"]["wer"]
    sounds = [str(utterance.audio) for utterance in read_manifest(corpus / "dev.jsonl")[:3]]
    main(["transcribe", "exported.qst", *sounds, *trust])
    whole = capsys.readouterr().out
    main(["transcribe", "exported.qst", *sounds, "--stream", *trust])
    assert capsys.readouterr().out == whole
    reports = []
    for model in ("exported.qst", "run/last.ckpt"):
        main(["simulate", model, "--json", *trust])
        reports.append(json.loads(capsys.readouterr().out))
    layers = {operator["layer"] for operator in reports[0]["operators"]}
    assert {"encoder.convolution", "encoder.norm", "encoder.lstm"} <= layers
    assert reports[0]["operators"] == reports[1]["operators"]


WHOLE = '''
import torch
from qstudy.model import Encoder
from qstudy.quant.layers import Linear


class Backward(Encoder):
    """Every frame hears all that follows it: no stream can have it before the end."""

    streams = False

    def __init__(self, features):
        super().__init__(features)
        self.output_size, self.output_ms, self.chunk_frames = 16, 2 * features.hop_ms, 2
        self.project = Linear(2 * features.bins, 16)
        self.register_buffer("mask", torch.full((3, 3), -torch.inf).triu(1))

    def forward(self, features, lengths, state=None):
        x = self.normalize(features)[0]
        x = self.project(x[:, : x.shape[1] // 2 * 2].reshape(len(x), -1, 2 * x.shape[2]))
        return x.flip(1).cumsum(1).flip(1), lengths // 2, None
'''


@pytest.fixture
def backward(monkeypatch: pytest.MonkeyPatch) -> tuple[ModelConfig, RNNT]:
    """A model with that encoder, which the user's configuration names."""
    Path("backward.py").write_text(WHOLE)
    monkeypatch.delitem(sys.modules, "backward", raising=False)
    torch.manual_seed(5)
    config = ModelConfig({"name": "backward.Backward"}, joiner={"hidden": 8})
    return config, RNNT(config, FEATURES, TOKENIZER.size)


def test_a_mask_of_minus_infinity_survives_checkpoint_and_packing(backward: tuple[ModelConfig, RNNT]) -> None:
    config, model = backward
    run = run_config(Path("corpus"), Path("work"), model=asdict(config))
    state = {f"model.{name}": value for name, value in model.state_dict().items()}
    about = {"config": to_dict(run), "tokenizer": TOKENIZER.to_dict()}
    torch.save({"qstudy": about, "state_dict": state, "global_step": 3}, "masked.ckpt")
    file = pack_checkpoint(Path("masked.ckpt"))
    assert torch.equal(file.tensors["encoder.mask"], model.encoder.mask)
    assert torch.equal(recognizer_from_packed(file).model.encoder.mask, model.encoder.mask)


def test_an_encoder_that_wants_the_whole_gets_it(backward: tuple[ModelConfig, RNNT]) -> None:
    _, model = backward
    recognizer = Recognizer(model, FEATURES, TOKENIZER)
    samples = torch.randn(16000) * 0.1
    stream = RecognizerStream(recognizer)
    assert [stream.accept(piece) for piece in samples.split(1700)] == [""] * 10
    assert stream.finish() == recognizer.transcribe(samples) != ""


PARTS = '''
import torch
from torch import nn
from qstudy.model import Joiner, Predictor
from qstudy.quant.layers import Linear


class Last(Predictor):
    """The last label alone, looked up in a float table of torch's own."""

    def __init__(self, labels, size: int = 12):
        super().__init__()
        self.output_size = size
        self.table = nn.Embedding(labels, size)

    def forward(self, targets):
        return self.table(nn.functional.pad(targets, (1, 0)))

    def start(self, batch, device):
        return (torch.zeros(1, batch, 1, device=device),)

    def advance(self, labels, state):
        return self.table(labels), state


class Product(Joiner):
    """Both sides multiplied; one projection is none."""

    def __init__(self, encoder, predictor, labels, frame_ms):
        super().__init__()
        self.encoder, self.predictor = Linear(encoder, predictor), nn.Identity()
        self.output = Linear(predictor, labels)

    def join(self, encoded, predicted):
        return self.output(encoded * predicted)
'''


def test_a_predictor_and_a_joiner(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("my_parts.py").write_text(PARTS)
    monkeypatch.delitem(sys.modules, "my_parts", raising=False)
    config = ModelConfig(model_config().encoder, {"name": "my_parts.Last", "size": 16}, {"name": "my_parts.Product"})
    model = talkative(config)
    policy = filled(model, {"name": "ptq", "layers": {"*": {"weight": 8, "activation": 8}}})
    file = packed(model, policy, config)
    assert torch.equal(file.tensors["predictor.table.weight"], model.predictor.table.weight)
    assert file.size_bytes == size_bytes(model.shapes(), file.bit_map)
    loaded = recognizer_from_packed(file)
    texts = {loaded.transcribe(torch.randn(16000) * 0.1) for _ in range(3)}
    assert len(texts) == 3
    samples = torch.randn(16000) * 0.1
    stream = RecognizerStream(loaded)
    for piece in samples.split(1700):
        stream.accept(piece)
    assert stream.finish() == loaded.transcribe(samples) == Recognizer(model, FEATURES, TOKENIZER).transcribe(samples)
