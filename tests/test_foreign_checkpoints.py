"""Checkpoints of another author: nothing of them runs but what the user trusts, and all that is wrong is named."""

import copy
import pickle
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import TOKENIZER, run_config, talkative

from qstudy.cli import main
from qstudy.errors import UserError
from qstudy.model import RNNT
from qstudy.quant.packed.model import pack_model
from qstudy.quant.policies import build_policy
from qstudy.training.checkpoint import load_checkpoint, pack_checkpoint
from qstudy.training.config import to_dict

OWN = """
from pathlib import Path
from qstudy.quant.policies import Float
Path("owned").touch()
class Mine(Float):
    pass
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the user works, with a Python file in it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "named", raising=False)
    monkeypatch.setattr("qstudy.named._named_by_user", set())  # by whatever test ran before in this process
    (tmp_path / "named.py").write_text(OWN)
    return tmp_path


def content(policy: dict[str, Any] | None = None) -> dict[str, Any]:
    """What `qstudy train` writes, as far as it is read again."""
    config = run_config(Path("corpus"), Path("work"), policy=policy or {"name": "float"})
    model = RNNT(config.model, config.features, TOKENIZER.size)
    build_policy(config.policy).prepare(model)
    state = {f"model.{name}": value for name, value in model.state_dict().items()}
    about = {"config": to_dict(config), "tokenizer": TOKENIZER.to_dict()}
    return {"qstudy": about, "state_dict": state, "global_step": 3}


def written(values: Any) -> Path:
    torch.save(values, "last.ckpt")
    return Path("last.ckpt")


def refused(path: Path) -> str:
    with pytest.raises(UserError) as error:
        pack_checkpoint(path)
    message = str(error.value)
    assert message.startswith(str(path))
    assert "\n" not in message
    assert "weights_only" not in message
    return message


def command(*words: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(words)
    code = ended.value.code
    assert isinstance(code, int)
    return code


def test_what_we_write_is_read(folder: Path) -> None:
    assert pack_checkpoint(written(content())).size_bytes > 0


PARTS: dict[str, Callable[[dict[str, Any], Any], None]] = {
    "policy": lambda config, part: config.update(policy=part),
    "encoder": lambda config, part: config["model"].update(encoder=part),
    "predictor": lambda config, part: config["model"].update(predictor=part),
    "joiner": lambda config, part: config["model"].update(joiner=part),
    "base": lambda config, part: config.update(policy={"name": "mixed", "layers": {}, "base": part["name"]}),
}
CODE = {
    "a shell command": {"name": "os.system", "command": "touch owned"},
    "a file here": {"name": "named.Mine"},
    "a class": {"name": "float", "class_path": "named.Mine", "init_args": {}},
}


@pytest.mark.parametrize("code", CODE)
@pytest.mark.parametrize("part", PARTS)
def test_no_part_of_a_checkpoint_runs_code(folder: Path, part: str, code: str) -> None:
    values = content()
    PARTS[part](values["qstudy"]["config"], copy.deepcopy(CODE[code]))
    refused(written(values))
    assert not (folder / "owned").exists()


@pytest.mark.parametrize(
    "words", ["transcribe {} a.wav", "evaluate {} --manifest m", "export {} --out m.qst", "simulate {}"]
)
def test_no_command_runs_code(folder: Path, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    values = content()
    values["qstudy"]["config"]["policy"] = CODE["a shell command"]
    assert command(*words.format(written(values)).split()) == 2
    assert "'os.system'" in capsys.readouterr().err
    assert not (folder / "owned").exists()


def test_the_users_own_class_runs_when_he_trusts_its_file(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    values = content()
    values["qstudy"]["config"]["policy"] = {"name": "named.Mine"}
    path = written(values)
    assert "--trust named.py" in refused(path)
    (folder / "other.py").write_text("")
    assert command("export", str(path), "--out", "m.qst", "--trust", "other.py") == 2
    assert not (folder / "owned").exists()
    main(["export", str(path), "--out", "m.qst", "--trust", "named.py"])
    assert (folder / "owned").exists()
    assert (folder / "m.qst").exists()


def test_a_file_with_the_name_of_a_module_of_pythons_own(folder: Path) -> None:
    values = content()
    values["qstudy"]["config"]["policy"] = CODE["a shell command"]
    (folder / "os.py").write_text("")
    assert command("export", str(written(values)), "--out", "m.qst", "--trust", "os.py") == 2
    assert not (folder / "owned").exists()


def test_only_the_trusted_file_runs(folder: Path) -> None:
    """Another of its name lies where the command runs, as in a folder that somebody has sent."""
    (folder / "home").mkdir()
    (folder / "named.py").rename(folder / "home" / "named.py")
    (folder / "named.py").write_text("from pathlib import Path\nPath('strange').touch()\n")
    values = content()
    values["qstudy"]["config"]["policy"] = {"name": "named.Mine"}
    main(["export", str(written(values)), "--out", "m.qst", "--trust", "home/named.py"])
    assert (folder / "owned").exists()
    assert not (folder / "strange").exists()


def test_a_class_that_the_users_configuration_names_is_his(folder: Path) -> None:
    """A run reads its own checkpoint again."""
    build_policy({"name": "named.Mine"})
    values = content()
    values["qstudy"]["config"]["policy"] = {"name": "named.Mine"}
    assert pack_checkpoint(written(values)).size_bytes > 0


class Evil:
    """A pickle that touches a file where it is loaded."""

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("owned"),)


def test_a_pickle_runs_nothing_and_no_advice_is_passed_on(folder: Path) -> None:
    values = content()
    values["extra"] = Evil()
    refused(written(values))
    (folder / "plain.ckpt").write_bytes(pickle.dumps(Evil()))
    refused(Path("plain.ckpt"))
    assert not (folder / "owned").exists()


def huge(values: dict[str, Any]) -> None:
    values["qstudy"]["config"]["model"]["encoder"]["hidden"] = 60000


def laughing(values: dict[str, Any]) -> None:
    """A text of a few hundred bytes that stands for 2**60 values."""
    bomb: Any = ["x"]
    for _ in range(60):
        bomb = [bomb, bomb]
    values["qstudy"]["config"]["policy"] = {"name": "fake_qat", "layers": {"*": {"weight": bomb}}}


def strideless(values: dict[str, Any]) -> None:
    """Gigabytes of the same number."""
    values["state_dict"]["model.joiner.output.bias"] = torch.zeros(1).as_strided((10**9,), (0,))


def allocating(values: dict[str, Any]) -> None:
    values["extra"] = Asking()


class Asking:
    """What torch would allow: memory without end."""

    def __reduce__(self) -> tuple[Any, ...]:
        return bytearray, (10**7,)


DAMAGE: dict[str, Callable[[dict[str, Any]], Any]] = {
    "no description": lambda values: values.pop("qstudy"),
    "a description in words": lambda values: values.update(qstudy="float"),
    "no weights": lambda values: values.pop("state_dict"),
    "weights in a list": lambda values: values.update(state_dict=[1]),
    "weights that are text": lambda values: values["state_dict"].update({"model.joiner.output.bias": "x"}),
    "a weight less": lambda values: values["state_dict"].pop("model.joiner.output.bias"),
    "a weight more": lambda values: values["state_dict"].update({"model.other": torch.ones(3)}),
    "a weight of another size": lambda values: values["state_dict"].update({"model.joiner.output.bias": torch.ones(3)}),
    "a complex weight": lambda values: values["state_dict"].update(
        {"model.joiner.output.bias": values["state_dict"]["model.joiner.output.bias"] + 1j}
    ),
    "a weight that is no number": lambda values: values["state_dict"]["model.joiner.output.bias"].fill_(torch.nan),
    "no step": lambda values: values.pop("global_step"),
    "a step in words": lambda values: values.update(global_step="three"),
    "no tokenizer": lambda values: values["qstudy"].pop("tokenizer"),
    "another tokenizer": lambda values: values["qstudy"]["tokenizer"].update(alphabet="abc"),
    "an unknown field": lambda values: values["qstudy"]["config"].update(colour="red"),
    "a model of terabytes": huge,
    "lists that hold each other": laughing,
    "a tensor without strides": strideless,
    "an array that the file does not hold": allocating,
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_what_does_not_belong_together_is_named(folder: Path, damage: str) -> None:
    values = content()
    DAMAGE[damage](values)
    refused(written(values))


def test_a_compressed_checkpoint(folder: Path) -> None:
    path = written(content())
    with zipfile.ZipFile(path) as whole, zipfile.ZipFile("small.ckpt", "w", zipfile.ZIP_DEFLATED) as small:
        for name in whole.namelist():
            small.writestr(name, whole.read(name))
    assert "compressed" in refused(Path("small.ckpt"))


@pytest.mark.parametrize("left", [0, 10, 0.3, 0.9, 0.999])
def test_a_truncated_checkpoint(folder: Path, left: float) -> None:
    path = written(content())
    whole = path.read_bytes()
    path.write_bytes(whole[: int(left if left >= 1 else left * len(whole))])
    refused(path)


def test_weights_that_are_no_numbers_are_not_packed(folder: Path) -> None:
    """Every policy refuses them by the layer's name; some would make integers of them."""
    for policy in ("ptq", "int4_e2e", "accelerator_aware", "native_int"):
        model = talkative()
        built = build_policy({"name": policy, "layers": {"*": {"weight": 4, "activation": 4}}})
        built.prepare(model)
        model.joiner.output.weight.data[0, 0] = torch.inf
        with pytest.raises(UserError, match=r"joiner\.output"):
            pack_model(model, built.bit_map(model.shapes()), model.shapes(), {})
    with pytest.raises(UserError):
        load_checkpoint(Path("missing.ckpt"))
