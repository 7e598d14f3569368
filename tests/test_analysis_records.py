"""Reading records: what is unknown is ignored, what is missing is accepted, what is wrong is named."""

import json
import re
from pathlib import Path

import analysis_study as made
import pytest
from analysis.parse import parse_run

from analysis.study import load_study
from qstudy.errors import UserError


def test_a_full_record_is_read():
    run = parse_run(made.records()[12])
    assert (run.policy, run.state, run.trial) == ("fake_qat", "complete", 11)
    assert run.widths["joiner.output"].weight == 8
    assert run.layers["predictor.embedding"].kind == "embedding"
    assert run.scores["test"].words == 1500
    assert run.latency_ms.keys() == {"edge_nna"}
    assert run.latency_budgets == {"edge_nna": 2.0}
    assert run.step_ms == 92.0


def test_unknown_fields_are_ignored():
    record = made.records()[5]
    future = json.loads(json.dumps(record)) | {"schema": 7, "energy": {"mj": 3}, "notes": ["x"]}
    future["bit_map"]["encoder.lstm.0"]["sparsity"] = 0.5
    future["metrics"]["test"]["semantic"] = "good"
    known, unknown = parse_run(record), parse_run(future)
    assert (known.widths, known.scores) == (unknown.widths, unknown.scores)


def test_three_fields_are_enough():
    run = parse_run({"run": "a", "policy": "ptq", "state": "complete"})
    assert run.scores == {}
    assert run.size_bytes is None
    assert run.widths == {}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"policy": None}, "'policy' is missing"),
        ({"size_bytes": "large"}, "size_bytes is 'large'"),
        ({"metrics": [1]}, "metrics is [1]"),
        ({"metrics": {"test": {"wer": "low"}}}, "metrics.test.wer is 'low'"),
        ({"bit_map": {"a": 4}}, "bit_map.a is 4"),
        ({"samples": "none"}, "samples is 'none'"),
        ({"baseline": "float-1"}, "baseline is 'float-1'"),
        ({"baseline": {"wer": "low"}}, "metrics.baseline.wer is 'low'"),
        ({"baseline": {"latency": 3}}, "baseline: latency is 3, not a mapping"),
        ({"baseline": {"utterances": {"dev": {"errors": "-1", "words": "2"}}}}, "baseline: utterances.dev needs"),
        ({"seed": [1]}, "seed is [1], not a number"),
        ({"seed": 1.5}, "seed is 1.5, not a whole number"),
        ({"size_bytes": -5}, "size_bytes is -5, not 0 or more"),
        ({"size_bytes": True}, "size_bytes is True, not a number"),
        ({"size_bytes": 1e300}, "size_bytes is 1e+300, which is out of range"),
        ({"metrics": {"test": {"wer": float("nan")}}}, "metrics.test.wer is nan, which is out of range"),
        ({"latency": {"edge_nna": {"latency_ms": float("inf")}}}, "latency.edge_nna.latency_ms is inf"),
        ({"metrics": {"test": {"wer": 0.1, "words": -2}}}, "metrics.test.words is -2"),
        ({"metrics": {"test\nset": {"wer": 0.1}}}, "a key of metrics is 'test"),
        ({"state": "odd"}, "state is 'odd', not one of complete, pruned, failed"),
        ({"study": "../../x"}, "study: '../../x' cannot name a file"),
        ({"study": 3}, "study is 3, not text"),
        ({"run": "r" * 1000}, "not one line of at most 200 characters"),
        ({"reason": ["x"]}, "reason is ['x'], not text"),
        ({"bit_map": {"a": {"weight": 0}}}, "bit_map.a.weight is 0, not a width of 1 to 32 bits"),
        ({"config": {"policy": 3}}, "config.policy is 3, not a mapping"),
        ({"notes": {"choices": {"a": 3}}}, "notes.choices.a is 3, not a mapping"),
        ({"training_model_wer": "x"}, "training_model_wer is 'x', not a number"),
        ({"versions": {"torch": 2}}, "versions.torch is 2, not text"),
    ],
    ids=lambda value: value if isinstance(value, str) else next(iter(value)),
)
def test_wrong_types_are_named(change, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        parse_run({"run": "a", "policy": "ptq", "state": "complete"} | change)


def test_a_rate_that_is_missing_is_accepted():
    record = {"run": "a", "policy": "ptq", "state": "complete", "metrics": {"test": {"wer": None}}}
    assert parse_run(record).scores == {}


def test_the_study_knows_its_baseline_and_sorts_its_runs(tmp_path: Path):
    study = load_study(made.write(tmp_path, made.records()[::-1]))
    assert study.name == "digits"
    assert study.split == "test"
    assert study.runs[0].is_baseline
    assert [run.trial for run in study.trials] == list(range(25))
    assert [run.state for run in study.unfinished] == ["pruned", "pruned", "failed"]
    assert study.reference is not None
    assert study.reference is study.runs[0]
    assert study.size_budget == 1600000


def test_without_its_record_the_baseline_is_what_trials_say(tmp_path: Path):
    reference = load_study(made.write(tmp_path, made.records()[1:])).reference
    assert reference is not None
    assert (reference.name, reference.title) == ("float-0a1b2c3d", "float baseline")
    assert reference.scores.keys() == {"test"}  # what `wer` is of
    assert load_study(tmp_path, "dev").reference is None


def test_a_baseline_with_metrics_serves_every_set(tmp_path: Path):
    records = made.records()
    for record in records[1:4]:
        record["baseline"] |= {"metrics": records[0]["metrics"], "latency": records[0]["latency"]}
    reference = load_study(made.write(tmp_path, records[1:4]), "dev").reference
    assert reference is not None
    assert reference.wer("dev") == pytest.approx(0.9 * 0.0132)
    assert reference.latency_ms.keys() == {"edge_nna"}


def test_broken_records_are_listed_and_the_rest_is_used(tmp_path: Path):
    folder = made.write(tmp_path, made.records()[:4])
    (folder / "runs" / "trial-0001-ptq" / "record.json").write_text('{"run": "trial')
    (folder / "runs" / "x").mkdir()
    (folder / "runs" / "x" / "record.json").write_text('{"run": "x", "state": "complete"}')
    study = load_study(folder)
    assert len(study.runs) == 3
    assert [problem.source for problem in study.problems] == ["runs/trial-0001-ptq/record.json", "runs/x/record.json"]
    assert "not valid JSON" in study.problems[0].message
    assert "'policy'" in study.problems[1].message


def test_the_split_can_be_chosen_and_must_exist(tmp_path: Path):
    folder = made.write(tmp_path, made.records()[:3])
    assert load_study(folder, "dev").split == "dev"
    with pytest.raises(UserError, match="'train'; there are test, dev"):
        load_study(folder, "train")


def test_no_folder_no_record_no_finished_run(tmp_path: Path):
    with pytest.raises(UserError, match="is not a folder"):
        load_study(tmp_path / "nowhere")
    with pytest.raises(UserError, match="holds no run records"):
        load_study(tmp_path)
    with pytest.raises(UserError, match="None of the 3 runs"):
        load_study(made.write(tmp_path, made.records()[-3:]))
