"""Nonsense in a run or a study: refused when it is read, by the name of the field."""

import copy
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from tiny import run_config

from qstudy.errors import UserError
from qstudy.quant.policies import build_policy
from qstudy.settings import FeatureSettings
from qstudy.sweep.config import Sampler, load_study
from qstudy.sweep.samplers import make_sampler
from qstudy.sweep.study import check
from qstudy.training.config import Schedule, config_from_dict
from qstudy.training.price import price

LEAST = {"data": {"train": "a.jsonl", "dev": "b.jsonl"}}
NAN, INF = float("nan"), float("inf")
FIELDS: dict[str, list[Any]] = {
    "training.warmup": [-0.1, 1.1, NAN, True, "0.1"],
    "training.clip": [-1, 0, INF],
    "training.ctc_weight": [-0.3, NAN],
    "training.ctc_only": [-0.1, 2.0],
    "training.steps": [0, 1.0, True, "5", 10**12, [5], None],
    "training.batch_size": [0, 10**12],
    "finetune.learning_rate": [0, NAN, -1e-3],
    "finetune.evaluate_every": [-1],
    "seed": [-1, 10**30, 1.0, True, None],
    "features.bins": [2, 10**7, 40.0],
    "features.hop_ms": [0, -1, 1e-3, INF],
    "features.sample_rate": [0, 10**9, 16000.0],
    "features.preemphasis": [-1, 2],
    "augment.speed_range": [[0, 1], [1.2, 0.8], [1], 1, [NAN, 1]],
    "augment.babble_voices": [0, 10**12],
    "augment.noise": [-0.1, 1.1],
    "accelerator": [[], "edge_nna", [3], [""]],
    "policy": ["ptq", ["ptq"], {}, {"name": ""}, {"name": 3}],
    "tokenizer": ["characters", {}],
    "model.encoder": ["lstm", {"name": ""}, {"name": 3}],
    "model.preset": ["", 3, "lstm-large"],
    "data.train": ["", 3, None],
    "data.test": [{"dev": "other.jsonl"}, {"": "x"}, ["x"], {"a": 3}],
    "data.workers": [-1, 10**6, True],
    "data.skip_broken": [1, "no"],
    "trainer.num_nodes": [0, 10**6],
    "track": [1, "yes"],
    "start": ["middle", 3, ""],
    "cache": ["", 3],
}


def changed(field: str, value: Any) -> dict[str, Any]:
    values: dict[str, Any] = copy.deepcopy(LEAST)
    *sections, name = field.split(".")
    inner = values
    for section in sections:
        inner = inner.setdefault(section, {})
    inner[name] = value
    return values


@pytest.mark.parametrize(("field", "value"), [(field, value) for field, values in FIELDS.items() for value in values])
def test_a_field_out_of_its_limits(field: str, value: Any) -> None:
    with pytest.raises(UserError, match=field.replace(".", r"\.")) as error:
        config_from_dict(changed(field, value))
    assert len(str(error.value)) < 400


def test_limits_hold_for_every_caller() -> None:
    for make in (lambda: Schedule(warmup=-1.0), lambda: FeatureSettings(bins=10**7), lambda: Sampler("bayes")):  # type: ignore[arg-type]
        with pytest.raises(UserError):
            make()


ALL = {"*": {"weight": 4, "activation": 8}}


@pytest.mark.parametrize(
    ("policy", "said"),
    [
        ({"name": "fake_qat", "layers": "x"}, "policy.layers"),
        ({"name": "fake_qat", "layers": ALL, "symmetric": 1}, "policy.symmetric"),
        ({"name": "native_int", "layers": ALL, "freeze_step": -1}, "policy.freeze_step"),
        ({"name": "native_int", "layers": ALL, "activation_start": True}, "policy.activation_start"),
        ({"name": "s8bqat", "layers": ALL, "strength": NAN}, "policy.strength"),
        ({"name": "s8bqat", "layers": ALL, "quantize_from": 2.0}, "policy.quantize_from"),
        ({"name": "ptq", "layers": ALL, "percentile": NAN}, "policy.percentile"),
        ({"name": "int4_e2e", "decay": -1.0}, "policy.decay"),
        ({"name": "accelerator_aware", "layers": ALL, "gate_fraction": 11.0}, "policy.gate_fraction"),
        ({"name": "encoder_only", "encoder": {"weight": 4}, "layers": {}}, "policy.layers"),
    ],
    ids=str,
)
def test_options_of_policies(policy: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        build_policy(policy)


@pytest.mark.parametrize(
    ("name", "bits", "said"),
    [
        ("fake_qat", {"weight": 4.0}, "weight: 4.0 bits"),
        ("fake_qat", {"weight": True}, "weight: True bits"),
        ("fake_qat", {"weight": 4, "accumulator": 16}, "accumulator: 16 bits is not one of 32"),
        ("fake_qat", {"weight": 4, "granularity": "group", "group": True}, "group: True"),
        ("ptq", {"weight": 4, "quantizer": "codebook"}, "no codebook; use s8bqat"),
        ("fake_qat", {"weight": 4, "quantizer": "codebook"}, "no codebook; use s8bqat"),
        ("accelerator_aware", {"weight": 4, "activation": 8, "quantizer": "codebook"}, "no codebook; use s8bqat"),
        ("native_int", {"weight": 4, "granularity": "group"}, "no group; use fake_qat or ptq"),
    ],
    ids=str,
)
def test_widths_without_sense_show_before_training(name: str, bits: dict[str, Any], said: str, tmp_path: Path) -> None:
    config = run_config(tmp_path, tmp_path, policy={"name": name, "layers": {"*": bits}})
    with pytest.raises(UserError, match=said):
        price(config)


def test_a_model_too_large_is_refused_with_its_size(tmp_path: Path) -> None:
    encoder = {"name": "lstm", "hidden": 65_536, "layers": 100}
    begin = time.perf_counter()
    with pytest.raises(UserError, match=r"model: 3\.\d+e\+12 parameters \(1\.\d+e\+04 GB"):
        price(run_config(tmp_path, tmp_path, model={"encoder": encoder}))
    assert time.perf_counter() - begin < 10


BASE = {"data": {"train": "train.jsonl", "dev": "dev.jsonl"}}
WIDE = {f"layer.{index}": {"weight": list(range(14))} for index in range(8)}


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        (
            {"grid": {"policy": {"name": "mixed", "layers": WIDE}}},
            "1,475,789,056 combinations are more than the 10,000",
        ),
        ({"trials": 10**12}, "trials: 1000000000000"),
        ({"trials": "1:30"}, "trials: '1:30'"),
        ({"trials": True}, "trials: True"),
        ({"candidates": 10**12}, "candidates"),
        ({"objectives": 3}, "objectives: 3"),
        ({"budgets": 0}, "budgets: this must be a mapping"),
        ({"sampler": False}, "sampler: this must be a mapping"),
        ({"objectives": ["wer", "wer"]}, "objectives"),
        ({"objectives": []}, "objectives"),
        ({"sampler": {"seed": 10**30}}, "sampler.seed"),
        ({"sampler": {"population": 10**12}}, "sampler.population"),
        ({"pruning": {"warmup": -1}}, "pruning.warmup"),
        ({"pruning": {"warm": 1}}, "pruning.warm: there is no such field"),
        ({"budgets": {"latency_ms": NAN}}, "budgets.latency_ms"),
        ({"study": "x" * 300}, "study"),
        ({"grid": {"policy": "ptq"}}, "policy"),
        ({"grid": [{}]}, "grid.0"),
        ({"grid": {"policy": {"name": "fake_qat", "layers": ALL, "freeze_step": [1, -1]}}}, "policy.freeze_step"),
        (
            {"space": {"policy": {"name": ["ptq", "fake_qat"], "layers": ALL, "rounding": "gptq"}}, "trials": 3},
            "rounding",
        ),
        ({"like": "gone.yaml"}, "gone.yaml"),
        ({"base": "gone.yaml"}, "gone.yaml"),
    ],
    ids=lambda value: "" if isinstance(value, dict) else value,
)
def test_studies_without_sense(fields: dict[str, Any], said: str, tmp_path: Path) -> None:
    file = tmp_path / "study.yaml"
    study = {"study": "toy", "base": BASE, "grid": {"policy": {"name": "ptq", "layers": ALL}}}
    file.write_text(yaml.safe_dump({**study, **fields}))
    begin = time.perf_counter()
    with pytest.raises(UserError) as error:
        check(load_study(file))
    assert time.perf_counter() - begin < 5
    assert said in str(error.value)
    assert str(file) in str(error.value)


def test_every_seed_gives_a_sampler() -> None:
    for name in ("tpe", "random", "nsga2"):
        make_sampler(Sampler(name, seed=2**32 - 1), 9)  # type: ignore[arg-type]
