"""Packed encoders that stream say the same of 50 real recordings in pieces as of the whole."""

from typing import Any

import numpy as np
import pytest
from real_speech import recordings
from tiny import FEATURES, LSTM, filled, packed, talkative
from torch import Tensor

from qstudy.model import ModelConfig
from qstudy.recognize.recognizer import Recognizer, RecognizerStream, recognizer_from_packed

pytestmark = pytest.mark.usefixtures("one_thread")  # small tensors

COUNT = 50
CONFORMER: dict[str, Any] = {
    "name": "conformer",
    "size": 16,
    "blocks": 2,
    "heads": 2,
    "kernel": 5,
    "left": 6,
    "stack": 2,
    "reduction": 2,
    "running_mean": 20,
}
ENCODERS: dict[str, dict[str, Any]] = {
    "conformer": CONFORMER,
    "cascaded": {
        "name": "cascaded",
        "first": {**CONFORMER, "stack": 4},  # decoding, twice, takes most of the time
        "second": {"blocks": 1, "heads": 2, "kernel": 5, "right": 3},
    },
}
POLICY = {"name": "native_int", "layers": {"*": {"weight": 4, "activation": 8}}}


def device(encoder: str) -> Recognizer:
    config = ModelConfig(ENCODERS[encoder], dict(LSTM), {"hidden": 12})
    model = talkative(config)
    return recognizer_from_packed(packed(model, filled(model, POLICY), config))


def pieces(wave: Tensor, index: int, chunk_frames: int) -> list[Tensor]:
    """As long as a feature frame, as an encoder frame, or of any lengths: in turn."""
    frame = int(FEATURES.hop_ms * FEATURES.sample_rate // 1000)
    edges = np.sort(np.random.default_rng(index).integers(0, len(wave), 12)).tolist()
    ways = [wave.split(frame), wave.split(frame * chunk_frames), wave.tensor_split(edges)]
    return list(ways[index % 3])


@pytest.mark.parametrize("encoder", ENCODERS)
def test_in_pieces_as_in_one(encoder: str) -> None:
    recognizer, said, differing = device(encoder), set(), 0
    for index, wave in enumerate(recordings(COUNT)):
        stream = RecognizerStream(recognizer)
        for piece in pieces(wave, index, recognizer.model.encoder.chunk_frames):
            stream.accept(piece)
        whole = recognizer.transcribe(wave)
        differing += stream.finish() != whole
        said.add(whole)
    print(f"{encoder}: {differing} of {COUNT} hypotheses differ")
    assert differing == 0
    assert len(said) == COUNT
