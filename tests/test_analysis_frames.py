"""From records to DataFrames and studies: what is missing is accepted, what is wrong is named."""

import json
from pathlib import Path
from typing import Any

import analysis_study as made
import pytest

from analysis.frames import load, load_runs
from analysis.records import unpacked
from analysis.study import load_studies
from qstudy.errors import UserError


def test_a_run_is_a_row(tmp_path: Path) -> None:
    runs = load_runs(str(made.write(tmp_path, made.records()))).set_index("run")
    assert len(runs) == 29
    run, record = runs.loc["trial-0011-fake_qat"], made.records()[12]
    assert (run.study, run.policy, run.state, run.trial, run.label) == ("digits", "fake_qat", "complete", 11, "W8")
    assert (run.uniform, run.weight_bits, run.activation_bits) == (True, 8, 32)
    assert run["wer.test"] == record["metrics"]["test"]["wer"]
    assert run["low.dev"] <= run["wer.dev"] <= run["high.dev"]
    assert run["words.test"] == 1500
    assert (run["latency_ms.edge_nna"], run["budget_ms.edge_nna"]) == (record["latency"]["edge_nna"]["latency_ms"], 2.0)
    assert (run.step_ms, run.step_p95_ms, run["version.torch"]) == (92.0, 101.5, "2.12.1")
    assert json.loads(unpacked(run.record)) == record
    assert set(runs.title[runs.policy == "float"]) == {"float baseline", "float control"}


def test_settings_that_differ_are_columns(tmp_path: Path) -> None:
    runs = load_runs(made.write(tmp_path, made.records()))
    assert [name for name in runs if name.startswith("config.")] == ["config.policy.name", "config.training.lr"]
    assert set(runs["config.training.lr"].dropna()) == {0.001, 0.002}


def test_layers_errors_and_samples_stand_beside_the_runs(tmp_path: Path) -> None:
    records = made.records()[:3]
    counts = {"errors": "0 2 1", "words": "5 4 6"}
    records[1]["utterances"] = {"test": counts, "new": {**counts, "groups": "0 1 0"}}
    frames = load(made.write(tmp_path, records))
    layer = frames.layers[(frames.layers.run == "trial-0001-ptq") & (frames.layers.layer == "joiner.output")].iloc[0]
    assert (layer.kind, layer.parameters, layer.weight, layer.quantizer) == ("linear", 3741, 8, "uniform")
    assert frames.errors.drop(columns=["study", "run"]).to_dict("list") == {
        "set": ["test"] * 3 + ["new"] * 3,
        "utterance": [0, 1, 2] * 2,
        "errors": [0, 2, 1] * 2,
        "words": [5, 4, 6] * 2,
        "group": [-1, -1, -1, 0, 1, 0],
    }
    assert list(frames.samples.reference[:2]) == made.SENTENCES[:2]


def test_a_bare_record_is_a_row_too(tmp_path: Path) -> None:
    run = load_runs(made.write(tmp_path, [{"run": "a", "policy": "ptq", "state": "complete"}])).iloc[0]
    assert (run.bits, run.reason, run.is_baseline) == ("–", "", False)
    assert run[["size_bytes", "weight_bits", "step_ms"]].isna().all()


def test_runs_of_several_studies_share_a_frame(tmp_path: Path) -> None:
    first = made.write(tmp_path / "a", made.records()[:2])
    second = made.write(tmp_path / "b", [record | {"study": "commands"} for record in made.records()[:2]])
    assert list(load_runs(first, second).study) == ["digits"] * 2 + ["commands"] * 2
    with pytest.raises(UserError, match="two studies are called digits"):
        load_runs(first, first)


def test_the_study_knows_its_baseline_and_sorts_its_runs(tmp_path: Path) -> None:
    study = made.study(tmp_path, made.records()[::-1])
    assert (study.name, study.split, study.chosen_on) == ("digits", "test", "dev")
    assert study.runs.is_baseline.iloc[0]
    assert list(study.trials.trial) == list(range(25))
    assert list(study.unfinished.state) == ["pruned", "pruned", "failed"]
    assert study.reference is not None
    assert study.reference.run == study.runs.run.iloc[0]
    assert (study.size_budget, study.latency_budgets, study.accelerators) == (1600000, {"edge_nna": 2.0}, ["edge_nna"])
    assert study.described_split == "test (300 utterances, 1,500 words)"


def test_without_its_record_the_baseline_is_what_trials_say(tmp_path: Path) -> None:
    records = made.records()
    for record in records[1:4]:
        record["baseline"] |= {"metrics": records[0]["metrics"], "latency": records[0]["latency"]}
    made.write(tmp_path, records[1:4])
    for split, rate in (("test", 0.0132), ("dev", 0.9 * 0.0132)):
        reference = load_studies(tmp_path, split=split)[0].reference
        assert reference is not None
        assert (reference.run, reference.title, reference.from_trials) == ("float-0a1b2c3d", "float baseline", True)
        assert reference.wer == pytest.approx(rate)
        assert reference.latency_ms == records[0]["latency"]["edge_nna"]["latency_ms"]


def test_every_run_is_held_against_the_baseline_of_its_seed(tmp_path: Path) -> None:
    study = made.study(tmp_path, seeds())
    assert list(study.trials.float_wer) == pytest.approx([0.01, 0.02, 0.03] * 2)
    assert list(study.settings.n) == [3, 3]
    assert list(study.settings.wer) == pytest.approx([0.02, 0.04])
    assert list(study.settings.spread) == pytest.approx([0.01, 0.01])
    assert list(study.settings.seed) == [0, 0]
    assert list(study.floats_of(study.trials).run) == ["float-0", "float-1", "float-2"] * 2
    assert study.reference is not None
    assert (study.reference.n, study.reference.wer) == (3, pytest.approx(0.02))


def seeds() -> list[dict[str, Any]]:
    """Three float baselines, two settings from each; rates (per cent) 1, 2, 3 (baselines); as much; 2 more."""
    baseline, _, trial, other = made.records()[:4]
    found = []
    for seed in range(3):
        name, rate = f"float-{seed}", (seed + 1) / 100
        found.append(_seeded(baseline, name, seed, rate))
        for place, record in enumerate((trial, other)):
            started = record | {"baseline": {"id": name}}
            found.append(_seeded(started, f"{place}-{seed}", seed, rate + 0.02 * place) | {"trial": 3 * place + seed})
    return found


def _seeded(record: dict[str, Any], name: str, seed: int, rate: float) -> dict[str, Any]:
    scores = {"wer": rate, "wer_low": 0.8 * rate, "wer_high": 1.2 * rate}
    config = record["config"] | {"seed": seed}
    return record | {"run": name, "seed": seed, "config": config, "metrics": {"dev": scores, "test": scores}}


def test_broken_records_are_listed_and_the_rest_is_used(tmp_path: Path) -> None:
    folder = made.write(tmp_path, made.records()[:4])
    (folder / "runs" / "trial-0001-ptq" / "record.json").write_text('{"run": "trial')
    for name, text in (("x", '{"run": "x", "state": "complete"}'), ("y", json.dumps(made.records()[0]))):
        (folder / "runs" / name).mkdir()
        (folder / "runs" / name / "record.json").write_text(text)
    frames = load(folder)
    assert len(frames.runs) == 3
    assert [problem.source.split("/")[1] for problem in frames.problems] == ["trial-0001-ptq", "x", "y"]
    broken, lacking, twice = (problem.message for problem in frames.problems)
    assert "not valid JSON" in broken
    assert lacking == "policy: this field is missing"
    assert twice == "there is another run float-0a1b2c3d in the same study"


def test_the_split_can_be_chosen_and_must_exist(tmp_path: Path) -> None:
    folder = made.write(tmp_path, made.records()[:3])
    assert load_studies(folder, split="dev")[0].split == "dev"
    with pytest.raises(UserError, match="'train'; there are test, dev"):
        load_studies(folder, split="train")


def test_without_a_dev_set_runs_are_chosen_on_what_is_reported(tmp_path: Path) -> None:
    records = made.records()[:4]
    del records[2]["metrics"]["dev"]
    assert made.study(tmp_path, records).chosen_on == "test"


def test_no_folder_no_record_no_finished_run(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is not a folder"):
        load_studies(tmp_path / "nowhere")
    with pytest.raises(UserError, match="holds no run records"):
        load_studies(tmp_path)
    with pytest.raises(UserError, match="None of the 3 runs"):
        load_studies(made.write(tmp_path, made.records()[-3:]))
