"""Model files of another author: their hashes are right, what they say is not. Nothing of it runs."""

import copy
import json
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors
from tiny import filled, model_config, packed, talkative

from qstudy.cli import main
from qstudy.errors import UserError
from qstudy.quant.packed import file as packed_file
from qstudy.quant.packed.model import PackedModel
from qstudy.training.load import load_recognizer

Arrays = dict[str, Any]
CANARY = "from pathlib import Path\nPath('owned').touch()\nclass J:\n    pass\n"


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """W4A8: integers, scales, quantizers, biases and constants."""
    path = tmp_path_factory.mktemp("original") / "model.qst"
    model = talkative()
    policy = filled(model, {"name": "ptq", "layers": {"*": {"weight": 4, "activation": 8}}})
    packed(model, policy, model_config()).save(path)
    return path


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the user works, with code of someone else in it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "evil.py").write_text(CANARY)
    return tmp_path


def rewritten(original: Path, out: Path, change: Callable[[Arrays, dict[str, Any]], None]) -> Path:
    """The file as another program would write it after `change`: with the hashes of what it holds."""
    contents = packed_file.read(original)
    arrays, header = dict(contents.arrays), copy.deepcopy(contents.header)
    change(arrays, header)
    packed_file.write(out, arrays, header)
    return out


def refused(path: Path, why: str = ".") -> str:
    """The one sentence with which a file is refused, which says why."""
    with pytest.raises(UserError, match=why) as error:
        load_recognizer(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_load_save_load(original: Path, tmp_path: Path) -> None:
    PackedModel.load(original).save(tmp_path / "again.qst")
    assert (tmp_path / "again.qst").read_bytes() == original.read_bytes()
    load_recognizer(tmp_path / "again.qst")


def test_the_committed_models_are_whole() -> None:
    root = Path(__file__).parents[1]
    for path in (root / "reports/digits/best.qst", root / "sweeps/base/commands.qst"):
        load_recognizer(path)


@pytest.mark.parametrize("missing", ["sha256", "header_sha256"])
def test_both_hashes_must_be_there(original: Path, tmp_path: Path, missing: str) -> None:
    with safetensors.safe_open(str(original), "numpy") as file:
        header = json.loads(file.metadata()["qstudy"])
        arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    del header[missing]
    path = tmp_path / "model.qst"
    path.write_bytes(safetensors.numpy.save(arrays, {"qstudy": json.dumps(header)}))
    refused(path)


# Tensors


def replace(name: str, value: Any) -> Callable[[Arrays, dict[str, Any]], None]:
    return lambda arrays, header: arrays.update({name: value(arrays[name]) if callable(value) else value})


def with_nan(array: Any) -> Any:
    changed = array.copy()
    changed.flat[0] = np.nan
    return changed


TENSORS: dict[str, tuple[Callable[[Arrays, dict[str, Any]], Any], str]] = {
    "no bias": (lambda arrays, header: arrays.pop("joiner.output.bias"), r"the tensors of joiner.output take"),
    "no constant": (
        lambda arrays, header: arrays.pop("encoder.normalize.mean"),
        r"the tensors of encoder.normalize take",
    ),
    "no codes": (lambda arrays, header: arrays.pop("encoder.lstm.0.1.codes"), r"the tensors of encoder.lstm.0 take"),
    "no scale": (lambda arrays, header: arrays.pop("encoder.lstm.0.1.scale"), r"the tensors of encoder.lstm.0 take"),
    "no qparams": (
        lambda arrays, header: arrays.pop("encoder.lstm.0.activation"),
        r"the tensors of encoder.lstm.0 take",
    ),
    "one more in a layer": (
        replace("joiner.output.extra", np.ones(3, np.float32)),
        r"the tensors of joiner.output take",
    ),
    "one more in no layer": (replace("other", np.ones(3, np.float32)), r"tensors of no layer"),
    "a bias where there is none": (
        replace("joiner.predictor.bias", np.ones(12, np.float32)),
        r"the tensors of joiner.predictor take",
    ),
    "codes too short": (
        replace("joiner.output.0.codes", lambda codes: codes[:-1]),
        r"the tensors of joiner.output take",
    ),
    "codes too long": (
        replace("joiner.output.0.codes", lambda codes: np.append(codes, codes[:1])),
        r"the tensors of joiner.output take",
    ),
    "codes of another type": (
        replace("joiner.output.0.codes", lambda codes: codes.astype(np.float32)),
        r"the tensors of joiner.output take",
    ),
    "one scale for all": (
        replace("joiner.output.0.scale", lambda scale: scale[:1]),
        r"the tensors of joiner.output take",
    ),
    "a scale of integers": (
        replace("joiner.output.0.scale", lambda scale: np.ones_like(scale, np.int32)),
        r"joiner.output.0.scale is int32",
    ),
    "a scale that is no number": (
        replace("joiner.output.0.scale", with_nan),
        r"joiner.output.0.scale holds a number that is not finite",
    ),
    "a bias that is no number": (
        replace("joiner.output.bias", with_nan),
        r"joiner.output.bias holds a number that is not finite",
    ),
    "an infinite constant": (
        replace("encoder.normalize.deviation", lambda deviation: deviation + np.inf),
        "of the features is not finite",
    ),
    "a constant of another shape": (
        replace("encoder.normalize.mean", lambda mean: mean.reshape(2, -1)),
        r"encoder.normalize.mean is float32",
    ),
    "a scale of zero": (
        replace("joiner.output.activation", lambda quantizers: quantizers * 0),
        r"scale that is not above 0",
    ),
    "a hidden state with a zero point": (
        replace("encoder.lstm.0.activation", lambda quantizers: quantizers + np.array([[0, 0], [0, 3]], np.float32)),
        "of a hidden state",
    ),
    "scales without bounds": (replace("joiner.output.0.scale", lambda scale: scale * 0 + 3e38), r"above 1e\+30"),
    "a mean beyond its deviation": (
        lambda arrays, header: arrays.update(
            {
                "encoder.normalize.mean": arrays["encoder.normalize.mean"] * 0 + np.float32(1e20),
                "encoder.normalize.deviation": arrays["encoder.normalize.deviation"] * 0 + np.float32(1e-20),
            }
        ),
        "of the features is not finite or too large",
    ),
    "a mean without bounds": (replace("encoder.normalize.mean", lambda mean: mean * 0 + 3e38), "too large"),
    "a deviation next to nothing": (
        replace("encoder.normalize.deviation", lambda each: each * 0 + np.float32(1e-38)),
        "too large",
    ),
    "a deviation of zero": (replace("encoder.normalize.deviation", lambda each: each * 0), "is not above 0"),
    "one quantizer for two": (
        replace("encoder.lstm.0.activation", lambda quantizers: quantizers[:1]),
        r"the tensors of encoder.lstm.0 take",
    ),
    "a bias by another name": (
        lambda arrays, header: arrays.update({"joiner.output.shift": arrays.pop("joiner.output.bias")}),
        "joiner.output.bias is missing",
    ),
    "one empty tensor more": (
        replace("joiner.output.extra", np.ones(0, np.float32)),
        "joiner.output.extra, which its header does not mention",
    ),
}


@pytest.mark.parametrize("change", TENSORS)
def test_tensors_that_layers_and_widths_do_not_have(original: Path, tmp_path: Path, change: str) -> None:
    tamper, why = TENSORS[change]
    refused(rewritten(original, tmp_path / "model.qst", tamper), why)


def test_the_file_of_another_program_that_fits_is_read(original: Path, tmp_path: Path) -> None:
    load_recognizer(rewritten(original, tmp_path / "model.qst", lambda arrays, header: None))


# Header


HEADERS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "ten million bins": lambda header: header["features"].update(bins=10**7),
    "no model": lambda header: header.pop("model"),
    "a model without an encoder": lambda header: header["model"].update(encoder={}),
    "a billion layers": lambda header: header["model"]["encoder"].update(layers=10**9),
    "a billion units": lambda header: header["model"]["encoder"].update(hidden=10**9),
    "units in words": lambda header: header["model"]["encoder"].update(hidden="many"),
    "an unknown option": lambda header: header["model"]["joiner"].update(depth=3),
    "no features": lambda header: header.pop("features"),
    "features in a list": lambda header: header.update(features=[40]),
    "an unknown feature": lambda header: header["features"].update(deltas=2),
    "no tokenizer": lambda header: header.pop("tokenizer"),
    "a tokenizer of another size": lambda header: header["tokenizer"].update(alphabet="abc"),
    "an alphabet that is a number": lambda header: header["tokenizer"].update(alphabet=3),
    "an unknown arithmetic": lambda header: header["arithmetic"].update({"joiner.output": "floating"}),
    "no arithmetic": lambda header: header["arithmetic"].pop("joiner.output"),
    "integer products with a table": lambda header: header["arithmetic"].update({"predictor.embedding": "integer"}),
    "float activations in integers": lambda header: header["arithmetic"].update({"joiner.output": "weights_only"}),
    "float weights in integers": lambda header: header["arithmetic"].update({"joiner.output": "float_weights"}),
    "what arithmetics derive from": lambda header: header["arithmetic"].update(
        {"joiner.output": "qstudy.quant.packed.scaled.PackedScaled"}
    ),
    "arithmetics in a list": lambda header: header.update(arithmetic=["integer"]),
    "another arithmetic": lambda header: header["arithmetic"].update({"encoder.lstm.0": "fixed_point"}),
    "no groups in an arithmetic with": lambda header: header["arithmetic"].update({"joiner.output": "grouped"}),
    "control characters": lambda header: header["tokenizer"].update(alphabet="".join(map(chr, range(1, 29)))),
    "groups in an arithmetic without": lambda header: header["bit_map"]["joiner.output"].update(granularity="group"),
    "other widths": lambda header: header["bit_map"]["joiner.output"].update(weight=8),
    "a float width": lambda header: header["bit_map"]["joiner.output"].update(weight=4.0),
    "one layer less": lambda header: header["shapes"].pop(),
    "a layer twice": lambda header: header["shapes"].append(header["shapes"][-1]),
    "a negative size": lambda header: header["shapes"][-1].update(vectors=-5),
    "a layer of another kind": lambda header: header["shapes"][1].update(kind="linear"),
    "another rate": lambda header: header["shapes"][1].update(every_ms=1.0),
    "widths of no layer": lambda header: header["bit_map"].update(other=header["bit_map"]["joiner.output"]),
    "no widths": lambda header: header.pop("bit_map"),
    "layers in words": lambda header: header.update(shapes="three"),
}


@pytest.mark.parametrize("change", HEADERS)
def test_headers_that_do_not_fit(original: Path, tmp_path: Path, change: str) -> None:
    path = rewritten(original, tmp_path / "model.qst", lambda _, header: HEADERS[change](header))
    started = time.monotonic()
    refused(path)
    assert time.monotonic() - started < 20, "something of that size was made"


def test_a_float_models_arithmetics_are_read_too(tmp_path: Path) -> None:
    model = talkative()
    packed(model, filled(model, {"name": "float"}), model_config()).save(tmp_path / "float.qst")
    change = lambda _, header: header.update(arithmetic=[[]])  # noqa: E731
    refused(rewritten(tmp_path / "float.qst", tmp_path / "model.qst", change), "arithmetic")


def test_many_tensors_take_no_longer_than_reading_them(original: Path, tmp_path: Path) -> None:
    def many(arrays: Arrays, header: dict[str, Any]) -> None:
        constant = next(shape for shape in header["shapes"] if shape["kind"] == "constant")
        for number in range(4000):
            arrays[f"c{number}.x"] = np.zeros(0, np.float32)
            header["shapes"].append({**constant, "name": f"c{number}", "vectors": 0})

    path = rewritten(original, tmp_path / "model.qst", many)
    started = time.process_time()
    refused(path, "another model")
    assert time.process_time() - started < 4, "every layer looked at every tensor"


def test_a_header_that_is_too_deep(original: Path, tmp_path: Path) -> None:
    arrays = packed_file.read(original).arrays
    path = tmp_path / "model.qst"
    path.write_bytes(safetensors.numpy.save(arrays, {"qstudy": "[" * 10**5 + "]" * 10**5}))
    refused(path)


# Code


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to every entry of nested lists and mappings."""
    entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, entry in entries:
        yield (*path, key)
        yield from places(entry, (*path, key))


def put(header: dict[str, Any], place: tuple[Any, ...], value: Any) -> None:
    owner: Any = header
    for key in place[:-1]:
        owner = owner[key]
    owner[place[-1]] = value


@pytest.mark.parametrize("code", ["evil.J", {"name": "evil.J"}, {"class_path": "evil.J"}], ids=str)
def test_no_field_of_a_header_runs_code(original: Path, folder: Path, code: Any) -> None:
    header = packed_file.read(original).header
    for place in places(header):
        path = rewritten(original, folder / "model.qst", lambda _, header, place=place: put(header, place, code))
        with suppress(UserError):
            load_recognizer(path)
        assert not (folder / "owned").exists(), place


@pytest.mark.parametrize("part", ["encoder", "predictor", "joiner"])
def test_code_that_a_model_file_asks_for_is_named(original: Path, folder: Path, part: str) -> None:
    path = rewritten(
        original, folder / "model.qst", lambda _, header: header["model"].update({part: {"name": "evil.J"}})
    )
    assert "'evil.J'" in refused(path)
    assert "--trust evil.py" in refused(path)
    assert not (folder / "owned").exists()


@pytest.mark.parametrize("name", ["evil.J", "os.system", "torch.nn.Linear"])
def test_an_arithmetic_that_a_model_file_asks_for_is_named(original: Path, folder: Path, name: str) -> None:
    change = lambda _, header: header["arithmetic"].update({"joiner.output": name})  # noqa: E731
    said = refused(rewritten(original, folder / "model.qst", change), "arithmetic.joiner.output")
    assert f"{name!r}" in said
    assert "--trust" in said
    assert not (folder / "owned").exists()


LINES = "x\nqstudy: all is well"


@pytest.mark.parametrize(
    "change",
    [
        lambda arrays, header: arrays.update({LINES: np.ones(3, np.float32)}),
        lambda arrays, header: header["shapes"][1].update(name=LINES),
        lambda arrays, header: header["bit_map"].update({LINES: header["bit_map"]["joiner.output"]}),
        lambda arrays, header: header["features"].update({LINES: 1}),
        lambda arrays, header: header["model"]["encoder"].update({LINES: 1}),
    ],
    ids=["a tensor", "a layer", "widths", "a feature", "an option"],
)
def test_no_name_speaks_in_our_place(
    original: Path, tmp_path: Path, change: Callable[[Arrays, dict[str, Any]], None]
) -> None:
    refused(rewritten(original, tmp_path / "model.qst", change), r"'x\\nqstudy: all is well', with control characters")


NO_NAMES = {
    "a name of two lines": "x\nqstudy: all is well.C",
    "a name with a command": "x; rm -rf ~ #.C",
    "a name that goes elsewhere": "..evil.J",
    "a name without an end": "x" * 10**6 + ".C",
}


@pytest.mark.parametrize("name", NO_NAMES)
@pytest.mark.parametrize("field", ["arithmetic", "encoder"])
def test_what_is_no_name_is_not_passed_on(original: Path, folder: Path, name: str, field: str) -> None:
    """No line of the author's choice reaches the terminal, and no command to copy."""

    def change(_: Arrays, header: dict[str, Any]) -> None:
        place = header["arithmetic"] if field == "arithmetic" else header["model"]
        place.update({"joiner.output": NO_NAMES[name]} if field == "arithmetic" else {field: {"name": NO_NAMES[name]}})

    said = refused(rewritten(original, folder / "model.qst", change), "is not the name of a class|control characters")
    assert "--trust" not in said
    assert len(said) < len(str(folder)) + 250


@pytest.mark.parametrize("command", ["transcribe {} a.wav", "evaluate {} --manifest m.jsonl", "simulate {}"])
def test_commands_say_it_in_one_sentence(
    original: Path, folder: Path, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = rewritten(original, folder / "model.qst", lambda _, header: header["bit_map"].pop("joiner.output"))
    with pytest.raises(SystemExit) as exit_code:
        main(command.format(path).split())
    assert exit_code.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1
