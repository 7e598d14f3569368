"""N-gram models as language models: back-off look-up for many hypotheses at once; a state is a number.

All n-grams stand in one sorted list. An n-gram's node is its place there plus one; the root, 0, is the empty one. Its
key is (node of all but its last label, last label) in one integer, so that a binary search finds what follows a node.
kenlm (Heafield 2011) has the same structure, but answers for one label of one hypothesis in each call from Python.
"""

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from qstudy.errors import UserError
from qstudy.model.arpa import Ngrams, Order
from qstudy.model.language import LanguageModel, LanguageState
from qstudy.model.predictors import BLANK

ROOT = 0
DENSE = 2**24
"""Log-probabilities that are kept, by state and label, rather than found anew: 64 MiB, and as much for states."""
TOGETHER = 4096
"""States that are looked up at a time for them."""


class NgramLanguageModel(LanguageModel):
    """An n-gram model with back-off, over the recognizer's labels.

    After h comes w with p(w | h) if the n-gram hw is listed, else with backoff(h) p(w | h'), h' being h without its
    first label (Katz 1987). The state is the longest end of the text that is listed and may be followed.
    """

    begin: int
    """The state after the start of a text."""

    def __init__(self, ngrams: Ngrams) -> None:
        """
        Raises:
            UserError: an n-gram is listed without all but its last label, or a label has no probability.
        """
        super().__init__()
        self.labels = ngrams.labels
        self.order = len(ngrams.orders)
        trie = Trie(ngrams.labels + 1)
        for order in ngrams.orders:
            trie.add(order)
        nodes = trie.nodes
        # a state is never of the highest order: nothing follows it
        lengths = np.concatenate([[0], *(np.full(len(order.codes), i) for i, order in enumerate(ngrams.orders, 1))])
        state_of = np.where(lengths < self.order, np.arange(nodes), trie.suffix)
        words = trie.keys % trie.base
        self.begin = int(state_of[max(trie.child(np.array([ROOT]), np.array([self.labels]))[0], ROOT)])
        first = np.searchsorted(trie.keys, np.arange(nodes + 1) * trie.base)
        for name, values in {
            "keys": trie.keys,
            "words": words,
            "first": first,
            "suffix": trie.suffix,
            "state_of": state_of,
            "log": np.concatenate([[0.0], trie.log10]) * math.log(10),
            "backoff": np.concatenate([[0.0], trie.backoff]) * math.log(10),
            "unigrams": _unigrams(ngrams),
        }.items():
            dtype = torch.float32 if values.dtype == np.float64 else torch.int64
            self.register_buffer(f"_{name}", torch.from_numpy(np.ascontiguousarray(values)).to(dtype), persistent=False)
        states = torch.arange(int((lengths < self.order).sum()))
        dense = len(states) * self.labels <= DENSE
        self.register_buffer("_rows", self._all_rows(states) if dense else None, persistent=False)
        self.register_buffer("_after", self._all_after(states) if dense else None, persistent=False)

    _keys: Tensor
    _words: Tensor
    _first: Tensor
    _suffix: Tensor
    _state_of: Tensor
    _log: Tensor
    _backoff: Tensor
    _unigrams: Tensor
    _rows: Tensor | None
    """(states, V): what follows each state; None: too many, they are looked up."""
    _after: Tensor | None
    """(states, V) int32: the state after one more label."""

    def start(self, hypotheses: int, device: torch.device) -> LanguageState:
        return (torch.full((1, hypotheses), ROOT, device=device),)

    def advance(self, labels: Tensor, state: LanguageState) -> tuple[Tensor, LanguageState]:
        nodes = state[0][0]
        after = self._follow(nodes, labels) if self._after is None else self._after[nodes, labels].long()
        rows = self._look_up(after) if self._rows is None else self._rows[after]
        return rows, (after.unsqueeze(0),)

    def _follow(self, nodes: Tensor, labels: Tensor) -> Tensor:
        """The states (N,) after one more label: of the longest end of the text that is listed with it."""
        found = torch.full_like(nodes, -1)
        for _ in range(self.order):
            found = torch.where(found < 0, self._child(nodes, labels), found)
            nodes = self._suffix[nodes]
        after = self._state_of[found.clamp_min(ROOT)]  # a label without any n-gram leaves no context
        return torch.where(labels == BLANK, self.begin, after)

    def _child(self, nodes: Tensor, labels: Tensor) -> Tensor:
        """The n-grams of nodes (N,) and one more label each; -1: not listed."""
        wanted = nodes * (self.labels + 1) + labels
        places = torch.searchsorted(self._keys, wanted).clamp_max(len(self._keys) - 1)
        return torch.where(self._keys[places] == wanted, places + 1, -1)

    def _look_up(self, nodes: Tensor) -> Tensor:
        """Log-probabilities (N, V) of what follows states (N,)."""
        chain = [nodes]
        for _ in range(self.order - 2):
            chain.append(self._suffix[chain[-1]])
        rows = self._unigrams.expand(len(nodes), -1).clone()
        for ends in reversed(chain):  # from the shortest end of the text to the longest
            rows += self._backoff[ends].unsqueeze(1)
            hypotheses, listed = self._listed(ends)
            rows[hypotheses, self._words[listed]] = self._log[listed + 1]
        return F.log_softmax(rows, -1)  # what a file gives to what is no label is shared out

    def _listed(self, nodes: Tensor) -> tuple[Tensor, Tensor]:
        """Which of nodes (N,) each n-gram that continues one of them belongs to, and its place in the list.

        Those of the root are the unigrams, where every row begins.
        """
        begin = self._first[nodes]
        counts = torch.where(nodes == ROOT, 0, self._first[nodes + 1] - begin)
        owners = torch.repeat_interleave(torch.arange(len(nodes), device=nodes.device), counts)
        within = torch.arange(len(owners), device=nodes.device) - (counts.cumsum(0) - counts)[owners]
        return owners, begin[owners] + within

    def _all_rows(self, states: Tensor) -> Tensor:
        return torch.cat([self._look_up(nodes) for nodes in states.split(TOGETHER)])

    def _all_after(self, states: Tensor) -> Tensor:
        labels = torch.arange(self.labels)
        pairs = [torch.cartesian_prod(nodes, labels).T for nodes in states.split(TOGETHER)]
        return torch.cat([self._follow(*each).int().unflatten(0, (-1, self.labels)) for each in pairs])


class Trie:
    """The sorted list of all n-grams, from order 1 on."""

    def __init__(self, base: int) -> None:
        """Args: how many codes there are."""
        self.base = base
        self.keys: NDArray[np.int64] = np.zeros(0, np.int64)
        self.log10: NDArray[np.float64] = np.zeros(0)
        self.backoff: NDArray[np.float64] = np.zeros(0)
        self.suffix: NDArray[np.int64] = np.zeros(1, np.int64)
        """(nodes,): the longest end of a node's labels that is listed, itself apart."""

    @property
    def nodes(self) -> int:
        """With the root."""
        return len(self.keys) + 1

    def child(self, nodes: NDArray[np.int64], words: NDArray[np.int64]) -> NDArray[np.int64]:
        """The node of one more label; -1: it is not listed."""
        if not len(self.keys):
            return np.full(len(nodes), -1)
        wanted = nodes * self.base + words
        places = np.minimum(np.searchsorted(self.keys, wanted), len(self.keys) - 1)
        return np.where((self.keys[places] == wanted) & (nodes >= 0), places + 1, -1)

    def add(self, order: Order) -> None:
        """Add the n-grams of the next order.

        Raises:
            UserError: one is listed without all but its last label.
        """
        parents = np.zeros(len(order.codes), np.int64)
        for column in order.codes[:, :-1].T:
            parents = self.child(parents, column)
        if (parents < 0).any():
            raise UserError(
                f"an n-gram of order {order.codes.shape[1]} is listed, but not the one of all but its last label; "
                "write it again"
            )
        keys, words = parents * self.base + order.codes[:, -1], order.codes[:, -1]
        place = np.argsort(keys)
        suffix = self._suffixes(parents[place], words[place])
        self.keys = np.concatenate([self.keys, keys[place]])  # those of a higher order are larger, as their parents are
        self.log10 = np.concatenate([self.log10, order.log10[place]])
        self.backoff = np.concatenate([self.backoff, order.backoff[place]])
        self.suffix = np.concatenate([self.suffix, suffix])

    def _suffixes(self, parents: NDArray[np.int64], words: NDArray[np.int64]) -> NDArray[np.int64]:
        """Of n-grams that are no nodes yet: the longest shorter end of them that is one."""
        found = np.full(len(parents), -1)
        ends = parents
        while (found < 0).any() and ends.any():
            ends = self.suffix[ends]
            found = np.where(found < 0, self.child(ends, words), found)
        return np.maximum(found, ROOT)


def _unigrams(ngrams: Ngrams) -> NDArray[np.float64]:
    """Natural log-probabilities (V,) without context; labels that are not listed share what is left for unknown ones.

    Raises:
        UserError: a label is not listed, and nothing is left.
    """
    first = ngrams.orders[0]
    row = np.full(ngrams.labels + 1, np.nan)
    row[first.codes[:, 0]] = first.log10
    row = row[: ngrams.labels]
    missing = np.isnan(row)
    if missing.any():
        if ngrams.unknown is None:
            raise UserError(
                f"the 1-grams lack label {int(missing.argmax())} of the recognizer, and have no <unk>; make it again "
                "with `qstudy train-lm --ngram`"
            )
        row[missing] = ngrams.unknown - math.log10(missing.sum())
    return row * math.log(10)
