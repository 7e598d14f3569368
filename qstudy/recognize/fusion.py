"""Fusion of language models into a search, by the density ratio; without a source model it is shallow fusion."""

from itertools import islice

import torch
from torch import Tensor

from qstudy.model.language import LanguageModel, LanguageState, require_numbers

LEAST = -100.0
"""Logarithm of a probability under which a label counts as impossible: smoothed models and trained softmaxes are far
above it as a rule; n-gram files write -228 for none."""


class Fusion:
    """What is added to the transducer's score of a label sequence y, label by label:

        l_ext log P_ext(y) - l_src log P_src(y) + beta |y|

    P_ext is a language model of the texts to come, P_src one of the texts that the transducer was trained on, whose
    share in what the transducer learned is divided out. Of a label that P_src holds impossible nothing is known of that
    share: the ratio by zero is left out, since it would make certain what the transducer never saw. A label that P_ext
    holds impossible gets l_ext `LEAST`, not minus infinity: it may be the only one that is left.

    Source: McDermott, Sak and Variani 2019, "A density ratio approach to language model fusion in end-to-end automatic
    speech recognition", arXiv 2002.11268; shallow fusion: Gulcehre et al. 2015, arXiv 1503.03535.
    """

    def __init__(
        self,
        external: LanguageModel | None = None,
        external_weight: float = 0.0,
        source: LanguageModel | None = None,
        source_weight: float = 0.0,
        length_reward: float = 0.0,
    ) -> None:
        """Args: the models and their weights l_ext and l_src, at least 0 (a model of weight 0 is never asked); beta."""
        terms = ((external, external_weight), (source, -source_weight))
        self._terms = [(model.eval(), weight) for model, weight in terms if model is not None and weight]
        self._sizes = [len(model.start(1, torch.device("cpu"))) for model, _ in self._terms]
        self.reward = length_reward

    def start(self, hypotheses: int, device: torch.device) -> LanguageState:
        """The state before the first label: that of all models, one behind the other."""
        return tuple(part for model, _ in self._terms for part in model.start(hypotheses, device))

    def advance(self, labels: Tensor, state: LanguageState) -> tuple[Tensor, LanguageState]:
        """As `LanguageModel.advance`, but what the scores get, (N, V) float32: column BLANK at the end of the text.

        Without models it is (N, 1), nothing: the reward, which is all labels' alone, is added by the search.

        Raises:
            UserError: what a model says are not numbers.
        """
        added = torch.zeros(len(labels), 1, device=labels.device)
        after: LanguageState = ()
        parts = iter(state)
        for (model, weight), size in zip(self._terms, self._sizes, strict=True):
            log_probs, new = model.advance(labels, tuple(islice(parts, size)))
            require_numbers(model, log_probs)  # a search would take nothing for better than NaN, and hear nothing
            added = added + weight * (log_probs.clamp_min(LEAST) if weight > 0 else possible(log_probs))
            after += new
        return added, after


def possible(log_probs: Tensor) -> Tensor:
    """Log-probabilities (N, V) of a source model, 0 for what it holds impossible."""
    return log_probs.where(log_probs >= LEAST, 0.0)
