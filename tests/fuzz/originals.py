"""The sound files that fuzzers damage: a corpus, models of every policy, checkpoints, configurations, records."""

import json
import shutil
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
import yaml

from .server import ROOT, Server

LAYERS = {"*": {"weight": 4, "activation": 8}}
POLICIES: dict[str, dict[str, Any]] = {
    "ptq": {"name": "ptq", "layers": {"*": {"weight": 4}}},
    "groups": {"name": "ptq", "layers": {"*": {"weight": 8, "granularity": "group", "group": 5}}},
    "fake_qat": {"name": "fake_qat", "layers": LAYERS},
    "native_int": {"name": "native_int", "layers": LAYERS},
    "s8bqat": {"name": "s8bqat", "layers": {"*": {"weight": 3, "activation": 8}}},
    "accelerator_aware": {"name": "accelerator_aware", "layers": {"*": {"weight": 8, "activation": 8}}},
    "int4_e2e": {"name": "int4_e2e", "layers": {"*": {"weight": 4, "activation": 4}}},
    "asymmetric": {"name": "ptq", "layers": {"*": {"weight": 8, "activation": 8}}, "symmetric": False},
    "float": {"name": "float"},
}
CONFORMER = {
    "name": "conformer",
    "size": 12,
    "blocks": 1,
    "heads": 2,
    "kernel": 5,
    "left": 6,
    "stack": 2,
    "reduction": 2,
}
TIED = {"name": "weighted", "hidden": 16, "embedding": 12, "context": 3, "heads": 2, "tied": True}
MODELS: dict[str, dict[str, Any]] = {
    "conformer": {"encoder": {**CONFORMER, "position": "none"}, "predictor": TIED, "policy": "native_int"},
    "cascaded": {
        "encoder": {
            "name": "cascaded",
            "first": CONFORMER,
            "second": {"blocks": 1, "heads": 2, "kernel": 3, "left": 4},
        },
        "policy": "asymmetric",
    },
    "amortized": {
        "encoder": {"name": "amortized", "hidden": 16, "layers": 2, "stack": 2, "reduction": 2, "branch": "sparse"},
        "policy": "native_int",
    },
}
"""Packed models of other encoders than the LSTM: their parts, and by which of the policies."""
PATIENCE_S = 300.0  # kernels that are compiled for the first time
TRAINED = ("float", "fake_qat", "s8bqat", "accelerator_aware")
"""Policies of the checkpoints."""


@dataclass(frozen=True)
class Originals:
    """Where they lie."""

    folder: Path

    @property
    def corpus(self) -> Path:
        """Manifests `train`, `dev` and `test` with their sound files."""
        return self.folder / "corpus"

    @cached_property
    def sounds(self) -> list[Path]:
        """Utterances."""
        return sorted(self.corpus.glob("test/*.flac"))

    @cached_property
    def models(self) -> dict[str, bytes]:
        """Packed models by policy, and by encoder where it is none of LSTMs alone."""
        return {name: (self.folder / f"{name}.qst").read_bytes() for name in (*POLICIES, *MODELS)}

    @cached_property
    def checkpoints(self) -> dict[str, Path]:
        """Checkpoints by policy."""
        return {name: self.folder / "runs" / name / "last.ckpt" for name in TRAINED}

    @cached_property
    def run(self) -> dict[str, Any]:
        """A run configuration with every field spelled out."""
        record = json.loads((self.folder / "runs" / "fake_qat" / "record.json").read_text("utf-8"))
        return dict(record["config"])

    @cached_property
    def records(self) -> list[dict[str, Any]]:
        """Records of a study: its baseline, a trial that was trained, one over budget."""
        lines = (ROOT / "reports" / "digits-search" / "records.jsonl").read_text("utf-8").splitlines()
        records = [json.loads(line) for line in lines]
        found = {(record["state"], record["policy"] == "float"): record for record in records}
        return list(found.values())

    def yaml(self, name: str) -> dict[str, Any]:
        """A committed YAML file."""
        return dict(yaml.safe_load((ROOT / name).read_text("utf-8")))


def make(folder: Path, server: Server) -> Originals:
    """Make them in `folder`, from fixed seeds.

    Raises:
        RuntimeError: a command that has nothing wrong with it failed.
    """
    originals = Originals(folder)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    argv = ["data", "commands", "--out", str(originals.corpus), "--train", "8", "--dev", "2", "--test", "3"]
    _must(server, folder, [*argv, "--processes", "1"])
    outcome = server.run([str(folder)], folder, "tests.fuzz.originals:_models", PATIENCE_S)
    if outcome.code:
        raise RuntimeError(outcome.err)
    (folder / "run.yaml").write_text(yaml.safe_dump(_run(originals)), encoding="utf-8")
    for name in TRAINED:
        argv = ["train", "--config", str(folder / "run.yaml"), "--out", str(folder / "runs" / name)]
        start = ["--start", "scratch" if name == "float" else str(folder / "float.qst")]
        _must(server, folder, [*argv, *start, "--policy", json.dumps(POLICIES[name])])
    manifest, cache = str(originals.corpus / "test.jsonl"), str(folder / "cache")
    for name in ("float", "fake_qat"):
        _must(server, folder, ["evaluate", str(folder / f"{name}.qst"), "--manifest", manifest, "--cache", cache])
    return originals


def _must(server: Server, folder: Path, argv: list[str]) -> None:
    outcome = server.run(argv, folder, limit_s=PATIENCE_S)
    if outcome.code:
        raise RuntimeError(f"{argv}: exit code {outcome.code}\n{outcome.err}")


def _run(originals: Originals) -> dict[str, Any]:
    schedule = {"steps": 2, "batch_size": 4, "ctc_only": 0.0, "precision": "32-true"}
    return {
        "data": {split: str(originals.corpus / f"{split}.jsonl") for split in ("train", "dev")},
        "features": {"bins": 8},
        "model": {
            "encoder": {"name": "lstm", "hidden": 16, "layers": 2, "stack": 2, "reduction": 2, "running_mean": 0},
            "predictor": {"name": "lstm", "hidden": 16, "embedding": 8},
            "joiner": {"hidden": 12},
        },
        "training": schedule,
        "finetune": schedule,
        "cache": str(originals.folder / "cache"),
        "track": False,
    }


def _models(argv: list[str]) -> None:
    """Pack models of random weights; runs in the server."""
    from tests.tiny import STATELESS, model_config

    torch.set_num_threads(1)
    folder = Path(argv[0])
    for name, policy in POLICIES.items():
        config = model_config(STATELESS if name == "groups" else None, running_mean=20 * (name == "ptq"))
        _hear(_pack(config, policy, folder / f"{name}.qst"))
    for name, parts in MODELS.items():
        plain = model_config(parts.get("predictor"))
        config = replace(plain, encoder=parts["encoder"])
        _hear(_pack(config, POLICIES[parts["policy"]], folder / f"{name}.qst"))


def _pack(config: Any, policy: dict[str, Any], path: Path) -> Path:
    from tests.tiny import filled, packed, talkative

    model = talkative(config)
    packed(model, filled(model, policy), config).save(path)
    return path


def _hear(path: Path) -> None:
    """Compile what the model runs, whole and in a stream: later there are seconds for each command."""
    from qstudy.recognize.recognizer import RecognizerStream
    from qstudy.training.load import load_recognizer

    recognizer, sound = load_recognizer(path), torch.randn(16000) / 10
    stream = RecognizerStream(recognizer)
    for piece in sound.split(2000):
        stream.accept(piece)
    stream.finish()
    recognizer.transcribe(sound)
