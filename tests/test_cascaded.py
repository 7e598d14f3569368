"""The cascaded encoder: the first pass streams, the second replaces its text, and both are trained and decoded."""

import json
import os
import pty
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from real_speech import recordings
from tiny import FEATURES, LSTM, TOKENIZER, filled, packed, run_config, speech, talkative
from torch import nn

from qstudy.cli import main
from qstudy.data.audio import read_audio, write_flac
from qstudy.data.manifest import Utterance, write_manifest
from qstudy.errors import UserError
from qstudy.hardware.accelerator import load_accelerator
from qstudy.hardware.simulator import simulate
from qstudy.hardware.workload import layer_operators, workload
from qstudy.model import RNNT, ModelConfig
from qstudy.model.encoders.conformer import ConformerEncoder
from qstudy.quant.layers import training_slots
from qstudy.quant.packed.model import PackedModel
from qstudy.recognize.greedy import greedy_labels
from qstudy.recognize.recognizer import Recognizer, RecognizerStream, recognizer_from_packed
from qstudy.training.load import load_recognizer
from qstudy.training.run import run

pytestmark = pytest.mark.usefixtures("one_thread")  # small tensors

SMALL = {"size": 12, "blocks": 1, "heads": 2, "kernel": 5, "left": 6}
FIRSTS: dict[str, dict[str, Any]] = {
    "conformer": {"name": "conformer", **SMALL, "stack": 2, "reduction": 2, "running_mean": 20},
    "lstm": {"name": "lstm", "hidden": 16, "layers": 1, "stack": 2, "reduction": 2},
}
SECOND = {"blocks": 1, "heads": 2, "kernel": 5, "left": 6, "right": 3}
PER_PASS: dict[str, Any] = {
    "name": "native_int",
    "layers": {"*": {"weight": 8, "activation": 8}, "encoder.first.*": {"weight": 4}},
}
FRAMES = 80


def config(kind: str = "conformer", **options: Any) -> ModelConfig:
    encoder = {"name": "cascaded", "first": FIRSTS[kind], "second": SECOND, **options}
    return ModelConfig(encoder, dict(LSTM), {"hidden": 12})


def device(first: str) -> PackedModel:
    model = talkative(config(first))
    return packed(model, filled(model, PER_PASS), config(first))


RECOGNIZERS = {
    **{first: Recognizer(talkative(config(first)), FEATURES, TOKENIZER) for first in FIRSTS},
    **{f"{first}, packed": recognizer_from_packed(device(first)) for first in FIRSTS},
}
every_form = pytest.mark.parametrize("form", RECOGNIZERS)


def first_alone(recognizer: Recognizer) -> Recognizer:
    """The same with the first pass for an encoder."""
    model = talkative(config("lstm"))
    model.encoder, model.predictor, model.joiner = (
        recognizer.model.encoder.first_pass,
        recognizer.model.predictor,
        recognizer.model.joiner,
    )
    return Recognizer(model, FEATURES, TOKENIZER)


@every_form
@pytest.mark.parametrize("which", range(2))
def test_the_first_passs_text_grows_and_the_seconds_replaces_it(form: str, which: int) -> None:
    recognizer, wave = RECOGNIZERS[form], recordings(2)[which]
    edges = np.sort(np.random.default_rng(which).integers(0, len(wave), 8)).tolist()
    stream, alone = RecognizerStream(recognizer), RecognizerStream(first_alone(recognizer))
    for piece in wave.tensor_split(edges):
        assert stream.accept(piece) == alone.accept(piece)
    assert alone.finish() == first_alone(recognizer).transcribe(wave)
    assert stream.finish() == recognizer.transcribe(wave)


@every_form
def test_the_passes_say_different_things(form: str) -> None:
    recognizer = RECOGNIZERS[form]
    first, last = ([each.transcribe(wave) for wave in recordings(3)] for each in (first_alone(recognizer), recognizer))
    assert len({*first}) == len({*last}) == 3
    assert all(one != other for one, other in zip(first, last, strict=True))


def test_either_pass_can_be_chosen_again() -> None:
    recognizer = recognizer_from_packed(device("lstm"))
    first, last = (make(recognizer).transcribe(recordings(1)[0]) for make in (first_alone, lambda whole: whole))
    for which, text in [("first", first), ("last", last), ("first", first), ("first", first), ("last", last)]:
        recognizer.decode_from(which)
        assert recognizer.transcribe(recordings(1)[0]) == text


def test_a_stream_is_of_the_pass_that_was_chosen() -> None:
    """The first pass alone has a program of its own."""
    recognizer, wave = recognizer_from_packed(device("lstm")), recordings(1)[0]
    for which in ("last", "first", "last", "first"):
        recognizer.decode_from(which)
        assert (recognizer.live_stream() is not None) == (which == "first")
        stream = RecognizerStream(recognizer)
        stream.accept(wave)
        assert stream.finish() == recognizer.transcribe(wave)


@every_form
@pytest.mark.parametrize("samples", [0, 400, 879, 880, 2000])
def test_hardly_any_sound(form: str, samples: int) -> None:
    known = RECOGNIZERS[form]
    recognizer = Recognizer(known.model, replace(FEATURES, tail_ms=0.0), TOKENIZER)
    stream, wave = RecognizerStream(recognizer), recordings(1)[0][:samples]
    stream.accept(wave)
    assert stream.finish() == recognizer.transcribe(wave)


@pytest.mark.parametrize("first", FIRSTS)
@torch.no_grad()
def test_what_the_passes_are(first: str) -> None:
    encoder, x, lengths = talkative(config(first)).encoder, speech(3, FRAMES), torch.tensor([FRAMES, 41, 7])
    (one, two), valid = encoder.passes(x, lengths)
    assert valid.tolist() == [20, 10, 1]
    assert torch.equal(one, encoder.first_pass(x, lengths)[0])
    assert torch.equal(two, encoder(x, lengths)[0])
    assert torch.equal(two, encoder.refine(one, valid))
    assert one.shape == two.shape == (3, 20, encoder.output_size)
    for index, length in enumerate(lengths.tolist()):  # what comes after the end is not heard
        alone = encoder(x[index : index + 1, :length], torch.tensor([length]))[0]
        torch.testing.assert_close(two[index, : length // 4], alone[0], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("size", [32, 12], ids=["the first's size", "its own"])
def test_the_second_pass_has_any_size(size: int) -> None:
    encoder = talkative(config("lstm", second={**SECOND, "size": size})).encoder
    assert encoder.output_size == 32
    assert (
        isinstance(encoder.second.input, nn.Identity) == isinstance(encoder.second.output, nn.Identity) == (size == 32)
    )
    assert encoder(speech(1, FRAMES), torch.tensor([FRAMES]))[0].shape == (1, 20, 32)


@pytest.mark.parametrize("first", FIRSTS)
@pytest.mark.parametrize("weight", [1.0, 0.3, 0.0])
def test_gradients_come_from_both_passes_by_their_weights(first: str, weight: float) -> None:
    model = talkative(config(first, first_weight=weight)).train()
    passes, _ = model.encoder.passes(speech(3, FRAMES), torch.tensor([FRAMES, 41, 7]))
    assert model.encoder.pass_weights == (weight, 1 - weight)
    sum(w * each.square().sum() for w, each in zip(model.encoder.pass_weights, passes, strict=True)).backward()
    for name, parameter in model.encoder.named_parameters():
        assert parameter.grad is not None
        learns = bool(parameter.grad.abs().sum() > 0)
        assert learns == (name.startswith("first.") or weight < 1), name


def test_it_is_priced_without_being_made() -> None:
    with torch.device("meta"):
        model = RNNT(config(), FEATURES, TOKENIZER.size)
    shapes = {shape.name: shape for shape in model.shapes()}
    state = {name for name in talkative(config()).encoder.state_dict() if not name.startswith("first.normalize.")}
    priced = sum(shape.parameters for name, shape in shapes.items() if name.startswith("encoder."))
    assert priced == sum(talkative(config()).encoder.state_dict()[name].numel() for name in state)
    for name, shape in shapes.items():
        assert shape.after_end == (not name.startswith(("encoder.first.", "encoder.normalize"))), name
    scores = shapes["encoder.second.blocks.0.attention.scores"]
    assert (scores.every_ms, scores.frames) == (FEATURES.hop_ms * 4, 4000 / (FEATURES.hop_ms * 4))


def test_decoding_is_priced_once_for_each_pass() -> None:
    with torch.device("meta"):
        shapes = RNNT(config(), FEATURES, TOKENIZER.size).shapes()
    operators = workload(shapes, {}).operators
    decoding = {op.name: op for op in operators if not op.layer.startswith("encoder.")}
    last = {name for name, op in decoding.items() if op.after_end}
    assert {name for name in decoding if name not in last} == {f"{name}/first" for name in last}
    for name in last:
        assert decoding[f"{name}/first"] == replace(decoding[name], name=f"{name}/first", after_end=False)
    waits = [op.after_end for op in operators]
    assert waits == sorted(waits)
    assert all(op.after_end == op.name.startswith("encoder.second.") for op in operators if op.name not in decoding)
    report = simulate(workload(shapes, {}), load_accelerator("cortex_a76"))
    loads = {each.name: each.load for each in report.operators}
    assert loads["joiner.output/first"] == loads["joiner.output"] > 0


def test_a_model_with_one_pass_decodes_once() -> None:
    with torch.device("meta"):
        one = RNNT(ModelConfig(FIRSTS["lstm"], dict(LSTM), {"hidden": 12}), FEATURES, TOKENIZER.size)
        ahead = {"name": "bilstm", "hidden": 8, "layers": 1}
        whole = RNNT(ModelConfig(ahead, dict(LSTM), {"hidden": 12}), FEATURES, TOKENIZER.size)
    for model in (one, whole):
        operators = workload(model.shapes(), {}).operators
        assert len(operators) == sum(len(layer_operators(shape)) for shape in model.shapes())


def test_files_from_before_both_were_priced_are_read(tmp_path: Path) -> None:
    made = device("lstm")
    assert {shape.pop("twice") for shape in made.header["shapes"]} == {True, False}
    made.save(tmp_path / "old.qst")
    load_recognizer(tmp_path / "old.qst")


@pytest.mark.parametrize("first", FIRSTS)
@torch.no_grad()
def test_each_pass_has_its_own_widths_and_the_packed_file_says_the_same(first: str, tmp_path: Path) -> None:
    model = talkative(config(first))
    policy = filled(model, PER_PASS)
    bit_map = policy.bit_map(model.shapes())
    widths = {name: bits.weight for name, bits in bit_map.items() if bits.quantized and bits.weight != 32}
    assert {width for name, width in widths.items() if name.startswith("encoder.first.")} == {4}
    assert {width for name, width in widths.items() if not name.startswith("encoder.first.")} == {8}
    assert all(slot for name, slot in training_slots(model).items() if bit_map[name].quantized)
    packed(model, policy, config(first)).save(tmp_path / "model.qst")
    loaded = load_recognizer(tmp_path / "model.qst").model
    x, lengths = speech(3, FRAMES, seed=5), torch.tensor([FRAMES, 60, 33])
    for ours, theirs in zip(model.encoder.passes(x, lengths)[0], loaded.encoder.passes(x, lengths)[0], strict=True):
        assert torch.equal(ours, theirs)
    said = greedy_labels(model, x, lengths)
    assert said == greedy_labels(loaded, x, lengths)
    assert len({*map(tuple, said)}) == 3


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"first": {"name": "conformer", **SMALL, "right": 2}}, "model.encoder.first: 'conformer' does not stream"),
        (
            {"first": {"name": "cascaded", "first": FIRSTS["lstm"], "second": {}}},
            "model.encoder.first: 'cascaded' is not known",
        ),
        ({"first": {"hidden": 8}}, "model.encoder.first: None is not known"),
        ({"first": {"name": "lstm", "width": 8}}, "model.encoder.first: 'lstm'"),
        ({"second": {"width": 8}}, "model.encoder.second.width: there is no such field"),
        ({"second": {"heads": 5}}, "model.encoder.second.heads: 5 heads"),
        ({"first_weight": 2.0}, "model.encoder.first_weight: 2.0"),
    ],
    ids=["looks ahead", "cascaded", "no name", "option", "field", "heads", "weight"],
)
def test_what_cannot_be_is_one_sentence(options: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError) as error, torch.device("meta"):
        RNNT(config(**options), FEATURES, TOKENIZER.size)
    assert said in str(error.value)


def test_the_command_line_decodes_either_pass(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    device("conformer").save(tmp_path / "model.qst")
    write_flac(tmp_path / "a.flac", recordings(1)[0].numpy(), 16000)
    recognizer, wave = load_recognizer(tmp_path / "model.qst"), torch.from_numpy(read_audio(tmp_path / "a.flac"))
    texts = {"first": first_alone(recognizer).transcribe(wave), "last": recognizer.transcribe(wave)}
    for which, stream in [("first", False), ("first", True), ("last", False), ("last", True)]:
        arguments = ["transcribe", str(tmp_path / "model.qst"), str(tmp_path / "a.flac"), *["--stream"] * stream]
        main([*arguments, "--pass", which])
        assert capsys.readouterr().out == f"{texts[which]}\n"
    write_manifest(tmp_path / "m.jsonl", [Utterance(tmp_path / "a.flac", len(wave) / 16000, texts["first"])])
    for which in texts:
        options = ["--manifest", str(tmp_path / "m.jsonl"), "--cache", str(tmp_path / "cache"), "--json"]
        main(["evaluate", str(tmp_path / "model.qst"), *options, "--pass", which])
        scores = json.loads(capsys.readouterr().out)
        assert scores["pass"] == which
        assert (scores["wer"] == 0) == (which == "first")


def test_a_terminal_shows_the_last_text_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What the first pass said is cleared: it may be longer than what replaces it."""
    device("conformer").save(tmp_path / "model.qst")
    write_flac(tmp_path / "a.flac", recordings(1)[0].numpy(), 16000)
    here, there = pty.openpty()
    with os.fdopen(here, "rb", 0) as screen, os.fdopen(there, "w", encoding="utf-8") as terminal:
        monkeypatch.setattr(sys, "stderr", terminal)
        main(["transcribe", str(tmp_path / "model.qst"), str(tmp_path / "a.flac"), "--stream"])
        terminal.flush()
        shown = screen.read(65536).decode()
    assert shown.count("\r") > 2
    assert shown.count("\r") == shown.count("\r\x1b[K")
    assert shown.endswith("\r\x1b[K")


def test_a_model_with_one_pass_has_no_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = talkative()
    packed(model, filled(model, {"name": "float"})).save(tmp_path / "model.qst")
    with pytest.raises(SystemExit) as stopped:
        main(["evaluate", str(tmp_path / "model.qst"), "--manifest", str(tmp_path / "m.jsonl"), "--pass", "first"])
    assert stopped.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_a_first_pass_may_choose_its_branch(corpus: Path, tmp_path: Path) -> None:
    """What it left out is counted, and the backlog simulated, on all of the encoder."""
    first = {"name": "amortized", "hidden": 16, "layers": 1, "stack": 2, "reduction": 2, "rank": 4}
    encoder = {"name": "cascaded", "first": first, "second": {**SECOND, "size": 24}}
    changes = {"model": {"encoder": encoder}, "training": {"steps": 2}, "accelerator": ["edge_nna"]}
    record = run(run_config(corpus, tmp_path, **changes), tmp_path / "float", name="float")
    assert record.usage["dev"]["backlog"]
    assert record.first_pass.keys() == record.metrics.keys()


def test_it_trains_and_the_record_has_both_passes(corpus: Path, tmp_path: Path) -> None:
    encoder = {
        "name": "cascaded",
        "first": {"name": "conformer", **SMALL, "size": 24, "stack": 3, "reduction": 3, "running_mean": 20},
        "second": {**SECOND, "size": 24, "dropout": 0.1},
        "first_weight": 0.4,
    }
    schedule = {"steps": 40, "learning_rate": 5e-3, "ctc_only": 0.2}
    changes = {"model": {"encoder": encoder}, "training": schedule}
    record = run(run_config(corpus, tmp_path, **changes), tmp_path / "float", name="float")
    assert record.loss["last"] < 0.8 * record.loss["first"]
    assert record.first_pass.keys() == record.metrics.keys()
    assert record.first_pass["dev"]["utterances"] == 6
    alone = load_recognizer(tmp_path / "float" / "model.qst")
    alone.decode_from("first")
    assert isinstance(alone.model.encoder, ConformerEncoder)
    tuned = run(run_config(corpus, tmp_path, **changes, policy=PER_PASS), tmp_path / "qat", name="qat")
    assert tuned.state == "complete"
    assert tuned.metrics["dev"]["wer"] == tuned.training_model_wer
    assert tuned.first_pass["dev"]["words"] == record.first_pass["dev"]["words"]
