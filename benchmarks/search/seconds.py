"""What a training step takes: seconds of a processor, which are the same on a machine that does other work too."""

import tempfile
import time
from dataclasses import replace
from pathlib import Path

from qstudy.sweep.config import StudyConfig
from qstudy.sweep.screening.allocations import Allocations
from qstudy.training.assets import open_assets
from qstudy.training.config import RunConfig
from qstudy.training.fit import fit
from qstudy.training.module import TransducerModule
from qstudy.training.run import calibrated

SHORT, LONG = 10, 40  # steps: their difference is free of what a training takes to begin and to end


def step_seconds(study: StudyConfig) -> dict[str, float]:
    """Of a fine-tune in middling widths, and of the switchable model."""
    allocations, base = Allocations(study), study.base_run
    middle = tuple(len(place.values) // 2 for place in allocations.places)
    policies = {"fine-tune": allocations.changes(middle)["policy"], "switchable": allocations.switchable}
    return {name: _step_s(replace(base, policy=policy)) for name, policy in policies.items()}


def _step_s(config: RunConfig) -> float:
    short, long = (_training_s(config, steps) for steps in (SHORT, LONG))
    return (long - short) / (LONG - SHORT)


def _training_s(config: RunConfig, steps: int) -> float:
    own = replace(config, finetune=replace(config.finetune, steps=steps))
    (model, policy), assets = calibrated(own), open_assets(own)
    module = TransducerModule(model, policy, own.schedule, assets.tokenizer, own.seed)
    with tempfile.TemporaryDirectory() as folder:
        begin = time.process_time()
        fit(module, own, assets, Path(folder), "step time")
        return time.process_time() - begin
