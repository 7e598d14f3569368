"""Every processor trains, exports and evaluates, and its kernels are exact: tried as two that are older than most."""

import json
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest
import yaml
from processors import CASES, on_x86, python_on
from tiny import run_config

from qstudy.files import read_json
from qstudy.training.config import to_dict

pytestmark = on_x86

STUDY = """
import sys
import pytest
import torch
from qstudy.cli import main
from qstudy.quant.kernels import ir
assert (ir.LANES, ir.VNNI, ir.BF16, torch.backends.cpu.get_cpu_capability()) == (8, False, False, sys.argv[1])
folder, dev, *kernels = sys.argv[2:]
assert not main(["train", "--config", f"{folder}/run.yaml", "--out", folder])
assert not main(["export", f"{folder}/last.ckpt", "--out", f"{folder}/again.qst"])
assert not main(["evaluate", f"{folder}/again.qst", "--manifest", dev, "--json"])
print("studied", flush=True)
sys.exit(pytest.main(kernels))
"""
Ran = tuple[Path, CompletedProcess[str]]
CAPABILITY = {"AVX2": "AVX2", "x86-64": "DEFAULT"}
KERNELS = (
    "tests/test_kernels.py",
    "tests/test_gemv.py::test_equal_to_numpy",
    "tests/test_packed.py::test_integer_products_are_exact",
    "tests/test_packed.py::test_no_float_copy_of_a_quantized_weight",
)


@pytest.fixture(scope="module", params=CASES)
def ran(request: pytest.FixtureRequest, corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """The folder of a study on an older processor, and what its process said, which then tested the kernels: in one,
    because each process imports torch and compiles by itself."""
    folder = tmp_path_factory.mktemp("processor")
    policy: dict[str, Any] = {"name": "native_int", "layers": {"*": {"weight": 4, "activation": 8}}}
    auto = {"precision": "auto", "steps": 4}
    config = run_config(corpus, folder, policy={**policy, "gradient": "bfloat16"}, training=auto, finetune=auto)
    (folder / "run.yaml").write_text(yaml.safe_dump(json.loads(json.dumps(to_dict(config)))))
    arguments = (CAPABILITY[request.param], str(folder), str(corpus / "dev.jsonl"))
    return folder, python_on(request.param, "-c", STUDY, *arguments, *KERNELS)


def test_train_export_evaluate(ran: Ran) -> None:
    folder, done = ran
    assert "studied" in done.stdout.splitlines(), done.stderr
    record = read_json(folder / "record.json")
    assert record["precision"] == "32-true"
    assert record["loss"]["last"] > 0
    assert done.stderr.count("gradient: bfloat16 would be emulated") == 1
    assert f'"wer": {record["metrics"]["dev"]["wer"]}' in done.stdout
    assert (folder / "again.qst").read_bytes() == (folder / "model.qst").read_bytes()


def test_kernels(ran: Ran) -> None:
    _, done = ran
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
