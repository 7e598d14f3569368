"""How far a device falls behind on real utterances where a trained encoder decides which frames its layers run on."""

import numpy as np
import torch

from qstudy.data.feature_set import FeatureSet
from qstudy.hardware.accelerator import load_accelerator
from qstudy.hardware.backlog import backlog
from qstudy.hardware.workload import workload
from qstudy.model.encoders import Encoder
from qstudy.quant.packed.model import PackedModel
from qstudy.training.config import RunConfig

FOLLOWED = 100
"""Utterances that are followed."""


def measure_backlog(
    encoder: Encoder, packed: PackedModel, config: RunConfig, features: FeatureSet
) -> dict[str, dict[str, float]]:
    """Accelerator -> `latency_ms` (median) and `worst_ms` of utterances whose branches were decided frame by frame.

    Args:
        encoder: the packed one.
        packed: how often its layers run, and their widths.
        config: the accelerators, and the tail of the utterances.
        features: the set; its first utterances are followed.
    """
    load, found = workload(packed.shapes, packed.bit_map), {}
    items, tail_ms = range(min(len(features), FOLLOWED)), config.features.tail_ms
    taken = [encoder.taken(torch.from_numpy(features.frames(item))) for item in items]
    durations_ms = [float(features.lengths[item]) * config.features.hop_ms - tail_ms for item in items]
    for name in config.accelerator:
        accelerator = load_accelerator(name)
        behind = [
            backlog(load, accelerator, taken[i], max(durations_ms[i], 1.0) / 1000, len(features.labels[i]), tail_ms)
            for i in items
        ]
        found[name] = {
            "latency_ms": float(np.median([each.latency_ms for each in behind])),
            "worst_ms": max(each.worst_ms for each in behind),
        }
    return found
