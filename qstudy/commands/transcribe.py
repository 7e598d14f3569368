"""`qstudy transcribe`: text from sound files."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from torch import Tensor

    from qstudy.recognize.recognizer import Recognizer

STREAM_MS = 100  # a microphone's worth of samples at a time


def transcribe(
    model: Path,
    audio: list[Path],
    stream: bool = False,
    pass_: Literal["first", "last"] = "last",
    trust: Path | None = None,
) -> None:
    """Recognize wav or flac files.

    Args:
        model: A packed model (.qst) or a checkpoint (.ckpt).
        audio: Sound files, any sample rate.
        stream: Feed the sound in pieces of 100 ms, as a microphone would, and show the text as it grows.
        pass_: Which pass of a cascaded encoder is decoded; the text of the first grows until the last replaces it.
        trust: A Python file of yours whose classes the model may name; no other code is run for a model file.
    """
    import torch

    from qstudy.data.audio import read_audio
    from qstudy.named import trusting
    from qstudy.training.load import load_recognizer

    with trusting(trust):
        recognizer = load_recognizer(model)
    recognizer.decode_from(pass_)
    for path in audio:
        samples = torch.from_numpy(read_audio(path, recognizer.features.sample_rate))
        text = _stream(recognizer, samples) if stream else recognizer.transcribe(samples)
        print(text if len(audio) == 1 else f"{path}: {text}")


def _stream(recognizer: "Recognizer", samples: "Tensor") -> str:
    from qstudy.recognize.recognizer import RecognizerStream

    stream = RecognizerStream(recognizer)
    size = int(recognizer.features.sample_rate * STREAM_MS / 1000)
    for piece in samples.split(size):
        text = stream.accept(piece)
        if sys.stderr.isatty():
            print(f"\r{text}", end="", file=sys.stderr, flush=True)
    if sys.stderr.isatty():
        print("\r", end="", file=sys.stderr)
    return stream.finish()
