"""The peer of a sweep: what a script of Optuna and Lightning is, with our model, policy and data, and nothing else.

No budgets, records, checkpoints or packed models; one process, whose trials are lost with it.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import lightning as L
import optuna

from qstudy.model import RNNT
from qstudy.quant.packed.model import PackedModel, fill_packed
from qstudy.quant.policies import build_policy
from qstudy.recognize.score import score
from qstudy.sweep.config import StudyConfig
from qstudy.training import conclude
from qstudy.training.assets import Assets, open_assets
from qstudy.training.config import RunConfig
from qstudy.training.fit import speech_data
from qstudy.training.module import TransducerModule
from qstudy.training.record import MODEL_FILE
from qstudy.training.run import _passes, float_baseline


def plain_sweep(study: StudyConfig, file: Path, timed: Callable[[], AbstractContextManager[None]]) -> optuna.Study:
    """Train every combination of a study's grid under Optuna, with its storage in an SQLite file.

    Args:
        study: what is varied, and the base.
        file: Optuna's.
        timed: the context in which each trial is done.
    """
    runs = [study.run_of(changes) for changes in study.combinations.changes]
    assets, baseline = open_assets(study.base_run), PackedModel.load(float_baseline(study.base_run) / MODEL_FILE)
    sampler = optuna.samplers.GridSampler({"run": list(range(len(runs)))})
    plain = optuna.create_study(storage=f"sqlite:///{file}", sampler=sampler)

    def objective(trial: optuna.Trial) -> float:
        with timed():
            return _word_errors(runs[trial.suggest_int("run", 0, len(runs) - 1)], assets, baseline)

    plain.optimize(objective, n_trials=len(runs))
    return plain


def _word_errors(config: RunConfig, assets: Assets, baseline: PackedModel) -> float:
    """Fine-tune under the policy; the word error rate on dev."""
    L.seed_everything(config.seed, verbose=False)
    model, policy = RNNT(config.model, config.features, assets.tokenizer.size), build_policy(config.policy)
    fill_packed(model, baseline)
    policy.total_steps = config.schedule.steps
    policy.prepare(model, policy.bit_map(model.shapes()))
    policy.calibrate(model, _passes(model, config, assets))
    module = TransducerModule(model, policy, config.schedule, assets.tokenizer, config.seed)
    trainer = L.Trainer(
        max_steps=config.schedule.steps,
        accelerator="cpu",
        gradient_clip_val=config.schedule.clip,
        limit_val_batches=0,
        inference_mode=False,
        use_distributed_sampler=False,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, speech_data(module, config, assets, "cpu"))
    texts, seconds = conclude.recognize(model.eval(), assets.dev, assets.tokenizer)
    wer = score(assets.dev, texts, seconds)["wer"]
    assert wer is not None
    return float(wer)
