"""From audio to text: a model with the filterbank and the tokenizer that it was trained with."""

from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from qstudy.data.features import Filterbank, FilterbankStream, extract
from qstudy.data.tokenizer import Tokenizer, tokenizer_from_dict
from qstudy.errors import UserError, naming
from qstudy.fields import fill
from qstudy.model import RNNT
from qstudy.named import asked_by
from qstudy.quant.packed.model import PackedModel, fill_packed
from qstudy.recognize.greedy import GreedyState, greedy, greedy_labels
from qstudy.settings import FeatureSettings, ModelConfig


class Recognizer:
    """A model and what it needs to hear and to write."""

    def __init__(self, model: RNNT, features: FeatureSettings, tokenizer: Tokenizer) -> None:
        self.model = model.eval()
        self.features = features
        self.tokenizer = tokenizer
        self.filterbank = Filterbank(features)

    @torch.no_grad()
    def transcribe(self, samples: Tensor) -> str:
        """Recognize a whole utterance: samples (N,) float32 in [-1, 1] at the features' sample rate."""
        frames = extract(self.filterbank, samples).unsqueeze(0)
        return self.tokenizer.decode(greedy_labels(self.model, frames, torch.tensor([frames.shape[1]]))[0])


class RecognizerStream:
    """One utterance that arrives in pieces; the text is the same as for the whole.

    An encoder that does not stream sees it at its end.
    """

    def __init__(self, recognizer: Recognizer) -> None:
        self.recognizer = recognizer
        self._filterbank = FilterbankStream(recognizer.filterbank)
        self._waiting = torch.empty(0, recognizer.features.bins)
        self._encoder: Any = None
        self._decoder: GreedyState | None = None

    def accept(self, samples: Tensor) -> str:
        """Take the next samples (N,) float32; returns the text so far."""
        return self._decode(self._filterbank.accept(samples), ended=False)

    def finish(self) -> str:
        """Flush the last frames; returns the whole text."""
        return self._decode(self._filterbank.finish(), ended=True)

    @torch.no_grad()
    def _decode(self, frames: Tensor, ended: bool) -> str:
        model = self.recognizer.model
        self._waiting = torch.cat([self._waiting, frames])
        if ready := self._ready(ended):
            chunk, self._waiting = self._waiting[:ready].unsqueeze(0), self._waiting[ready:]
            encoded, lengths, self._encoder = model.encoder(chunk, torch.tensor([ready]), self._encoder)
            self._decoder = greedy(model, encoded, lengths, self._decoder)
        return self.recognizer.tokenizer.decode(self._decoder.hypotheses[0] if self._decoder else [])

    def _ready(self, ended: bool) -> int:
        """Feature frames that the encoder can use now."""
        encoder, count = self.recognizer.model.encoder, len(self._waiting)
        if encoder.streams:
            return count // encoder.chunk_frames * encoder.chunk_frames
        return count if ended and count >= encoder.chunk_frames else 0


def describe(
    config: ModelConfig, features: FeatureSettings, tokenizer: Tokenizer, policy: dict[str, Any]
) -> dict[str, Any]:
    """The header of a packed model: all that is needed to build it again."""
    return {
        "model": asdict(config),
        "features": asdict(features),
        "tokenizer": tokenizer.to_dict(),
        "policy": policy,
    }


def recognizer_from_packed(packed: PackedModel) -> Recognizer:
    """Build the recognizer that a packed model describes.

    Raises:
        UserError: the header does not describe one, or not the one whose layers and tensors follow.
    """
    with naming(packed.source):
        return _built(packed)


def _built(packed: PackedModel) -> Recognizer:
    header = packed.header
    if "tokenizer" not in header:
        raise UserError("this is no recognizer; qstudy.load(path, into=model) loads it into a model of its kind.")
    features = fill(FeatureSettings, header.get("features"), "features")
    config = fill(ModelConfig, header.get("model"), "model")
    tokenizer = tokenizer_from_dict(header.get("tokenizer"))
    with asked_by(Path(packed.source)):
        build = partial(RNNT, config, features, tokenizer.size)
        with torch.device("meta"):  # nothing is allocated before the file was seen to hold such a model
            packed.require_layers(build().shapes(), lambda shape: replace(shape, share=1.0))  # which training measures
        model = build()
    fill_packed(model, packed)
    return Recognizer(model, features, tokenizer)
