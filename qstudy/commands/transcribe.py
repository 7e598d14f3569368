"""`qstudy transcribe`: text from sound files."""

import json as json_format
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from qstudy.errors import UserError
from qstudy.fields import checked
from qstudy.recognize.options import Decoding, Width

if TYPE_CHECKING:
    from torch import Tensor

    from qstudy.recognize.decoder import Hypothesis
    from qstudy.recognize.recognizer import Recognizer

STREAM_MS = 100  # a microphone's worth of samples at a time
START_OF_LINE = "\r\x1b[K"  # the line is cleared: the text may have been longer than what replaces it


def transcribe(
    model: Path,
    audio: list[Path],
    decoding: Decoding,
    stream: bool = False,
    nbest: int = 1,
    json: bool = False,
    pass_: Literal["first", "last"] = "last",
    trust: Path | None = None,
) -> None:
    """Recognize wav or flac files.

    Args:
        model: A packed model (.qst) or a checkpoint (.ckpt).
        audio: Sound files, any sample rate.
        decoding: YAML file of how labels are searched: any of decode, beam, search, prune, max_labels, lm, lm_weight,
            source_lm, source_weight, length_reward, fusion.
        stream: Feed the sound in pieces of 100 ms, as a microphone would, and show the text as it grows.
        nbest: Hypotheses to print, best first, each behind the logarithm of its probability; needs a beam search.
        json: Print one JSON object per file, with the labels of each hypothesis and, of a beam search, its score and
            the seconds at which they begin; `score` and `times_s` of the greedy search are null.
        pass_: Which pass of a cascaded encoder is decoded; the text of the first grows until the last replaces it.
        trust: A Python file of yours whose classes model files may name; they can run no other code.
    """
    checked(Width, nbest, "--nbest")
    if nbest > decoding.width:
        raise UserError(f"--nbest: {nbest} hypotheses need a beam of as many; use --decode beam --beam {nbest}.")
    import torch

    from qstudy.data.audio import read_audio
    from qstudy.named import trusting
    from qstudy.recognize.build import build_decoder
    from qstudy.training.load import load_recognizer

    with trusting(trust):
        recognizer = load_recognizer(model)
        recognizer.decoder = build_decoder(decoding, recognizer.tokenizer)
    recognizer.decode_from(pass_)
    for path in audio:
        samples = torch.from_numpy(read_audio(path, recognizer.features.sample_rate))
        found = (_stream(recognizer, samples) if stream else recognizer.listen(samples))[:nbest]
        texts = [recognizer.tokenizer.decode(each.labels) for each in found]
        if json:
            print(json_format.dumps({"audio": str(path), "hypotheses": [*map(recognizer.describe, found)]}))
            continue
        scores = [each.score or 0.0 for each in found]  # none: without an encoder frame, nothing is certain
        lines = texts if nbest == 1 else [f"{score:9.3f}  {text}" for score, text in zip(scores, texts, strict=True)]
        for line in lines:
            print(line if len(audio) == 1 else f"{path}: {line}")


def _stream(recognizer: "Recognizer", samples: "Tensor") -> "list[Hypothesis]":
    from qstudy.recognize.recognizer import RecognizerStream

    stream = RecognizerStream(recognizer)
    size = int(recognizer.features.sample_rate * STREAM_MS / 1000)
    for piece in samples.split(size):
        text = stream.accept(piece)
        if sys.stderr.isatty():
            print(f"{START_OF_LINE}{text}", end="", file=sys.stderr, flush=True)
    if sys.stderr.isatty():
        print(START_OF_LINE, end="", file=sys.stderr, flush=True)
    return stream.hypotheses()
