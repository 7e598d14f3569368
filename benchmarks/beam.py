"""Rows: beam search through encoder frames that are there, beside torchaudio's on the same model; one thread.

torchaudio's decodes one utterance at a time; ours all of them in one batch, and also one by one.
"""

from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn
from torchaudio.models import RNNTBeamSearch

from benchmarks.row import Row
from benchmarks.timing import interleaved
from qstudy.data.audio import read_audio
from qstudy.data.corpora.commands import commands
from qstudy.data.features import extract
from qstudy.data.manifest import read_manifest
from qstudy.model import RNNT
from qstudy.recognize.alignment_synchronous import AlignmentSynchronous
from qstudy.recognize.beam import BeamSearch
from qstudy.recognize.decoder import Hypothesis
from qstudy.recognize.options import MAX_LABELS_PER_FRAME
from qstudy.recognize.recognizer import Recognizer
from qstudy.recognize.time_synchronous import TimeSynchronous
from qstudy.training.load import load_recognizer

MODEL = Path("sweeps/base/commands.qst")
BEAM, UTTERANCES, ROUNDS = 8, 16, 3
IN_ONE_BATCH, ONE_BY_ONE = "ours all in one batch, torchaudio's one by one", "both one by one"
SEARCHES: dict[str, BeamSearch] = {
    "time-synchronous, pruned as torchaudio does": TimeSynchronous(BEAM, prune="frame"),
    "time-synchronous": TimeSynchronous(BEAM),
    "alignment-synchronous": AlignmentSynchronous(BEAM),
}


class AsTorchaudio(nn.Module):
    """What `RNNTBeamSearch` asks of a model, whose blank is its last label."""

    def __init__(self, model: RNNT, labels: int) -> None:
        """Args: the transducer; V, its labels with blank."""
        super().__init__()
        self.model, self.labels = model, labels

    def predict(self, labels: Tensor, lengths: Tensor, state: list[list[Tensor]] | None) -> tuple[Tensor, Tensor, Any]:
        """Labels (N, 1) to projected vectors (N, 1, J), and the state, its first dimension the hypothesis."""
        before = self.model.predictor.start(1, labels.device) if state is None else by_hypothesis(state[0])
        ours = (labels[:, 0] + 1) % self.labels
        vector, after = self.model.predictor.advance(ours, before)
        return self.model.joiner.predictor(vector).unsqueeze(1), lengths, [by_hypothesis(after)]

    def join(self, encoded: Tensor, lengths: Tensor, vectors: Tensor, counts: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """A frame (1, 1, J) and vectors (N, 1, J): logits (N, 1, 1, V)."""
        return self.model.joiner.join(encoded, vectors).roll(-1, -1).unsqueeze(1), lengths, counts


def by_hypothesis(state: Sequence[Tensor]) -> list[Tensor]:
    """The first two dimensions changed: the other's order of a state."""
    return [part.transpose(0, 1) for part in state]


@torch.no_grad()
def torchaudio_search(
    model: RNNT, encoded: Tensor, labels: int, beam: int, max_labels: int = MAX_LABELS_PER_FRAME
) -> list[Hypothesis]:
    """What `RNNTBeamSearch` finds in encoder frames (T, .), best first; it ranks by the score, as we do."""
    search = RNNTBeamSearch(
        AsTorchaudio(model, labels), labels - 1, hypo_sort_key=lambda found: found[3], step_max_tokens=max_labels
    )
    found = search._search(model.joiner.encoder(encoded).unsqueeze(0), None, beam)
    return [Hypothesis([label + 1 for label in each[1:]], score) for each, _, _, score in found]


@torch.no_grad()
def rows() -> Iterable[Row]:
    """Every search, of all utterances in one batch and of one after the other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        recognizer = load_recognizer(MODEL)
        model, labels = recognizer.model, recognizer.tokenizer.size
        alone = [encode(recognizer, samples) for samples in speech(recognizer.features.sample_rate)]
        together = [torch.nn.utils.rnn.pad_sequence(alone, batch_first=True)]
        sides = {
            f"{name}, {how}": partial(ours, search, model, pieces, alone)
            for name, search in SEARCHES.items()
            for how, pieces in ((IN_ONE_BATCH, together), (ONE_BY_ONE, [each[None] for each in alone]))
        }
        peer = partial(theirs, model, labels, alone)
        times = interleaved({**sides, "torchaudio": peer}, ROUNDS)
    finally:
        torch.set_num_threads(threads)
    seconds = sum(map(len, alone)) * model.encoder.output_ms / 1000
    for name in sides:
        what = f"beam search, beam {BEAM}, {UTTERANCES} utterances, {seconds:.0f} s in all, {name}"
        yield Row(what, "ms", "torchaudio", times[name], times["torchaudio"])


def ours(search: BeamSearch, model: RNNT, batches: Sequence[Tensor], utterances: Sequence[Tensor]) -> None:
    """Search batches (B, T, .) of the utterances (T, .)."""
    lengths = torch.tensor([len(each) for each in utterances])
    for batch, some in zip(batches, lengths.split(len(batches[0])), strict=True):
        search.finish(model, search.accept(model, batch, some))


def theirs(model: RNNT, labels: int, utterances: Sequence[Tensor]) -> None:
    """Search utterances (T, .)."""
    for each in utterances:
        torchaudio_search(model, each, labels, BEAM)


def encode(recognizer: Recognizer, samples: Tensor) -> Tensor:
    """Encoder frames (T, .) of sound."""
    frames = extract(recognizer.filterbank, samples)
    return recognizer.model.encoder(frames.unsqueeze(0), torch.tensor([len(frames)]))[0][0]


def speech(sample_rate: int) -> list[Tensor]:
    """Synthesized utterances that the model was not trained on."""
    with TemporaryDirectory() as folder:
        commands(Path(folder), train=1, dev=1, test=UTTERANCES, processes=1)
        lines = read_manifest(Path(folder) / "test.jsonl")
        return [torch.from_numpy(read_audio(line.audio, sample_rate)) for line in lines]
