"""Rows: one stream recognized by beam search with two language models, everything packed in 4 bits, beside the same in
float; one thread. How far that is from the speech's own length is its real-time factor.

The recognizer is the project's; language models have random weights, which cost what trained ones cost.
"""

from collections.abc import Iterable, Iterator
from functools import partial

import torch
from torch import Tensor, nn

from benchmarks.beam import BEAM, MODEL, speech
from benchmarks.row import Row
from benchmarks.timing import interleaved
from qstudy.data.features import extract
from qstudy.data.tokenizer import Tokenizer
from qstudy.fields import fill
from qstudy.model import RNNT, ModelConfig
from qstudy.model.language import LanguageModel, LSTMLanguageModel
from qstudy.quant.packed.model import PackedModel, fill_float, fill_packed, pack_model
from qstudy.quant.policies import build_policy
from qstudy.recognize.fusion import Fusion
from qstudy.recognize.recognizer import Recognizer, RecognizerStream
from qstudy.recognize.time_synchronous import TimeSynchronous
from qstudy.settings import LanguageModelConfig
from qstudy.training.load import load_recognizer

UTTERANCES, ROUNDS = 4, 3
PIECE_S = 0.1
"""Sound comes in pieces of so many seconds."""
SIZES = {"2 x 512": (512, 2), "2 x 2048, as in the paper": (2048, 2)}
POLICY = {"name": "int4_e2e"}
WEIGHT = 0.3


@torch.no_grad()
def rows() -> Iterable[Row]:
    """Streams with language models of both sizes."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        sounds = speech(load_recognizer(MODEL).features.sample_rate)[:UTTERANCES]
        for name, size in SIZES.items():
            sides = {form: partial(listen, prepared(size, sounds, form), sounds) for form in ("float", "INT4")}
            yield _row(name, interleaved(sides, ROUNDS), sounds)
    finally:
        torch.set_num_threads(threads)


def _row(name: str, times: dict[str, float], sounds: list[Tensor]) -> Row:
    seconds = sum(map(len, sounds)) / load_recognizer(MODEL).features.sample_rate
    return Row(
        f"one stream at a time, {seconds:.0f} s in all, beam {BEAM}, density ratio with two LMs of {name}, in 4 bits",
        "ms",
        "the same in float",
        times["INT4"],
        times["float"],
        reference_is="the speech's own length: the distance is the real-time factor",
        reference=1000 * seconds,
    )


def prepared(size: tuple[int, int], sounds: list[Tensor], form: str) -> Recognizer:
    """The recognizer with its beam search and language models, all in float or all packed in 4 bits."""
    recognizer = load_recognizer(MODEL)
    recognizer.model = in_float(recognizer)
    heard = [extract(recognizer.filterbank, each) for each in sounds]
    labels = torch.randint(1, recognizer.tokenizer.size, (1, 40), generator=torch.Generator().manual_seed(0))
    models = [language_model(recognizer.tokenizer, *size, seed) for seed in range(2)]
    if form == "INT4":
        pack(recognizer.model, (lambda frames=frames: _hear(recognizer, frames, labels) for frames in heard))
        for model in models:
            pack(model, [partial(model, labels)])
    external, source = models
    recognizer.decoder = TimeSynchronous(BEAM, Fusion(external, WEIGHT, source, WEIGHT))
    return recognizer


def in_float(recognizer: Recognizer) -> RNNT:
    """The project's model, with weights that can be quantized."""
    config = fill(ModelConfig, PackedModel.load(MODEL).header["model"])
    model = RNNT(config, recognizer.features, recognizer.tokenizer.size)
    fill_float(model, recognizer.model)
    return model.eval()


def _hear(recognizer: Recognizer, frames: Tensor, labels: Tensor) -> None:
    recognizer.model(frames.unsqueeze(0), torch.tensor([len(frames)]), labels)


def language_model(tokenizer: Tokenizer, hidden: int, layers: int, seed: int) -> LanguageModel:
    """One with random weights."""
    torch.manual_seed(seed)
    return LSTMLanguageModel(tokenizer.size, LanguageModelConfig(hidden=hidden, layers=layers)).eval()


def pack(model: nn.Module, passes: Iterable) -> None:  # type: ignore[type-arg]
    """Calibrate a model under the policy and let it run from its packed form."""
    policy = build_policy(POLICY)
    shapes = model.shapes()  # type: ignore[operator]
    bit_map = policy.bit_map(shapes)
    policy.prepare(model, bit_map)
    policy.calibrate(model, _run(passes))
    model.eval()
    fill_packed(model, pack_model(model, bit_map, shapes, {}))


def _run(passes: Iterable) -> Iterator[None]:  # type: ignore[type-arg]
    for each in passes:
        each()
        yield


def listen(recognizer: Recognizer, sounds: list[Tensor]) -> None:
    """Recognize each as it comes."""
    piece = int(PIECE_S * recognizer.features.sample_rate)
    for sound in sounds:
        stream = RecognizerStream(recognizer)
        for part in sound.split(piece):
            stream.accept(part)
        stream.finish()
