"""How much language models count: an Optuna study that decodes a dev set with them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import optuna
import torch
from optuna.trial import FrozenTrial, TrialState
from torch import Tensor
from tqdm import tqdm

from qstudy.data.feature_set import FeatureSet
from qstudy.data.metrics import character_errors, word_errors
from qstudy.data.module import collate, evaluation_batches
from qstudy.recognize.beam import BeamSearch
from qstudy.recognize.recognizer import Recognizer
from qstudy.sweep.config import Sampler
from qstudy.sweep.samplers import make_sampler

RANGES = {"lm_weight": (0.0, 1.5), "source_weight": (0.0, 1.0), "length_reward": (-1.0, 3.0)}
"""Where weights are looked for."""
STARTUP = 8
"""Trials at random before the sampler learns from what it saw."""
CER = "cer"
"""Attribute of a trial."""

Weights = dict[str, float]
"""Name, as in `RANGES` -> value."""


@dataclass
class Encoded:
    """A batch of utterances that the encoder has heard."""

    indices: Sequence[int]
    """Of the utterances in their set."""
    frames: Tensor
    """(B, T, .) float32."""
    lengths: Tensor
    """(B,) int64."""


class DevSet:
    """Utterances that are decoded again and again: the encoder hears them once, for what language models count does not
    change what it hears."""

    @torch.no_grad()
    def __init__(self, recognizer: Recognizer, features: FeatureSet) -> None:
        self._recognizer, self._features = recognizer, features
        self._batches, model = [], recognizer.model
        batches = evaluation_batches(features.lengths)
        for indices in tqdm(batches, desc="encode", unit="batch", leave=False, disable=None):
            batch = collate(features, indices).to(model.device)
            if batch.features.shape[1] >= model.encoder.chunk_frames:  # else there is not one encoder frame
                frames, lengths, _ = model.encoder(batch.features, batch.feature_lengths)
                self._batches.append(Encoded(indices, frames, lengths))

    def errors(self, search: BeamSearch) -> tuple[float, float]:
        """Word and character error rates, fractions."""
        texts, model = [""] * len(self._features), self._recognizer.model
        for batch in self._batches:
            found = search.finish(model, search.accept(model, batch.frames, batch.lengths))
            for index, hypotheses in zip(batch.indices, found, strict=True):
                texts[index] = self._recognizer.tokenizer.decode(hypotheses[0].labels)
        return word_errors(self._features.texts, texts).rate, character_errors(self._features.texts, texts).rate


def open_fusion_study(file: Path, name: str) -> optuna.Study:
    """Open the study of this name in an SQLite file, or make it; what was interrupted counts as failed.

    Args:
        file: may hold several studies.
        name: of what is tuned; other models or another dev set, another name.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(storage=f"sqlite:///{file}", study_name=name, load_if_exists=True)
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        study.tell(trial.number, state=TrialState.FAIL)
    return study


def tune(
    study: optuna.Study, names: Sequence[str], trials: int, seed: int, errors: Callable[[Weights], tuple[float, float]]
) -> None:
    """Try weights until so many were tried; the first have all at 0, so that the best are never worse than none.

    Args:
        study: what was tried already counts.
        names: of the weights.
        trials: how many in all.
        seed: of the sampler.
        errors: word and character error rates with some weights.
    """
    done = len(tried(study))
    if not done:
        study.enqueue_trial(dict.fromkeys(names, 0.0))
    with tqdm(total=trials, initial=min(done, trials), desc="tune", unit="trial", disable=None) as progress:
        for number in range(done, trials):
            study.sampler = make_sampler(Sampler(startup=STARTUP, seed=seed), number)
            trial = study.ask()
            wer, cer = errors({name: trial.suggest_float(name, *RANGES[name]) for name in names})
            trial.set_user_attr(CER, cer)
            study.tell(trial, wer)
            progress.set_postfix_str(f"best WER {100 * (best(study).value or 0.0):.2f} %")
            progress.update()


def tried(study: optuna.Study) -> list[FrozenTrial]:
    """Trials that have come to an end."""
    return study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))


def best(study: optuna.Study) -> FrozenTrial:
    """The trial of the fewest word errors; of several, of the fewest character errors, then of the smallest weights."""

    def rank(trial: FrozenTrial) -> tuple[float, float, float]:
        return trial.value or 0.0, trial.user_attrs[CER], sum(map(abs, trial.params.values()))

    return min(tried(study), key=rank)
