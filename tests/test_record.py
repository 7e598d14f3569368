"""Records: written whole, read back the same, and whatever is wrong in a stranger's is named."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from qstudy.errors import UserError
from qstudy.training.record import Record, parse_record, read_record, read_records, write_record


def made(**changes: Any) -> Record:
    bits = {"encoder.lstm.0": {"weight": 4, "activation": 8}}
    record = {"run": "trial-0000-ptq", "state": "complete", "policy": "ptq", "config": {}, "bit_map": bits}
    return Record(**{**record, "size_bytes": 512, **changes})


def test_records_come_back_by_name(tmp_path: Path) -> None:
    for name in ("trial-0002-ptq", "trial-0000-ptq", "trial-0001-ptq"):
        write_record(tmp_path / "runs" / name, made(run=name))
    (tmp_path / "runs" / "trial-0003-ptq").mkdir()  # has not ended
    found = read_records(tmp_path)
    assert [record.run for record in found] == ["trial-0000-ptq", "trial-0001-ptq", "trial-0002-ptq"]
    assert found[0] == made()


def test_numbers_that_json_does_not_know_become_null(tmp_path: Path) -> None:
    write_record(tmp_path, made(loss={"first": float("inf"), "last": float("nan")}, machine={"load": (1, 2.5)}))
    record = json.loads((tmp_path / "record.json").read_text(), parse_constant=pytest.fail)
    assert record["loss"] == {"first": None, "last": None}
    assert record["machine"] == {"load": [1, 2.5]}


def test_errors_and_waits_may_be_as_small_as_they_like(tmp_path: Path) -> None:
    """An H100 chose a quantizer whose error was 9e-15: the record of that run is no stranger's."""
    notes = {"choices": {"joiner.output.inputs": {"quantizer": "max", "errors": {"max": 9e-15, "pact": 0.0}}}}
    write_record(tmp_path, made(notes=notes, data_wait=1e-12, train_seconds=1e-10))
    record = read_record(tmp_path / "record.json")
    assert (record.notes, record.data_wait) == (notes, 1e-12)


@pytest.mark.parametrize("wrong", [{"state": "running"}, {"state": None}, {"run": 3}, {"steps": -1}], ids=str)
def test_a_wrong_record_is_not_written(tmp_path: Path, wrong: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=f"^{next(iter(wrong))}: "):
        write_record(tmp_path, made(**wrong))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("text", ['{"schema": 2, "ru', '{"schema": 1}', "[]", '{"schema": 2}', "[" * 9999, "NaN"])
def test_a_damaged_record_is_named(tmp_path: Path, text: str) -> None:
    folder = tmp_path / "runs" / "trial-0000-ptq"
    folder.mkdir(parents=True)
    (folder / "record.json").write_text(text)
    with pytest.raises(UserError, match=r"trial-0000-ptq/record\.json"):
        read_records(tmp_path)


def test_headline_prefers_the_test_set_and_the_first_accelerator() -> None:
    latency = {"edge": {"latency_ms": 2.0, "rtf": 0.1}, "server": {"latency_ms": 1.0, "rtf": 0.05}}
    record = made(metrics={"dev": {"wer": 0.1}, "test": {"wer": 0.2}}, latency=latency)
    assert record.headline == {"wer": 0.2, "size_bytes": 512, "latency_ms": 2.0, "rtf": 0.1}
    assert made(metrics={"dev": {"wer": 0.1}}).headline == {"wer": 0.1, "size_bytes": 512}
    assert made().headline == {"size_bytes": 512}


BARE = {"run": "a", "policy": "ptq", "state": "complete"}


def test_three_fields_are_enough() -> None:
    assert parse_record(BARE) == Record(run="a", policy="ptq", state="complete")


def test_unknown_fields_are_ignored() -> None:
    bits = {"encoder": {"weight": 4, "sparsity": 0.5}}
    future = {**BARE, "energy": {"mj": 3}, "metrics": {"test": {"wer": 0.5, "semantic": "good"}}, "bit_map": bits}
    record = parse_record(future)
    assert (record.metrics, record.bit_map) == ({"test": {"wer": 0.5}}, bits)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"policy": None}, "policy: None should be a valid string"),
        ({"size_bytes": "large"}, "size_bytes: 'large' should be a valid integer"),
        ({"metrics": [1]}, "metrics: a list should be a mapping"),
        ({"metrics": {"test": {"wer": "low"}}}, "metrics.test.wer: 'low' should be a valid number"),
        ({"bit_map": {"a": 4}}, "bit_map.a: 4 should be a mapping"),
        ({"samples": "none"}, "samples: 'none' should be a list: [none]"),
        ({"baseline": "float-1"}, "baseline: 'float-1' should be a mapping"),
        ({"baseline": {"wer": "low"}}, "baseline.wer: 'low'"),
        ({"baseline": {"latency": 3}}, "baseline.latency: 3 should be a mapping"),
        ({"baseline": {"utterances": {"dev": {"errors": "-1", "words": "2"}}}}, "baseline.utterances.dev: a mapping n"),
        (
            {"utterances": {"dev": {"errors": "1", "words": "2", "groups": "0 1"}}},
            "utterances.dev: a mapping needs `gr",
        ),
        ({"utterances": {"dev": {"errors": "1", "words": "2", "groups": "-1"}}}, "utterances.dev: a mapping needs `gr"),
        ({"utterances": {"dev": {"errors": "1 2", "words": "2"}}}, "utterances.dev: a mapping has 2 errors, but 1 w"),
        ({"seed": [1]}, "seed: a list should be a valid integer"),
        ({"seed": 1.5}, "seed: 1.5 should be a valid integer"),
        ({"size_bytes": -5}, "size_bytes: -5 should be greater than or equal to 0"),
        ({"size_bytes": True}, "size_bytes: True should be a valid integer"),
        ({"training_model_wer": 1e300}, "training_model_wer: 1e+300 should be 0, or between 1e-09 and 1e+15"),
        ({"metrics": {"test": {"wer": float("nan")}}}, "metrics.test.wer: nan is not a finite number"),
        ({"latency": {"edge_nna": {"latency_ms": float("inf")}}}, "latency.edge_nna.latency_ms: inf"),
        ({"metrics": {"test": {"wer": 0.1, "words": -2}}}, "metrics.test.words: -2"),
        ({"metrics": {"test\nset": {"wer": 0.1}}}, "should be one line of at most 200 characters"),
        ({"state": "odd"}, "state: 'odd' is not one of complete, pruned, failed"),
        ({"study": "../../x"}, "study: '../../x' cannot name a file"),
        ({"study": 3}, "study: 3 should be a valid string"),
        ({"run": "r" * 1000}, "should be one line of at most 200 characters"),
        ({"reason": ["x"]}, "reason: a list should be a valid string"),
        ({"bit_map": {"a": {"weight": 0}}}, "bit_map.a.weight: 0 should be greater than or equal to 1"),
        ({"bit_map": {"a": {"grid": "codebook"}}}, "bit_map.a: a mapping has a `grid`, which is called `quantizer`"),
        ({"config": {"policy": 3}}, "config: a mapping needs a mapping `policy`"),
        ({"notes": {"choices": {"a": 3}}}, "notes.choices.a: 3 should be a mapping"),
        ({"training_model_wer": "x"}, "training_model_wer: 'x' should be a valid number"),
        ({"versions": {"torch": 2}}, "versions.torch: 2 should be a valid string"),
    ],
    ids=lambda value: value if isinstance(value, str) else next(iter(value)),
)
def test_wrong_types_are_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        parse_record(BARE | change)


def test_reading_records_waits_for_neither_torch_nor_lightning() -> None:
    ask = "import sys, qstudy.training.record; print({'torch', 'lightning'} & set(sys.modules))"
    assert subprocess.check_output([sys.executable, "-c", ask], text=True) == "set()\n"
