"""`python -m benchmarks.profile CONFIG [--preset NAME] [--start MODEL] [--batches N] [--policy POLICY]`: where the time
of a step goes.

CPU time of one thread, so that a busy machine does not count: the real batches, model and losses of a run, without
Lightning around. Part by part, medians over batches; then whole steps in turn, with the head in tiles and over whole
logits. Under bfloat16 if training would be. POLICY is that of a configuration, as YAML.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import qstudy.runtime

qstudy.runtime.tune()

import torch  # noqa: E402
from rich.console import Console  # noqa: E402
from rich.table import Table  # noqa: E402
from torch import Tensor  # noqa: E402

from qstudy.data.augment import Augment  # noqa: E402
from qstudy.data.batches import Batch, collate  # noqa: E402
from qstudy.data.feature_set import mean_std  # noqa: E402
from qstudy.data.sampler import BatchSampler  # noqa: E402
from qstudy.loss.rnnt import rnnt_loss  # noqa: E402
from qstudy.model import RNNT  # noqa: E402
from qstudy.model.predictors import BLANK  # noqa: E402
from qstudy.quant import bfloat16  # noqa: E402
from qstudy.quant.policies import build_policy  # noqa: E402
from qstudy.training.assets import Assets, open_assets  # noqa: E402
from qstudy.training.config import RunConfig, config_from_dict  # noqa: E402
from qstudy.training.module import TransducerModule  # noqa: E402
from qstudy.training.start import read_start  # noqa: E402
from qstudy.yaml_file import load_yaml, parse_yaml  # noqa: E402

ROUNDS = 2
"""Of all batches, after one that does not count."""
PROGRESS = 0.3
"""Of the training: after the part that trains the encoder alone, before the CTC loss counts less."""


SIDES = ("tiles", "whole logits")
"""How the head computes."""


class Clock:
    """Seconds by part; a part within another one counts for itself alone."""

    def __init__(self) -> None:
        self.seconds: dict[str, list[float]] = {}
        self._inner = 0.0

    def wrap(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """`function`, timed."""

        def timed(*arguments: Any, **options: Any) -> Any:
            outer, self._inner, begin = self._inner, 0.0, time.thread_time()
            result = function(*arguments, **options)
            spent = time.thread_time() - begin
            self.seconds.setdefault(part, []).append(spent - self._inner)
            self._inner = outer + spent
            return result

        return timed


class WholeLogits(TransducerModule):
    """The plain twin: joiner, then loss."""

    def _rnnt_loss(self, batch: Batch, encoded: Tensor, lengths: Tensor) -> Tensor:
        logits = self.model.joiner(encoded, self.model.predictor(batch.targets))
        return rnnt_loss(logits.float(), batch.targets, lengths, batch.target_lengths, blank=BLANK)


def training_step(module: TransducerModule, clock: Clock | None = None) -> Callable[[Batch], None]:
    """One step without Lightning, timed by parts if there is a clock."""
    wrap = clock.wrap if clock else lambda part, function: function
    optimizer = module.configure_optimizers()["optimizer"]
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    passes = wrap("encoder", module.model.encoder.passes)
    losses = wrap("CTC", module._loss)
    module._rnnt_loss = wrap("predictor, joiner, loss", module._rnnt_loss)  # type: ignore[method-assign]
    backward, step = wrap("backward", Tensor.backward), wrap("optimizer", optimizer.step)
    clip = wrap("clipping", lambda: module.configure_gradient_clipping(optimizer, module.schedule.clip))

    def run(batch: Batch) -> None:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16.multiplies("cpu")):
            (encoded, *_), lengths = passes(batch.features, batch.feature_lengths)
            loss = losses(batch, encoded, lengths, PROGRESS)
        backward(loss)
        clip()
        step()

    return run


def new_module(
    kind: type[TransducerModule], config: RunConfig, assets: Assets, start: Path | None, batch: Batch
) -> TransducerModule:
    """A model that trains, from scratch or from a model file, its policy calibrated by a batch; it logs nothing."""
    torch.manual_seed(0)
    if start is None:
        model = RNNT(config.model, config.features, assets.tokenizer.size)
        model.encoder.normalize.fit(*map(torch.from_numpy, mean_std(assets.train)))
    else:
        model = read_start(start, config, assets.tokenizer)
    policy = build_policy(config.policy)
    policy.prepare(model)
    with torch.no_grad():
        policy.calibrate(model.train(), (model(batch.features, batch.feature_lengths, batch.targets) for _ in range(1)))
    policy.project_(model, 0)
    module = kind(model, policy, config.schedule, assets.tokenizer, config.seed).train()
    module.log = lambda *_, **__: None  # type: ignore[method-assign]
    return module


def profile(config: RunConfig, start: Path | None, count: int) -> tuple[dict[str, float], dict[str, float]]:
    """Milliseconds by part, and of whole steps with the head in tiles and over whole logits."""
    assets = open_assets(config)
    schedule, clock = config.schedule, Clock()
    augment = Augment(config.augment, config.features, mean_std(assets.train)[0])
    sampler = BatchSampler(assets.train.lengths, schedule.batch_size, config.seed, schedule.batch_frames)
    plan = sampler.batches(1)[:count]
    load = clock.wrap("loader", lambda indices: collate(assets.train, indices))
    load_augmented = clock.wrap("augmentation", lambda indices: collate(assets.train, indices, augment, 0, 1))
    for indices in plan:
        collate(assets.train, indices)  # once untimed: the first reading is the disk's time
    batches = [load_augmented(indices) for indices in plan if load(indices)]
    modules = [new_module(kind, config, assets, start, batches[0]) for kind in (TransducerModule, WholeLogits)]
    whole = Clock()
    timed = [whole.wrap(name, training_step(module)) for name, module in zip(SIDES, modules, strict=True)]
    timed.append(training_step(new_module(TransducerModule, config, assets, start, batches[0]), clock))
    for _ in range(1 + ROUNDS):
        for batch in batches:
            for step in timed:
                step(batch)
    count = len(batches)  # an epoch may have fewer
    parts = {name: 1e3 * statistics.median(each[-ROUNDS * count :]) for name, each in clock.seconds.items()}
    parts["augmentation"] -= parts["loader"]
    return parts, {name: 1e3 * statistics.median(each[count:]) for name, each in whole.seconds.items()}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.profile", description=__doc__)
    parser.add_argument("config", type=Path)
    parser.add_argument("--preset")
    parser.add_argument("--start", type=Path)
    parser.add_argument("--batches", type=int, default=20)
    parser.add_argument("--policy", type=partial(parse_yaml, what="--policy"), default={"name": "float"})
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    values = load_yaml(arguments.config) | {"policy": arguments.policy}
    values |= {"model": {"preset": arguments.preset}} if arguments.preset else {}
    parts, whole = profile(config_from_dict(values), arguments.start, arguments.batches)
    total = sum(parts.values())
    table = Table("part", "ms", "share", title=f"{arguments.config} {arguments.preset or ''}")
    for name, value in parts.items():
        table.add_row(name, f"{value:.1f}", f"{value / total:.1%}")
    table.add_row("sum", f"{total:.1f}", "")
    for name, value in whole.items():
        table.add_row(f"forward to optimizer, head {name}", f"{value:.1f}", f"{value / whole['whole logits']:.2f}x")
    Console().print(table)


if __name__ == "__main__":
    main()
