"""Accelerator profiles: ours are sound, and mistakes in a user's file are named."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from qstudy.errors import UserError
from qstudy.hardware.accelerator import PROFILES, load_accelerator, profile_names


@pytest.mark.parametrize("name", profile_names())
def test_profiles_of_the_package(name: str) -> None:
    accelerator = load_accelerator(name)
    assert accelerator.name == name
    assert accelerator.has_energy
    assert load_accelerator(str(PROFILES / f"{name}.yaml")) == accelerator


def test_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(UserError, match="edge_nna"):
        load_accelerator("edge_nnaa")


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (("processor", "clock_mhz"), None, "clock_mhz"),
        (("processor", "clock_mhz"), 0, "clock_mhz: 0 should be greater"),
        (("processor", "clock_mhz"), 1e-300, "clock_mhz: 1e-300 should be greater"),
        (("processor", "clock_mhz"), 1e300, "clock_mhz: .* should be less"),
        (("processor", "clock_mhz"), "fast", "clock_mhz: 'fast' should be a valid number"),
        (("processor", "clock_mhz"), True, "clock_mhz: True should be a valid number"),
        (("processor", "rows"), 1.5, "rows: 1.5 should be a valid integer"),
        (("processor", "rows"), 10**30, "rows: .* should be less"),
        (("processor", "dataflow"), "row_stationary", "weight_stationary"),
        (("processor", "dataflow"), ["vector"], "weight_stationary"),
        (("processor", "fill"), "parallel", "processor.fill: 'parallel' is not one of serial, overlapped"),
        (("cpu", "fill"), "overlapped", "cpu.fill: vector lanes have no tile to fill; leave out 'overlapped'"),
        (
            ("processor", "elementwise_in"),
            "halves",
            "processor.elementwise_in: 'halves' is not one of",
        ),
        (("processor", "modes"), [], "modes: a list .* at least 1 item"),
        (("processor", "modes", 0, "weight"), 8.5, "weight: 8.5 should be a valid integer"),
        (("processor", "modes", 0, "weight"), 0, "weight: 0 should be greater"),
        (("processor", "modes", 0, "speed"), 1, "speed: there is no such field"),
        (("processor", "modes", 0, "macs"), float("inf"), "modes.0.macs: inf is not a finite number"),
        (("processor", "colums"), 4, "processor.colums: there is no such field"),
        (("memory", "dram_gb_per_s"), -1, "dram_gb_per_s"),
        (("memory", "sram_gb_per_s"), float("nan"), "memory.sram_gb_per_s: nan is not a finite number"),
        (("memory",), 5, "memory: this must be a mapping"),
        (("handover",), None, "handover: this field is missing"),
        (("name",), ["a"], "name: a list should be a valid string"),
        (("npu",), 1, "npu: there is no such field"),
    ],
)
def test_bad_fields_are_named(tmp_path: Path, place: tuple[Any, ...], value: object, message: str) -> None:
    raw = yaml.safe_load((PROFILES / "edge_nna.yaml").read_text())
    inner = raw
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(raw))
    with pytest.raises(UserError, match=message) as caught:
        load_accelerator(str(path))
    assert "mine.yaml" in str(caught.value)


def test_the_memory_of_a_cpu_that_is_not_there(tmp_path: Path) -> None:
    raw = yaml.safe_load((PROFILES / "int4_multicore.yaml").read_text())
    del raw["cpu"], raw["handover"]
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(raw))
    with pytest.raises(UserError, match=r"mine\.yaml: cpu_memory: there is no cpu"):
        load_accelerator(str(path))


@pytest.mark.parametrize("text", ["", "[1, 2]", "a: [", "processor: 3"])
def test_files_that_are_no_profile(tmp_path: Path, text: str) -> None:
    path = tmp_path / "broken.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=r"broken\.yaml"):
        load_accelerator(str(path))


def test_missing_file() -> None:
    with pytest.raises(UserError, match=r"no_such\.yaml"):
        load_accelerator("no_such.yaml")
