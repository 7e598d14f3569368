"""Recognizers: a stream of any pieces gives the text of the whole, whatever form the model is in."""

import itertools
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import FEATURES, TOKENIZER, filled, model_config, packed, talkative

from qstudy.cli import main
from qstudy.data.audio import read_audio, write_flac
from qstudy.data.manifest import Utterance, read_manifest, write_manifest
from qstudy.model import RNNT
from qstudy.quant.packed.model import PackedModel, pack_model
from qstudy.recognize.recognizer import Recognizer, RecognizerStream, describe, recognizer_from_packed
from qstudy.settings import ModelConfig
from qstudy.training.load import load_recognizer


def device(running_mean: int, layers: dict[str, dict[str, int]]) -> PackedModel:
    config = model_config(running_mean=running_mean)
    model = talkative(config)
    return packed(model, filled(model, {"name": "ptq", "layers": layers}), config)


RECOGNIZERS = {
    "float": Recognizer(talkative(), FEATURES, TOKENIZER),
    "packed": recognizer_from_packed(device(0, {"*": {"weight": 4}})),
    "packed, running mean": recognizer_from_packed(device(30, {"*": {"weight": 4}})),
}


def sound(seconds: float, seed: int) -> torch.Tensor:
    """Something that changes all the time, as speech does."""
    generator = np.random.default_rng(seed)
    hz, loudness = (np.repeat(generator.uniform(*ends, 50), 800) for ends in ((100, 7000), (0, 0.3)))
    count = int(16000 * seconds)
    samples = loudness[:count] * np.sin(2 * np.pi * np.cumsum(hz[:count]) / 16000)
    return torch.from_numpy((samples + 0.001 * generator.standard_normal(count)).astype(np.float32))


@pytest.mark.parametrize("form", RECOGNIZERS)
@settings(max_examples=8)
@given(cuts=st.lists(st.integers(0, 16000), max_size=20), seed=st.integers(0, 30))
def test_streaming_is_the_whole(form: str, cuts: list[int], seed: int) -> None:
    recognizer, samples = RECOGNIZERS[form], sound(1.0, seed)
    stream = RecognizerStream(recognizer)
    texts = [""]
    edges = sorted({0, *cuts, 16000})
    for begin, end in itertools.pairwise(edges):
        texts.append(stream.accept(samples[begin:end]))
        assert texts[-1].startswith(texts[-2])  # what was said stays said
    whole = recognizer.transcribe(samples)
    assert stream.finish() == whole


@pytest.mark.parametrize("form", RECOGNIZERS)
def test_an_utterance_ends_once(form: str) -> None:
    """Its hypotheses and its text, asked for in any order and as often as one likes, are of the same sound."""
    stream = RecognizerStream(RECOGNIZERS[form])
    stream.accept(sound(1.0, 3))
    first = stream.hypotheses()
    assert TOKENIZER.decode(first[0].labels) == stream.finish() == stream.finish()
    assert stream.hypotheses() == first
    with pytest.raises(ValueError, match="has ended"):
        stream.accept(sound(0.1, 0))


def test_the_model_has_something_to_say() -> None:
    for recognizer in RECOGNIZERS.values():
        texts = {recognizer.transcribe(sound(1.0, seed)) for seed in range(5)}
        assert len(texts) == 5


W8A8 = {"layers": {"*": {"weight": 8, "activation": 8}}}


@pytest.mark.parametrize(
    "policy",
    [
        {"name": "float"},
        {"name": "ptq", "layers": {"*": {"weight": 4}}},
        *({"name": name, **W8A8} for name in ("ptq", "fake_qat", "native_int", "s8bqat", "accelerator_aware")),
        {"name": "int4_e2e"},
    ],
    ids=lambda policy: f"{policy['name']} {len(policy)}",
)
def test_hardly_any_sound(policy: dict[str, Any]) -> None:
    """Without a tail of silence, an utterance can be shorter than a frame, or than one of the encoder's."""
    model = talkative()
    loaded = recognizer_from_packed(packed(model, filled(model, policy))).model
    features = replace(FEATURES, tail_ms=0.0)
    for recognizer in (Recognizer(model, features, TOKENIZER), Recognizer(loaded, features, TOKENIZER)):
        for count in (0, 1, 399, 400, 879, 880):  # 880 samples are the encoder's first frame
            stream = RecognizerStream(recognizer)
            stream.accept(sound(1.0, 1)[:count])
            text = stream.finish()
            assert text == recognizer.transcribe(sound(1.0, 1)[:count])
            assert not text or count == 880


def test_an_utterance_without_an_encoder_frame(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """0.1 s, 8 frames of features; the encoder wants 9 for one of its own."""
    config = ModelConfig({"name": "lstm", "hidden": 8, "layers": 1, "stack": 3, "reduction": 3}, {"name": "lstm"}, {})
    model = RNNT(config, FEATURES, TOKENIZER.size)
    bit_map = filled(model, {"name": "float"}).bit_map(model.shapes())
    header = describe(config, replace(FEATURES, tail_ms=0.0), TOKENIZER, {"name": "float"})
    pack_model(model, bit_map, model.shapes(), header).save(tmp_path / "model.qst")
    write_flac(tmp_path / "a.flac", 0.1 * sound(0.1, 1).numpy(), 16000)
    write_manifest(tmp_path / "m.jsonl", [Utterance(tmp_path / "a.flac", 0.1, "one two")])
    command = ["transcribe", str(tmp_path / "model.qst"), str(tmp_path / "a.flac")]
    for stream in ([], ["--stream"]):
        main([*command, *stream])
        assert capsys.readouterr().out == "\n"
        main([*command, *stream, "--decode", "beam", "--nbest", "2"])
        assert capsys.readouterr().out == "    0.000  \n"
    options = ["--manifest", str(tmp_path / "m.jsonl"), "--cache", str(tmp_path / "cache"), "--json"]
    main(["evaluate", str(tmp_path / "model.qst"), *options])
    scores = json.loads(capsys.readouterr().out)
    assert (scores["deletions"], scores["wer"]) == (2, 1.0)


def test_a_cut_wav_is_not_transcribed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    device(0, {"*": {"weight": 4}}).save(tmp_path / "model.qst")
    soundfile.write(tmp_path / "whole.wav", sound(1.0, 1).numpy(), 16000)
    (tmp_path / "cut.wav").write_bytes((tmp_path / "whole.wav").read_bytes()[:20_000])
    main(["transcribe", str(tmp_path / "model.qst"), str(tmp_path / "whole.wav")])
    with pytest.raises(SystemExit) as stopped:
        main(["transcribe", str(tmp_path / "model.qst"), str(tmp_path / "cut.wav")])
    assert stopped.value.code == 2
    assert f"{tmp_path / 'cut.wav'} is cut short" in capsys.readouterr().err


def test_transcribe_prints_the_same_text_streaming_or_not(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "model.qst"
    device(0, {"*": {"weight": 4, "activation": 8}}).save(path)
    files = [utterance.audio for utterance in read_manifest(corpus / "test.jsonl")[:2]]
    main(["transcribe", str(path), *map(str, files)])
    whole = capsys.readouterr().out
    main(["transcribe", str(path), *map(str, files), "--stream"])
    assert capsys.readouterr().out == whole
    recognizer = load_recognizer(path)
    texts = [recognizer.transcribe(torch.from_numpy(read_audio(file))) for file in files]
    assert whole.splitlines() == [f"{file}: {text}" for file, text in zip(files, texts, strict=True)]
    main(["transcribe", str(path), str(files[0])])
    assert capsys.readouterr().out == f"{texts[0]}\n"
