"""How much language models count: an Optuna study that decodes a dev set with them."""

from collections.abc import Callable, Sequence
from pathlib import Path

import optuna
from optuna.trial import FrozenTrial, TrialState
from tqdm import tqdm

from qstudy.data.metrics import character_errors, word_errors
from qstudy.errors import UserError
from qstudy.files import content_hash
from qstudy.model.language import LanguageModel
from qstudy.recognize.build import build_beam_search
from qstudy.recognize.encoded import EncodedSet
from qstudy.recognize.fusion import Fusion
from qstudy.recognize.options import Decoding
from qstudy.sweep.config import Sampler
from qstudy.sweep.patience import reason
from qstudy.sweep.samplers import make_sampler
from qstudy.sweep.storage import sqlite_url

RANGES = {"lm_weight": (0.0, 1.5), "source_weight": (0.0, 1.0), "length_reward": (-1.0, 3.0)}
"""Where weights are looked for."""
ARGUMENTS = {"lm_weight": "external_weight", "source_weight": "source_weight", "length_reward": "length_reward"}
"""What `Fusion` calls them."""
STARTUP = 8
"""Trials at random before the sampler learns from what it saw."""
CER = "cer"
"""Attribute of a trial."""

Weights = dict[str, float]
"""Name, as in `RANGES` -> value."""


def tune_weights(
    study: optuna.Study,
    dev: EncodedSet,
    decoding: Decoding,
    external: LanguageModel,
    source: LanguageModel | None,
    trials: int,
    seed: int,
) -> FrozenTrial:
    """The weights of language models with the fewest errors on a set, of so many tries, those of before included.

    Args:
        study: what was tried already counts; of `open_fusion_study`.
        dev: the utterances.
        decoding: the beam search, without language models.
        external: what is added.
        source: what is subtracted; None: shallow fusion.
        trials: how many, the one with all weights 0 included.
        seed: of the sampler.
    """

    def errors(weights: Weights) -> tuple[float, float]:
        fusion = Fusion(external, source=source, **{ARGUMENTS[name]: value for name, value in weights.items()})
        texts, said = dev.texts(build_beam_search(decoding, fusion)), dev.features.texts
        return word_errors(said, texts).rate, character_errors(said, texts).rate

    names = [name for name in RANGES if source is not None or name != "source_weight"]
    tune(study, names, trials, seed, errors)
    return best(study, trials)


def study_name(inputs: Sequence[str], beam: int, search: str, seed: int) -> str:
    """The name under which weights are tuned: other models, sets or proposals, another study.

    Args:
        inputs: hashes of the models and of the dev set.
        beam: of the search.
        search: as in `Decoding`.
        seed: of the sampler; 0 is not in the name, as it was before seeds were, so that what was tuned then is found.
    """
    return content_hash(inputs, beam, search, *([seed] if seed else []))


def open_fusion_study(file: Path, name: str) -> optuna.Study:
    """Open the study of this name in an SQLite file, or make it; what was interrupted counts as failed, so that nobody
    else may be at it.

    Args:
        file: may hold several studies.
        name: of what is tuned; other models or another dev set, another name.

    Raises:
        UserError: the file is damaged, or no such database.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        study = optuna.create_study(storage=sqlite_url(file), study_name=name, load_if_exists=True)
        for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            study.tell(trial.number, state=TrialState.FAIL)
    except Exception as error:  # what optuna and SQLAlchemy raise depends on where the damage is
        raise UserError(f"{file} cannot be used ({reason(error)}); remove it to tune anew.") from error
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


def best(study: optuna.Study, first: int | None = None) -> FrozenTrial:
    """The trial of the fewest word errors; of several, of the fewest character errors, then of the smallest weights.

    `first`: of so many that were tried first; None: of all.
    """

    def rank(trial: FrozenTrial) -> tuple[float, float, float]:
        return trial.value or 0.0, trial.user_attrs[CER], sum(map(abs, trial.params.values()))

    return min(tried(study)[:first], key=rank)
