"""Code that the user names in a configuration, and that does not work: one sentence that says where, exit code 2."""

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import TOKENIZER, model_config, packed, run_config, talkative
from torch import nn

import qstudy
from qstudy.errors import UserError
from qstudy.model import RNNT
from qstudy.quant.packed.layer import PackedArithmetic
from qstudy.quant.policies import build_policy
from qstudy.settings import FeatureSettings, ModelConfig
from qstudy.training.start import read_start

POLICY = "from qstudy.quant.policies import QuantPolicy\nclass P(QuantPolicy):\n"
FILES = {
    "a syntax error": ("class P(\n", r"own_code\.py, line 1"),
    "an exception": ("x = 1\nraise ValueError('no\\nway')\n", r"own_code\.py:2: ValueError: no way"),
    "an end": ("import sys\nsys.exit(0)\n", r"own_code\.py:2: SystemExit: 0"),
    "a missing module": ("import nothing_of_this_name\n", "No module named 'nothing_of_this_name'"),
    "no such class": ("class Q: ...\n", "has no attribute 'P'"),
    "no class": ("P = 3\n", "cannot be imported"),
    "a function": ("def P(): open('called', 'w')\n", r"is not a class that derives from .*QuantPolicy"),
    "another class": ("class P:\n    def __init__(self): open('called', 'w')\n", r"is not a class that derives from"),
    "an abstract class": (
        "from abc import ABC, abstractmethod\n"
        + POLICY.replace("(QuantPolicy)", "(QuantPolicy, ABC)")
        + "    @abstractmethod\n    def f(self): ...\n",
        "cannot be made .*abstract",
    ),
    "a constructor that fails": (
        POLICY + "    def arithmetic(self, layer, bits): ...\n    def __init__(self): 1 / 0\n",
        r"cannot be made .*own_code\.py:4: ZeroDivisionError",
    ),
    "other arguments": (POLICY + "    def arithmetic(self, layer, bits): ...\n    def __init__(self, a): ...\n", "'a'"),
}


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Writes `own_code.py` where the user works."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "own_code", raising=False)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    yield (tmp_path / "own_code.py").write_text
    sys.modules.pop("own_code", None)


@pytest.mark.parametrize("case", FILES)
def test_a_policy_that_does_not_work(case: str, write: Any) -> None:
    code, said = FILES[case]
    write(code)
    with pytest.raises(UserError, match=said) as error:
        build_policy({"name": "own_code.P"})
    assert "\n" not in str(error.value)
    assert not Path("called").exists()


@pytest.mark.parametrize("name", [".", "a.", ".a", "..a.b", "os.system", "builtins.dict", "this.x", "os.path"])
def test_names_that_are_no_policy(name: str, write: Any) -> None:
    with pytest.raises(UserError, match="policy"):
        build_policy({"name": name})


def test_an_encoder_that_does_not_say_enough(write: Any) -> None:
    write(
        "from qstudy.model import Encoder\nclass P(Encoder):\n    output_size = 4\n    output_ms = 20.0\n"
        "    def forward(self, features, lengths, state=None): ...\n"
    )
    with pytest.raises(UserError, match=r"model\.encoder: 'own_code\.P' does not set chunk_frames"):
        RNNT(ModelConfig(encoder={"name": "own_code.P"}), FeatureSettings(), 29)


@pytest.mark.parametrize("base", ["", "(Module)"])
def test_an_encoder_that_is_none(write: Any, base: str) -> None:
    write(f"from torch.nn import Module\nclass P{base}: ...\n")
    with pytest.raises(UserError, match=r"model\.encoder: .*derives from qstudy\.model\.encoders\.base\.Encoder"):
        RNNT(ModelConfig(encoder={"name": "own_code.P"}), FeatureSettings(), 29)


PACKED = "from qstudy.quant.packed.integer import PackedInteger\nclass Mine(PackedInteger): ...\n"


@pytest.fixture
def file(write: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A packed model of one layer that asks for `own_code.Mine`, which this process does not know."""
    monkeypatch.setattr(PackedArithmetic, "known", dict(PackedArithmetic.known))
    policy = {"name": "native_int", "layers": {"*": {"weight": 8, "activation": 8}}}
    packed = qstudy.pack(qstudy.calibrate(qstudy.quantize(plain(), policy), [torch.randn(4, 3)]))
    packed.header["arithmetic"]["0"] = "own_code.Mine"
    packed.save(tmp_path / "model.qst")
    return tmp_path / "model.qst"


def plain() -> nn.Sequential:
    return nn.Sequential(nn.Linear(3, 2))


def test_a_model_of_any_kind_is_loaded_with_the_file_that_it_needs(write: Any, file: Path) -> None:
    write(PACKED)
    with pytest.raises(UserError, match=r"--trust own_code\.py"):
        qstudy.load(file, into=plain())
    loaded = qstudy.load(file, into=plain(), trust="own_code.py")
    assert type(loaded[0].arithmetic).__name__ == "Mine"


def test_a_trusted_file_imports_what_lies_beside_it(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever it lies; but nothing beside it stands in for what others import."""
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    (folder / "own_code.py").write_text(f"import own_neighbour, textwrap\n{PACKED}")
    (folder / "own_neighbour.py").write_text("")
    (folder / "textwrap.py").write_text("raise ValueError")
    monkeypatch.delitem(sys.modules, "textwrap", raising=False)
    qstudy.load(file, into=plain(), trust=folder / "own_code.py")
    assert "own_neighbour" in sys.modules
    sys.modules.pop("own_neighbour")


ENCODER = """
from qstudy.model import Encoder
from qstudy.quant.layers import Linear

class P(Encoder):
    training_only = ("strength",)

    def __init__(self, features, hidden: int = 16, strength: float = 1.0):
        super().__init__(features)
        self.output_size, self.output_ms, self.chunk_frames = hidden, features.hop_ms, 1
        self.project = Linear(features.bins, hidden)

    def forward(self, features, lengths, state=None):
        return self.project(self.normalize(features)[0]), lengths, None
"""


def test_an_own_encoder_starts_from_one_that_differs_in_training_alone(write: Any, tmp_path: Path) -> None:
    write(ENCODER)
    joiner = {"hidden": 12}
    config = ModelConfig({"name": "own_code.P", "hidden": 16, "strength": 2.0}, model_config().predictor, joiner)
    model = talkative(config)
    packed(model, build_policy({"name": "float"}), config).save(tmp_path / "start.qst")

    def started(**options: Any) -> RNNT:
        parts = {"encoder": {"name": "own_code.P", **options}, "predictor": config.predictor, "joiner": joiner}
        return read_start(tmp_path / "start.qst", run_config(tmp_path, tmp_path, model=parts), TOKENIZER)

    for options in ({"strength": 3.0}, {"hidden": 16}, {}):
        assert torch.equal(started(**options).encoder.project.weight, model.encoder.project.weight)
    with pytest.raises(UserError, match=r"differs in model\.encoder\.hidden \(16 there, 24 here\)"):
        started(hidden=24)
    with pytest.raises(UserError, match=r"model\.encoder\.name \(own_code\.P there, lstm here\)"):
        started(name="lstm", hidden=16)
