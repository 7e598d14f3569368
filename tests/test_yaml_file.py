"""YAML from anywhere: bounded, strict, and refused in one sentence, in no time."""

import os
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from qstudy.cli import main
from qstudy.errors import UserError
from qstudy.yaml_file import MOST_BYTES, load_yaml, parse_yaml

BOMB = "a0: &a0 [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"a{i}: &a{i} [{','.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12)
)

REFUSED = {
    "an anchor inside itself": ("base: &b {data: *b}", r"line 1: \*b refers to itself"),
    "an alias bomb": (BOMB, "more than 20,000 values"),
    "a merge bomb": ("a: &a {<<: *a}", "refers to itself"),
    "values without end": ("[" + "1," * 400_000 + "]", "more than 20,000 values"),
    "deep nesting": ("[" * 100_000, "more than 50 levels"),
    "a key twice": ("a: 1\nb: 2\na: 3\n", "line 3: the key 'a' occurs twice"),
    "a key twice, within": ("a: {b: 1, b: 2}", "the key 'b' occurs twice"),
    "a number as a key": ("1: x", "the key '1' is not text; put it in quotes"),
    "a truth as a key": ("no: x", "the key 'no' is not text"),
    "a list as a key": ("[1]: x", "a key is not text"),
    "a giant number": ("a: " + "9" * 5000, "more than 100 digits"),
    "a giant hexadecimal number": ("a: 0x" + "9" * 5000, "more than 100 digits"),
    "NUL": ("a: b\0c", "control characters"),
    "an escaped NUL": ('a: "b\\0c"', "NUL"),
    "a tag": ("a: !!python/object/apply:os.system [ls]", "tag .* is not supported"),
    "a date by tag": ("a: !!timestamp 2020-13-45", "tag .* is not supported"),
    "an integer by tag": ("a: !!int ''", "tag .* is not supported"),
    "two documents": ("--- a\n--- b", "another document"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_in_one_sentence_and_no_time(case: str) -> None:
    text, said = REFUSED[case]
    begin = time.perf_counter()
    with pytest.raises(UserError, match=said) as error:
        parse_yaml(text, "study.yaml")
    assert time.perf_counter() - begin < 2
    assert str(error.value).startswith("study.yaml is not valid YAML")
    assert len(str(error.value)) < 300


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1:30", "1:30"),
        ("1:30.5", "1:30.5"),
        ("010", "010"),
        ("2020-01-01", "2020-01-01"),
        ("1e-3", 1e-3),
        ("7E2", 7e2),
        (".5", 0.5),
        ("-5.", -5.0),
        ("+3", 3),
        ("1_000", 1000),
        ("0x10", 16),
        ("-.inf", float("-inf")),
        ("yes", True),
        ("~", None),
        ("w²a8", "w²a8"),
        ("１２", "１２"),
        ("{a: &x {b: 1}, c: {<<: *x, d: 2}}", {"a": {"b": 1}, "c": {"b": 1, "d": 2}}),
        ("{p: {q: &a {<<: {x: 2}, x: 1}}, c: {<<: *a}}", {"p": {"q": {"x": 1}}, "c": {"x": 1}}),
    ],
)
def test_what_plain_values_are(text: str, value: Any) -> None:
    assert parse_yaml(text, "x") == value
    assert type(parse_yaml(text, "x")) is type(value)


def test_what_is_dumped_comes_back() -> None:
    shared = {
        "steps": 40,
        "rate": 1e-05,
        "name": "1:30",
        "on": "no",
        "path": "a: b",
        "none": None,
        "all": [True, 1, "1"],
    }
    value = {"training": shared, "finetune": shared}  # dumped as anchor and alias
    assert parse_yaml(yaml.safe_dump(value), "x") == value


def refused(arguments: list[str], capfd: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as exit:
        main(arguments)
    out, err = capfd.readouterr()
    assert (exit.value.code, out, err.count("\n")) == (2, "", 1), err
    return err


@pytest.mark.parametrize("command", [["train", "--config"], ["sweep"]], ids=" ".join)
@pytest.mark.parametrize(
    ("content", "said"),
    [(b"data: \xff\xfe", "not UTF-8"), (b"x" * (MOST_BYTES + 1), "1,000,000 bytes"), (None, "Is a directory")],
    ids=["bytes", "large", "folder"],
)
def test_files_that_no_command_takes(
    command: list[str], content: bytes | None, said: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "x.yaml"
    path.mkdir() if content is None else path.write_bytes(content)
    told = refused([*command, str(path)], capfd)
    assert str(path) in told
    assert said in told


def test_a_file_without_end(tmp_path: Path) -> None:
    """A sparse file of a terabyte, and a device: what is read is bounded."""
    with (tmp_path / "huge.yaml").open("wb") as file:
        os.truncate(file.fileno(), 10**12)
    for path in (tmp_path / "huge.yaml", Path("/dev/zero")):
        with pytest.raises(UserError, match="1,000,000 bytes"):
            load_yaml(path)
