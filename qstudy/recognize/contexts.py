"""What follows from the labels of hypotheses alone, computed once for each: the vector that the joiner takes, what
language models say of the next label, and the states of both."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from qstudy.model import RNNT
from qstudy.model.predictors import BLANK
from qstudy.recognize.fusion import Fusion

Integers = npt.NDArray[np.int64]
NEVER = -(2**62)


LINGER = 2
"""Searches of a frame for which a row is kept that nobody asks for: what was dropped in one comes up in the next."""


class Contexts:
    """Rows of tensors, found by the key of the labels (`kernels.extended`); row 0 stands for no labels."""

    def __init__(self, model: RNNT, fusion: Fusion, device: torch.device) -> None:
        self._model, self._fusion, self._device = model, fusion, device
        predictor, models = model.predictor.start(1, device), fusion.start(1, device)
        self._parted = 1 + len(predictor)  # parts before those of language models
        blank = torch.full((1,), BLANK, device=device)
        self._parts = self._computed(blank, [blank.view(1, 1), *predictor, blank.view(1, 1), *models])
        self._row_of = {0: 0}
        self._keys = np.zeros(1, np.int64)
        self._asked = np.zeros(1, np.int64)  # when, last
        self._now = 0
        self.calls = self.computed = 0
        """How often the prediction network was asked, and for how many label sequences."""

    def vectors(self, rows: Integers) -> Tensor:
        """Projected predictor vectors (N, J)."""
        return self._parts[0][0].index_select(0, self._indices(rows))

    def language(self, rows: Integers) -> Tensor:
        """What language models add to the score of the next label, (N, V) float32; (N, 1) zeros without any."""
        return self._parts[self._parted][0].index_select(0, self._indices(rows))

    def advance(self, keys: Integers, labels: Integers, rows: Integers) -> Integers:
        """Rows of label sequences (N,) with these keys, which end in these labels behind those of these rows.

        One call of the prediction network and of each language model for all that have no row yet.
        """
        found = np.array([self._row_of.get(key, -1) for key in keys.tolist()])
        missing = np.flatnonzero(found < 0)
        if len(missing):
            self._asked[rows] = self._now
            self._asked[found[found >= 0]] = self._now
            found[missing] = self._new(keys[missing], labels[missing], self._indices(rows[missing]))
        self._asked[found] = self._now
        return found

    def keep(self, rows: Integers) -> None:
        """Of all others, let those go that have not been asked for lately."""
        self._now += 1
        self._asked[rows] = self._now

    def _new(self, keys: Integers, labels: Integers, before: Tensor) -> Integers:
        """Fill rows that are free."""
        self.calls, self.computed = self.calls + 1, self.computed + len(keys)
        new = self._computed(self._indices(labels), [part.index_select(1, before) for part in self._parts])
        rows = self._free(len(keys))
        for row, key in zip(rows.tolist(), keys.tolist(), strict=True):
            self._row_of.pop(int(self._keys[row]), None)
            self._row_of[key] = row
        self._keys[rows] = keys
        places = self._indices(rows)
        for part, values in zip(self._parts, new, strict=True):
            part.index_copy_(1, places, values)
        return rows

    def _computed(self, labels: Tensor, before: Sequence[Tensor]) -> list[Tensor]:
        """The parts (., N, .) of hypotheses with one label more."""
        predictor, models = tuple(before[1 : self._parted]), tuple(before[self._parted + 1 :])
        vector, predictor = self._model.predictor.advance(labels, predictor)
        language, models = self._fusion.advance(labels, models)
        return [self._model.joiner.predictor(vector).unsqueeze(0), *predictor, language.unsqueeze(0), *models]

    def _free(self, count: int) -> Integers:
        """Rows that nobody needs; there are twice as many from then on if they do not suffice."""
        free = np.flatnonzero(self._asked < self._now - LINGER)
        while len(free) < count:
            self._parts = [torch.cat([part, torch.empty_like(part)], 1) for part in self._parts]
            self._keys = np.concatenate([self._keys, np.zeros_like(self._keys)])
            self._asked = np.concatenate([self._asked, np.full_like(self._asked, NEVER)])
            free = np.flatnonzero(self._asked < self._now - LINGER)
        return free[:count]

    def _indices(self, rows: Integers) -> Tensor:
        return torch.from_numpy(rows).to(self._device)
