"""Recognizers: a stream of any pieces gives the text of the whole, whatever form the model is in."""

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import FEATURES, TOKENIZER, filled, model_config, packed, talkative

from qstudy.cli import main
from qstudy.data.audio import read_audio
from qstudy.data.manifest import read_manifest
from qstudy.load import load_recognizer
from qstudy.quant.packed import PackedModel
from qstudy.recognizer import Recognizer, RecognizerStream, recognizer_from_packed


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


def test_the_model_has_something_to_say() -> None:
    for recognizer in RECOGNIZERS.values():
        texts = {recognizer.transcribe(sound(1.0, seed)) for seed in range(5)}
        assert len(texts) == 5


@pytest.mark.parametrize("count", [0, 1, 100, 399, 400])
def test_hardly_any_sound(count: int) -> None:
    recognizer = RECOGNIZERS["float"]
    stream = RecognizerStream(recognizer)
    stream.accept(torch.zeros(count))
    assert stream.finish() == recognizer.transcribe(torch.zeros(count))


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
