"""Small things that several tests build: a model that has something to say, a configuration that trains in seconds."""

from pathlib import Path
from typing import Any

import torch

from qstudy.data.features import FeatureSettings
from qstudy.data.tokenizer import CharTokenizer
from qstudy.model import RNNT, ModelConfig
from qstudy.quant.layers import quantizable
from qstudy.quant.packed.model import PackedModel, pack_model
from qstudy.quant.policies import QuantPolicy, build_policy
from qstudy.recognize.recognizer import describe
from qstudy.training.config import RunConfig, config_from_dict

BINS = 8
FEATURES = FeatureSettings(bins=BINS)
TOKENIZER = CharTokenizer()
LSTM = {"name": "lstm", "hidden": 16, "embedding": 8}
STATELESS = {"name": "stateless", "hidden": 16, "embedding": 8}


def model_config(predictor: dict[str, Any] | None = None, running_mean: int = 0, hidden: int = 16) -> ModelConfig:
    """A recognizer of about 6000 parameters."""
    encoder = {"name": "lstm", "hidden": hidden, "layers": 2, "stack": 2, "reduction": 2, "running_mean": running_mean}
    return ModelConfig(encoder, dict(predictor or LSTM), {"hidden": 12})


def talkative(config: ModelConfig | None = None, seed: int = 1) -> RNNT:
    """A model with random weights large enough that it emits many different labels, and blanks between them."""
    torch.manual_seed(seed)
    model = RNNT(config or model_config(), FEATURES, TOKENIZER.size)
    model.encoder.normalize.mean.fill_(-8.0)
    model.encoder.normalize.deviation.fill_(3.0)
    with torch.no_grad():
        for layer in quantizable(model).values():
            for matrix in layer.matrices():
                matrix.mul_(5.0)
        (model.predictor.tied_table() or model.joiner.output).bias[0] += 4.0
    return model.eval()


def speech(batch: int = 3, frames: int = 80, seed: int = 0) -> torch.Tensor:
    """Features (batch, frames, BINS) that wander as those of speech do."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, frames, BINS, generator=generator).cumsum(1) * 0.7 - 8


def filled(model: RNNT, policy: QuantPolicy | dict[str, Any], batches: int = 2) -> QuantPolicy:
    """Put a policy into a model and calibrate it on `speech`; returns the policy."""
    built = build_policy(policy) if isinstance(policy, dict) else policy
    built.prepare(model)
    model.train()

    def passes():  # type: ignore[no-untyped-def]
        for seed in range(batches):
            model(speech(seed=seed), torch.full((3,), 80), torch.ones(3, 5, dtype=torch.int64))
            yield

    with torch.no_grad():
        built.calibrate(model, passes())
    model.eval()
    built.project_(model, 0)
    return built


def packed(model: RNNT, policy: QuantPolicy, config: ModelConfig | None = None) -> PackedModel:
    """What the device gets."""
    header = describe(config or model_config(), FEATURES, TOKENIZER, {"name": "ptq"})
    return pack_model(model, policy.bit_map(model.shapes()), model.shapes(), header)


def run_config(corpus: Path, work: Path, **changes: Any) -> RunConfig:
    """A run of 12 small steps on the tiny corpus; `changes` replace fields, inside mappings too."""
    schedule = {"steps": 12, "batch_size": 4, "ctc_only": 0.0, "precision": "32-true", "checkpoint_every": 4}
    config: dict[str, Any] = {
        "data": {"train": str(corpus / "train.jsonl"), "dev": str(corpus / "dev.jsonl")},
        "features": {"bins": BINS},
        "model": {
            "encoder": {"name": "lstm", "hidden": 24, "layers": 1, "stack": 3, "reduction": 3},
            "predictor": dict(LSTM),
            "joiner": {"hidden": 16},
        },
        "training": schedule,
        "finetune": dict(schedule),
        "cache": str(work / "cache"),
        "track": False,
    }
    for field, value in changes.items():
        config[field] = (
            {**config[field], **value} if isinstance(config.get(field), dict) and field != "policy" else value
        )
    return config_from_dict(config)
