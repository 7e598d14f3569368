"""What is trained is what is packed, for every encoder: no accumulator differs on 56 real utterances."""

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from real_speech import real_features, recordings
from test_bit_exact import UTTERANCES, compared, loaded_from
from tiny import FEATURES, LSTM, TOKENIZER, filled, packed, talkative

from qstudy.model import RNNT, ModelConfig
from qstudy.recognize.recognizer import Recognizer, RecognizerStream

CONFORMER: dict[str, Any] = {
    "name": "conformer",
    "size": 16,
    "blocks": 2,
    "heads": 2,
    "kernel": 5,
    "left": 6,
    "stack": 2,
}
AHEAD = {"right": 3, "causal": False}
CASCADED: dict[str, Any] = {
    "name": "cascaded",
    "first": {"name": "lstm", "hidden": 16, "layers": 1, "stack": 2, "reduction": 2},
    "second": {"blocks": 1, "heads": 2, "kernel": 5, "left": 6, "right": 3},
}
AMORTIZED: dict[str, Any] = {"name": "amortized", "hidden": 16, "layers": 2, "stack": 2, "reduction": 2}
ENCODERS: dict[str, dict[str, Any]] = {
    "conformer": CONFORMER,
    "conformer, looking ahead": {**CONFORMER, **AHEAD},
    "cascaded": CASCADED,
    "amortized, low rank": {**AMORTIZED, "branch": "lowrank", "rank": 4},
    "amortized, sparse": {**AMORTIZED, "branch": "sparse", "keep": 0.25},
    "bilstm": {"name": "bilstm", "hidden": 16, "layers": 2, "stack": 2, "reduction": 2},
}
STREAMING = ("conformer", "amortized, low rank", "amortized, sparse")
W4A8, W8A8 = ({"*": {"weight": weight, "activation": 8}} for weight in (4, 8))
POLICIES: dict[str, dict[str, Any]] = {
    "native_int": {"name": "native_int", "layers": W4A8},
    "native_int by row": {"name": "native_int", "layers": W4A8, "activation_range": "row"},
    "int4_e2e": {"name": "int4_e2e"},
    "accelerator_aware": {"name": "accelerator_aware", "layers": W8A8},
}

pytestmark = pytest.mark.usefixtures("one_thread")
every_policy = pytest.mark.parametrize("policy", POLICIES)


def config_of(encoder: str) -> ModelConfig:
    return ModelConfig(ENCODERS[encoder], dict(LSTM), {"hidden": 12})


def at_its_end(config: ModelConfig) -> RNNT:
    """A talkative model in the last stage of its training: amortized encoders have their branches."""
    model = talkative(config)
    if branching := model.encoder.branching:
        branching.begin_step(1.0)
    return model


@every_policy
@pytest.mark.parametrize("encoder", [name for name in ENCODERS if not name.startswith("amortized")])
def test_real_utterances(policy: str, encoder: str) -> None:
    config = config_of(encoder)
    model = at_its_end(config)
    device = packed(model, filled(model, POLICIES[policy]), config)
    features = real_features(FEATURES, UTTERANCES)
    assert compared(model, loaded_from(device, config), features, UTTERANCES // 2) == 0


@pytest.mark.parametrize("policy", [None, *POLICIES])
@pytest.mark.parametrize("encoder", STREAMING)
def test_streaming(policy: str | None, encoder: str) -> None:
    """A recognizer that hears pieces writes what the whole utterance gives; in float its frames are the same too."""
    config = config_of(encoder)
    model = at_its_end(config)
    if policy is not None:
        model = loaded_from(packed(model, filled(model, POLICIES[policy]), config), config)
    recognizer, generator = Recognizer(model, FEATURES, TOKENIZER), np.random.default_rng(0)
    for wave in recordings(5):
        text = recognizer.transcribe(wave)
        stream = RecognizerStream(recognizer)
        edges = np.sort(generator.integers(0, len(wave), 12)).tolist()
        for begin, end in itertools.pairwise([0, *edges, len(wave)]):
            stream.accept(wave[begin:end])
        assert stream.finish() == text


@pytest.mark.parametrize("encoder", STREAMING)
@torch.no_grad()
def test_float_frames_do_not_depend_on_chunks(encoder: str) -> None:
    model = at_its_end(config_of(encoder)).encoder
    for frames in real_features(FEATURES, 10):
        usable = len(frames) // model.chunk_frames * model.chunk_frames
        x = frames[:usable].unsqueeze(0)
        whole = model(x, torch.tensor([usable]))[0]
        state, parts = None, []
        for chunk in x.split(3 * model.chunk_frames, 1):
            y, _, state = model(chunk, torch.tensor([chunk.shape[1]]), state)
            parts.append(y)
        torch.testing.assert_close(torch.cat(parts, 1), whole, atol=1e-5, rtol=1e-5)
