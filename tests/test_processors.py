"""Every processor trains, exports and evaluates, and its kernels are exact: tried as two that are older than most."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from processors import CASES, on_x86, python_on
from tiny import run_config

from qstudy.files import read_json
from qstudy.training.config import to_dict

pytestmark = [on_x86, pytest.mark.parametrize("processor", CASES)]

STUDY = """
import sys
import torch
from qstudy.cli import main
from qstudy.quant.kernels import ir
assert (ir.LANES, ir.VNNI, ir.BF16, torch.backends.cpu.get_cpu_capability()) == (8, False, False, sys.argv[1])
folder, dev = sys.argv[2:]
assert not main(["train", "--config", f"{folder}/run.yaml", "--out", folder])
assert not main(["export", f"{folder}/last.ckpt", "--out", f"{folder}/again.qst"])
assert not main(["evaluate", f"{folder}/again.qst", "--manifest", dev, "--json"])
"""
CAPABILITY = {"AVX2": "AVX2", "x86-64": "DEFAULT"}
KERNELS = (
    "tests/test_kernels.py",
    "tests/test_gemv.py::test_equal_to_numpy",
    "tests/test_packed.py::test_integer_products_are_exact",
    "tests/test_packed.py::test_no_float_copy_of_a_quantized_weight",
)


def test_train_export_evaluate(processor: str, corpus: Path, tmp_path: Path) -> None:
    policy: dict[str, Any] = {"name": "native_int", "layers": {"*": {"weight": 4, "activation": 8}}}
    auto = {"precision": "auto", "steps": 4}
    config = run_config(corpus, tmp_path, policy={**policy, "gradient": "bfloat16"}, training=auto, finetune=auto)
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(json.loads(json.dumps(to_dict(config)))))
    arguments = (CAPABILITY[processor], str(tmp_path), str(corpus / "dev.jsonl"))
    done = python_on(processor, "-c", STUDY, *arguments)
    assert done.returncode == 0, done.stderr
    record = read_json(tmp_path / "record.json")
    assert record["precision"] == "32-true"
    assert record["loss"]["last"] > 0
    assert done.stderr.count("gradient: bfloat16 would be emulated") == 1
    assert f'"wer": {record["metrics"]["dev"]["wer"]}' in done.stdout
    assert (tmp_path / "again.qst").read_bytes() == (tmp_path / "model.qst").read_bytes()


def test_kernels(processor: str) -> None:
    done = python_on(processor, "-m", "pytest", *KERNELS)
    assert done.returncode == 0, done.stdout
