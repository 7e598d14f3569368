"""Models by name: where they may be named, what is stored of them, and what docs/models.md says that they cost."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from parts import batch, model_of, train
from tiny import FEATURES, TOKENIZER
from torch.nn.utils import parameters_to_vector

from qstudy.arguments import read_configurations
from qstudy.cli import all_options, main
from qstudy.commands.presets import markdown_table, presets, price
from qstudy.commands.train import train as train_command
from qstudy.errors import UserError
from qstudy.hardware.accelerator import load_accelerator
from qstudy.hardware.simulator import simulate
from qstudy.hardware.workload import workload
from qstudy.model import RNNT, ModelConfig
from qstudy.presets import load_preset, preset_names
from qstudy.settings import FeatureSettings
from qstudy.sweep.config import StudyConfig
from qstudy.training.config import RunConfig, config_from_dict, to_dict

ROOT = Path(__file__).parents[1]
DATA = {"train": "train.jsonl", "dev": "dev.jsonl"}
pytestmark = pytest.mark.usefixtures("one_thread")  # small tensors
every_preset = pytest.mark.parametrize("name", preset_names())
small = pytest.mark.parametrize("name", [name for name in preset_names() if price(name).parameters < 1e7])


def model_section(values: dict[str, Any]) -> dict[str, Any]:
    section: dict[str, Any] = to_dict(config_from_dict({"data": DATA, "model": values}))["model"]
    return section


def from_command_line(*arguments: str) -> dict[str, Any]:
    given = ["--data", json.dumps(DATA), *arguments]
    configured, rest = read_configurations({"config": RunConfig}, given)
    assert rest == []
    section: dict[str, Any] = to_dict(configured["config"])["model"]
    return section


@every_preset
def test_a_preset_becomes_its_parts(name: str) -> None:
    """What is stored holds the parts themselves, and gives the same model again."""
    section = model_section({"preset": name})
    assert section == load_preset(name).parts
    assert model_section(section) == section
    assert from_command_line("--model.preset", name) == section


def test_what_stands_beside_a_preset_changes_its_parts() -> None:
    own = load_preset("bilstm").parts
    section = model_section({"preset": "bilstm", "joiner": {"hidden": 7}, "predictor": {"name": "weighted"}})
    assert section["encoder"] == own["encoder"]
    assert section["joiner"] == {**own["joiner"], "hidden": 7}
    assert section["predictor"] == {"name": "weighted"}  # another part: the options were the LSTM's
    assert section == from_command_line(
        "--model.preset", "bilstm", "--model.joiner.hidden", "7", "--model.predictor", "{name: weighted}"
    )


def test_a_preset_replaces_what_was_configured_before(tmp_path: Path) -> None:
    base = ROOT / "sweeps" / "base" / "digits.yaml"
    assert from_command_line("--config", str(base), "--model.preset", "lstm-small") == load_preset("lstm-small").parts
    study = StudyConfig("s", {"data": DATA, "model": {"joiner": {"hidden": 9}}}, grid=({"model": {"preset": "lstm"}},))
    assert to_dict(study.run_of({"model": {"preset": "lstm"}}))["model"] == load_preset("lstm").parts
    assert study.run_of({}).model.joiner == {"hidden": 9}


def test_without_a_preset_nothing_has_changed() -> None:
    assert model_section({}) == {"encoder": {"name": "lstm"}, "predictor": {"name": "lstm"}, "joiner": {}}
    assert from_command_line("--model.encoder.hidden", "64")["encoder"] == {"name": "lstm", "hidden": 64}
    assert "preset" not in {field.name for field in dataclasses.fields(ModelConfig)}  # names of baselines stay


@pytest.mark.parametrize("wrong", ["lstm-large", "", 3, "../presets/lstm"], ids=repr)
def test_an_unknown_preset_is_one_sentence(wrong: Any) -> None:
    with pytest.raises(UserError, match=r"model\.preset: ") as error:
        model_section({"preset": wrong})
    assert "\n" not in str(error.value)
    if wrong == "lstm-large":
        assert all(name in str(error.value) for name in preset_names())


def test_the_help_of_train_lists_them(capsys: pytest.CaptureFixture[str]) -> None:
    helped = {action.dest: action.help or "" for action in all_options("train", train_command, ())._actions}
    said = " ".join(helped["model.preset"].split())
    named = said.partition(": ")[2].partition(".")[0].split(", ")
    assert named == preset_names()
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    assert "InitVar" not in capsys.readouterr().out


@every_preset
def test_costs_are_those_of_the_model(name: str) -> None:
    """Multiply-accumulates and parameters by another way: the simulator's report, and torch's own count."""
    preset, priced = load_preset(name), price(name)
    with torch.device("meta"):
        model = RNNT(ModelConfig(preset=name), FeatureSettings(), preset.labels or TOKENIZER.size)
    shapes = model.shapes()
    report = simulate(workload(shapes, {}), load_accelerator("cortex_a76"))
    in_silence = 1 + 0.3 / 4  # the report counts the silence after speech, and whole frames
    macs = sum(operator.macs * (operator.runs or 0.0) for operator in report.operators)
    assert priced.macs_per_s < macs < 1.02 * in_silence * priced.macs_per_s
    lstms = sum(shape.vectors for shape in shapes if shape.kind == "lstm")  # torch keeps two biases
    normalization = 2 * FeatureSettings().bins
    buffers = sum(shape.vectors for shape in shapes if shape.kind == "constant") - normalization
    learned = parameters_to_vector(model.parameters()).numel()
    assert abs(priced.parameters - (learned - lstms + normalization)) <= buffers
    counters = sum(shape.other_bytes for shape in shapes)
    assert priced.float32.size_bytes == 4 * priced.parameters + counters
    assert priced.float32.size_bytes / 8 < priced.w4a8.size_bytes < priced.float32.size_bytes / 6
    assert 6 < priced.float32.read_bytes_per_s / priced.w4a8.read_bytes_per_s < 8


@small
def test_every_weight_of_a_preset_learns(name: str) -> None:
    model = RNNT(ModelConfig(preset=name), FEATURES, TOKENIZER.size)
    if branching := model.encoder.branching:
        branching.begin_step(0.5)  # halfway through a training, an amortized encoder mixes its branches
    loss, _ = train(model, 0)
    assert loss > 0
    for weight, parameter in model.named_parameters():
        assert parameter.grad is not None, weight
        assert parameter.grad.isfinite().all(), weight


def test_the_printed_table_is_what_the_command_prints(capsys: pytest.CaptureFixture[str]) -> None:
    presets(markdown=True)
    printed = capsys.readouterr().out.strip()
    assert printed == markdown_table([price(name) for name in preset_names()])
    assert printed in (ROOT / "docs" / "models.md").read_text()


@pytest.mark.parametrize(
    ("preset", "hidden", "parameters"),
    [
        ("lstm-small", 100, "289,693"),
        ("lstm-small", 152, "592,333"),
        ("lstm-small", 208, "1,039,213"),
        ("lstm", 400, "3,997,869"),
    ],
)
def test_the_printed_sizes_between_presets(preset: str, hidden: int, parameters: str) -> None:
    with torch.device("meta"):
        model = RNNT(ModelConfig(preset=preset, encoder={"hidden": hidden}), FeatureSettings(), TOKENIZER.size)
    assert f"{sum(shape.parameters for shape in model.shapes()):,}" == parameters
    assert parameters in " ".join((ROOT / "docs" / "models.md").read_text().split())


def test_the_command_prints_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    main(["presets", "--json"])
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["name"] for line in lines] == preset_names()
    main(["presets"])
    shown = capsys.readouterr().out
    for line in lines:
        assert line["name"] in shown
        assert f"{line['w4a8']['size_bytes'] / 1e6:.2f}" in shown


def test_the_papers_model_has_its_sizes() -> None:
    """Fasoli et al. 2022: 57 million parameters, as Saon et al. 2021 say of the same recognizer."""
    assert round(price("bilstm-int4").parameters / 1e6) == 57
    shapes = {shape.name: shape for shape in model_of(ModelConfig(preset="bilstm")).shapes()}
    assert shapes["encoder.layers.0.forward_lstm"].after_end
    assert batch()[0].shape[2] == FEATURES.bins
