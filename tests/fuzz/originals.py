"""The sound files that fuzzers damage: a corpus, models of every policy, checkpoints, configurations, records."""

import json
import shutil
from dataclasses import dataclass
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
    "float": {"name": "float"},
}
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
        """Packed models by policy."""
        return {name: (self.folder / f"{name}.qst").read_bytes() for name in POLICIES}

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
    _must(server, folder, ["evaluate", str(folder / "float.qst"), "--manifest", manifest, "--cache", cache])
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
    """Pack a model of random weights under every policy; runs in the server."""
    from tests.tiny import STATELESS, filled, model_config, packed, talkative

    torch.set_num_threads(1)
    for name, policy in POLICIES.items():
        config = model_config(STATELESS if name == "groups" else None, running_mean=20 * (name == "ptq"))
        model = talkative(config)
        packed(model, filled(model, policy), config).save(Path(argv[0]) / f"{name}.qst")
