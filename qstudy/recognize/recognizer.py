"""From audio to text: a model with the filterbank and the tokenizer that it was trained with."""

from dataclasses import asdict, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from qstudy.bits import LayerShape
from qstudy.data.features import Filterbank, FilterbankStream, extract
from qstudy.data.tokenizer import Tokenizer, tokenizer_from_dict
from qstudy.errors import UserError, naming
from qstudy.fields import fill
from qstudy.model import RNNT
from qstudy.model.shapes_only import shapes_only
from qstudy.named import asked_by
from qstudy.quant.integer.accumulator import recording
from qstudy.quant.packed.model import PackedModel, fill_packed
from qstudy.recognize.decoder import Decoder, Hypothesis
from qstudy.recognize.greedy import Greedy
from qstudy.recognize.live import LiveProgram, LiveStream, live_program
from qstudy.settings import FeatureSettings, ModelConfig

Pass = Literal["first", "last"]
"""Of an encoder that has several."""


class Recognizer:
    """A model and what it needs to hear and to write."""

    def __init__(self, model: RNNT, features: FeatureSettings, tokenizer: Tokenizer) -> None:
        self.model = model.eval()
        self._encoder = model.encoder  # with all of its passes
        self.features = features
        self.tokenizer = tokenizer
        self.filterbank = Filterbank(features)
        self.decoder: Decoder = Greedy()
        """The search; another one may be put in its place."""

    def transcribe(self, samples: Tensor) -> str:
        """Recognize a whole utterance: samples (N,) float32 in [-1, 1] at the features' sample rate."""
        return self.tokenizer.decode(self.listen(samples)[0].labels)

    def listen(self, samples: Tensor) -> list[Hypothesis]:
        """As `transcribe`: what the utterance may have been, best first."""
        return self.hypotheses(extract(self.filterbank, samples))

    @torch.no_grad()
    def hypotheses(self, frames: Tensor) -> list[Hypothesis]:
        """What a whole utterance may have been, best first, by its features (F, D) float32."""
        return self.decoder.decode(self.model, frames.unsqueeze(0), torch.tensor([len(frames)]))[0]

    def describe(self, hypothesis: Hypothesis) -> dict[str, Any]:
        """A hypothesis, JSON-able: its text, score and labels, and the seconds at which each label's frame begins."""
        sound = self.features  # whose hop is a whole number of samples, and may be none of its milliseconds
        frame_s = self.model.encoder.output_ms / sound.hop_ms * sound.hop / sound.sample_rate
        times = None if hypothesis.frames is None else [round(frame * frame_s, 3) for frame in hypothesis.frames]
        text = self.tokenizer.decode(hypothesis.labels)
        return {"text": text, "score": hypothesis.score, "labels": hypothesis.labels, "times_s": times}

    def live_stream(self) -> LiveStream | None:
        """A stream of the greedy search in compiled loops; None where a part of the model is not what they run, or
        somebody looks at accumulators."""
        return LiveStream(self._live_program) if self._live_program and not recording() else None

    @cached_property
    def _live_program(self) -> LiveProgram | None:
        return live_program(self.model, self.filterbank)

    def decode_from(self, which: Pass) -> None:
        """Choose the pass of the encoder that is decoded; at first it is the last.

        Raises:
            UserError: the first is asked of a model that has one.
        """
        chosen = self._encoder if which == "last" else self._encoder.first_pass
        if chosen is None:
            raise UserError("pass: the model has one pass only; leave --pass out.")
        self.model.encoder = chosen
        self.__dict__.pop("_live_program", None)  # of another encoder


class RecognizerStream:
    """One utterance that arrives in pieces; the text in the end is the same as for the whole.

    An encoder that does not stream sees it at its end. If it has a first pass, the text of that one grows until then.
    """

    def __init__(self, recognizer: Recognizer) -> None:
        self.recognizer = recognizer
        self._labels: list[int] = []
        self._text = ""
        self._found: list[Hypothesis] | None = None

    @cached_property
    def _listener(self) -> "LiveStream | Listener":
        recognizer = self.recognizer
        live = recognizer.live_stream() if type(recognizer.decoder) is Greedy else None
        return live or Listener(recognizer)

    def accept(self, samples: Tensor) -> str:
        """Take the next samples (N,) float32; returns the text so far.

        Raises:
            ValueError: the utterance has ended.
        """
        if self._found is not None:
            raise ValueError("The utterance has ended; open another stream.")
        labels = self._listener.accept(samples)
        if labels != self._labels:
            self._labels, self._text = list(labels), self.recognizer.tokenizer.decode(labels)
        return self._text

    def finish(self) -> str:
        """Flush the last frames; returns the whole text."""
        return self.recognizer.tokenizer.decode(self.hypotheses()[0].labels)

    def hypotheses(self) -> list[Hypothesis]:
        """As `finish`: what the utterance may have been, best first."""
        if self._found is None:
            self._found = list(self._listener.finish())
        return self._found


class Listener:
    """What a stream does where there is no program for all of it: features, encoder and search in turn."""

    def __init__(self, recognizer: Recognizer) -> None:
        self.recognizer = recognizer
        self._filterbank = FilterbankStream(recognizer.filterbank)
        self._waiting = torch.empty(0, recognizer.features.bins)
        self._encoder: Any = None
        self._decoded: Any = None
        whole = recognizer.model.encoder
        self._live = whole if whole.streams else whole.first_pass
        self._heard: list[Tensor] = []  # frames of the first pass, for the second

    def accept(self, samples: Tensor) -> list[int]:
        """Take the next samples (N,) float32; returns the labels so far."""
        return self._hear(self._filterbank.accept(samples))

    @torch.no_grad()
    def finish(self) -> list[Hypothesis]:
        """Flush the last frames; returns what the utterance may have been, best first."""
        self._hear(self._filterbank.finish())
        model, decoder = self.recognizer.model, self.recognizer.decoder
        if self._live is None:
            return self.recognizer.hypotheses(self._waiting)
        if self._live is not model.encoder and self._heard:
            encoded = torch.cat(self._heard, 1)
            lengths = torch.tensor([encoded.shape[1]])
            self._decoded = decoder.accept(model, model.encoder.refine(encoded, lengths), lengths)
        return [Hypothesis([])] if self._decoded is None else decoder.finish(model, self._decoded)[0]

    @torch.no_grad()
    def _hear(self, frames: Tensor) -> list[int]:
        """Decode as many frames (F, D) as the encoder that streams can use now; returns its labels so far."""
        self._waiting = torch.cat([self._waiting, frames])
        live = self._live
        if live is not None and (ready := len(self._waiting) // live.chunk_frames * live.chunk_frames):
            chunk, self._waiting = self._waiting[:ready].unsqueeze(0), self._waiting[ready:]
            encoded, lengths, self._encoder = live(chunk, torch.tensor([ready]), self._encoder)
            self._decoded = self.recognizer.decoder.accept(self.recognizer.model, encoded, lengths, self._decoded)
            if live is not self.recognizer.model.encoder:
                self._heard.append(encoded)
        return [] if self._decoded is None else self.recognizer.decoder.labels(self._decoded)[0]


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


def require_recognizer(packed: PackedModel) -> None:
    """Raise UserError unless a packed model is a recognizer."""
    if "language_model" in packed.header:
        raise UserError("this is a language model, not a recognizer; name a recognizer's file.")
    if "tokenizer" not in packed.header:
        raise UserError("this is not a recognizer; qstudy.load(path, into=model) loads it into a model of its kind.")


def _built(packed: PackedModel) -> Recognizer:
    header = packed.header
    require_recognizer(packed)
    features = fill(FeatureSettings, header.get("features"), "features")
    config = fill(ModelConfig, header.get("model"), "model")
    tokenizer = tokenizer_from_dict(header.get("tokenizer"))
    with asked_by(Path(packed.source)):
        build = partial(RNNT, config, features, tokenizer.size)
        with shapes_only():  # nothing is allocated before the file was seen to hold such a model
            packed.require_layers(build().shapes(), _told)
        model = build()
    fill_packed(model, packed)
    return Recognizer(model, features, tokenizer)


def _told(shape: LayerShape) -> LayerShape:
    """What every file tells of a layer: without what training measures, and without what older files do not hold; of a
    product of activations, whose heads they do not tell, how much is multiplied."""
    told = replace(shape, share=1.0, lookups=0, then="", twice=False, heads=1)
    return replace(told, inputs=shape.inputs * shape.outputs, outputs=0) if shape.kind == "matmul" else told
