"""How well allocations of widths do without a training of their own: one switchable model, evaluated in all of them."""

from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from qstudy.bits import BitMap
from qstudy.data.batches import collate, evaluation_batches
from qstudy.data.feature_set import FeatureSet
from qstudy.data.metrics import word_errors
from qstudy.data.tokenizer import Tokenizer
from qstudy.errors import UserError
from qstudy.fields import checked
from qstudy.files import read_json, write_json
from qstudy.locks import locked
from qstudy.loss.rnnt import rnnt_loss
from qstudy.model import RNNT
from qstudy.model.predictors import BLANK
from qstudy.quant.policies.switchable import Switchable
from qstudy.recognize.greedy import greedy


class Score(NamedTuple):
    """Of an allocation, on utterances of the dev set."""

    wer: float
    """Word error rate, a fraction."""
    loss: float
    """RNN-T loss per label, in nats."""

    @property
    def error(self) -> float:
        """The word error rate, plus a hundredth of the loss: above 0, and no two are the same by chance."""
        return self.wer + self.loss / 100


class Judged(NamedTuple):
    """What is evaluated."""

    model: RNNT
    """In evaluation mode, its slots filled by `policy`."""
    policy: Switchable
    features: FeatureSet
    """The dev set."""
    tokenizer: Tokenizer


class Judge:
    """Scores of allocations, each evaluated once: they are kept in a file, which several processes may share."""

    def __init__(self, open_model: Callable[[], Judged], utterances: int | None, file: Path, identity: str) -> None:
        """
        Args:
            open_model: makes the model, when the first score is asked for that is not in the file.
            utterances: of the set that are evaluated, spread over it; None: all.
            file: JSON.
            identity: of all that the scores depend on; those of another are forgotten.
        """
        self._open_model, self._utterances, self._file, self._identity = open_model, utterances, file, identity

    def score(self, name: str, bit_map: BitMap) -> Score:
        """The score of an allocation, under a name of its own.

        Raises:
            UserError: the model was not made for these widths.
        """
        if (known := self.known().get(name)) is not None:
            return known
        found = self._evaluate(bit_map)
        with locked(self._file.with_suffix(".lock")):
            scores = {**self.known(), name: found}
            write_json(self._file, {"identity": self._identity, "scores": {n: list(s) for n, s in scores.items()}})
        return found

    def known(self) -> dict[str, Score]:
        """Scores by name, as far as there are any.

        Raises:
            UserError: the file is damaged.
        """
        if not self._file.is_file():
            return {}
        try:
            values = checked(dict[str, object], read_json(self._file), "")
            if values.get("identity") != self._identity:
                return {}
            scores = checked(dict[str, tuple[float, float]], values["scores"], "scores")
            return {name: Score(*pair) for name, pair in scores.items()}
        except (UserError, KeyError) as error:
            raise UserError(f"{self._file} is damaged; remove it, and its scores are made again.") from error

    @cached_property
    def _judged(self) -> Judged:
        return self._open_model()

    @torch.no_grad()
    def _evaluate(self, bit_map: BitMap) -> Score:
        model, policy, features, tokenizer = self._judged
        policy.switch_(model, bit_map)
        items = spread(features.lengths >= model.encoder.chunk_frames, self._utterances)
        texts, loss, labels = dict[int, str](), 0.0, 0
        for places in evaluation_batches(features.lengths[items]):
            indices = items[places].tolist()
            batch = collate(features, indices).to(model.device)
            encoded, lengths, _ = model.encoder(batch.features, batch.feature_lengths)
            logits = model.joiner(encoded, model.predictor(batch.targets)).float()
            lost = rnnt_loss(logits, batch.targets, lengths, batch.target_lengths, BLANK, reduction="sum")
            loss += float(lost.detach())
            labels += int(batch.target_lengths.sum())
            found = greedy(model, encoded, lengths).hypotheses
            texts |= {index: tokenizer.decode(one) for index, one in zip(indices, found, strict=True)}
        said = [features.texts[index] for index in texts]
        return Score(word_errors(said, list(texts.values())).rate, loss / max(labels, 1))


def spread(usable: NDArray[np.bool_], count: int | None) -> NDArray[np.int64]:
    """Indices of so many usable ones, at equal distances; None: of all."""
    every = usable.nonzero()[0]
    if count is None or count >= len(every):
        return every
    return every[np.linspace(0, len(every) - 1, count).round().astype(np.int64)]
