"""A set of utterances that the encoder has heard: searches try it again and again, for nothing that they do changes
what was heard."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice

import torch
from torch import Tensor
from tqdm import tqdm

from qstudy.data.batches import collate, evaluation_batches
from qstudy.data.feature_set import FeatureSet
from qstudy.errors import UserError
from qstudy.hardware.search import Search, counted
from qstudy.recognize.beam import BeamSearch
from qstudy.recognize.recognizer import Recognizer

COUNTED = 50
"""Utterances by which the work of a search is counted."""


@dataclass
class Encoded:
    """A batch of utterances that the encoder has heard."""

    indices: Sequence[int]
    """Of the utterances in their set."""
    frames: Tensor
    """(B, T, .) float32."""
    lengths: Tensor
    """(B,) int64."""


class EncodedSet:
    """The utterances, batch by batch; the encoder hears them when a search is first tried."""

    def __init__(self, recognizer: Recognizer, features: FeatureSet, name: str = "") -> None:
        """Args: the model; the utterances, at least one; the set's name, for the progress bar."""
        if not len(features):
            raise UserError(f"{name or 'The set'} has no utterance to decode.")
        self._recognizer, self.features, self._name = recognizer, features, name

    @property
    def seconds(self) -> float:
        """That the encoder took."""
        return self._heard[1]

    @property
    def _batches(self) -> list[Encoded]:
        return self._heard[0]

    @cached_property
    @torch.no_grad()
    def _heard(self) -> tuple[list[Encoded], float]:
        """All batches, and the seconds that they took."""
        batches = evaluation_batches(self.features.lengths)
        self._encode(batches[0])  # not timed: what is compiled on its first use
        begin = time.perf_counter()
        every = tqdm(batches, f"encode {self._name}", unit="batch", leave=False, disable=None)
        found = [self._encode(indices) for indices in every]
        return [batch for batch in found if batch is not None], time.perf_counter() - begin

    def _encode(self, indices: Sequence[int]) -> Encoded | None:
        """A batch; None: there is not one encoder frame."""
        model = self._recognizer.model
        batch = collate(self.features, indices).to(model.device)
        if batch.features.shape[1] < model.encoder.chunk_frames:
            return None
        frames, lengths, _ = model.encoder(batch.features, batch.feature_lengths)
        return Encoded(indices, frames, lengths)

    def texts(self, search: BeamSearch, name: str = "") -> list[str]:
        """The best hypothesis of every utterance, in the set's order; a name for a progress bar."""
        texts, model = [""] * len(self.features), self._recognizer.model
        for batch in tqdm(self._batches, name, unit="batch", leave=False, disable=None if name else True):
            found = search.finish(model, search.accept(model, batch.frames, batch.lengths))
            for index, hypotheses in zip(batch.indices, found, strict=True):
                texts[index] = self._recognizer.tokenizer.decode(hypotheses[0].labels)
        return texts

    def work(self, search: BeamSearch, utterances: int = COUNTED) -> Search:
        """What a search asks of the layers, as the simulator prices it: counted on some utterances, one at a time.

        Args:
            search: the search.
            utterances: how many of the set, from all over it.
        """
        model, expansions, frames, calls, computed, labels = self._recognizer.model, 0, 0, 0, 0, 0
        for frame, length in islice(self._single(), 0, None, max(len(self.features) // utterances, 1)):
            state = search.accept(model, frame, length)
            best = search.finish(model, state)[0][0]
            expansions, frames = expansions + state.expansions, frames + int(length)
            calls, computed = calls + state.contexts.calls, computed + state.contexts.computed
            labels += len(best.labels)
        return counted(search.beam, frames, labels, expansions, computed, calls)

    def _single(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Every utterance by itself: frames (1, T, .) and their number (1,)."""
        for batch in self._batches:
            for row in range(len(batch.indices)):
                length = batch.lengths[row : row + 1]
                if length > 0:
                    yield batch.frames[row : row + 1, : int(length)], length
