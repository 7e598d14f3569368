"""What is held against what, on sets that the float baselines were not scored on, as `qstudy rescore` leaves them."""

import random
from pathlib import Path
from typing import Any

import analysis_study as made
import pytest

from analysis.section import sections
from analysis.study import load_studies
from analysis.tables.claims import findings


def scored_in_noise(number: int, policy: str, width: int, start: str, rate: float) -> dict[str, Any]:
    """A trial from one of two float models, of which none was scored in noise."""
    record = made.trial(number, policy, width, 32 if policy == "float" else 8, random.Random(number))
    record["run"] = f"{start}-{policy}-{width}"
    record["config"] |= {"start": f"{start}.qst", "finetune": {"steps": 400}}
    record["config"]["policy"] |= {"weight_range": "max"} if policy == "ptq" else {}
    record["baseline"] = {"id": f"float-{start}", "size_bytes": 4 * made.PARAMETERS, "metrics": dict(record["metrics"])}
    record["steps"] = 0 if policy == "ptq" else 400
    test = record["metrics"]["test"] | {"wer": rate, "wer_low": 0.9 * rate, "wer_high": 1.1 * rate}
    record["metrics"] |= {
        "test": test,
        "noise": test | {"wer": 2 * rate, "wer_low": 1.8 * rate, "wer_high": 2.2 * rate},
    }
    return record


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    records = [
        scored_in_noise(number, policy, width, start, rate * better)
        for number, (start, better, policy, width, rate) in enumerate(
            (start, better, *one)
            for start, better in (("a", 1.0), ("b", 0.2))
            for one in (
                ("float", 32, 0.1),
                ("fake_qat", 8, 0.1),
                ("fake_qat", 4, 0.15),
                ("ptq", 8, 0.11),
                ("ptq", 4, 0.2),
            )
        )
    ]
    return made.write(tmp_path_factory.mktemp("pairs") / "study", records)


@pytest.mark.parametrize("split", ["test", "noise"])
def test_controls_began_with_the_same_weights(folder: Path, split: str) -> None:
    (study,) = load_studies(folder, split=split)
    trained = study.settings[study.settings.run.str.endswith("fake_qat-4")]
    controls = {one.run: study.control_of(one) for _, one in trained.iterrows()}
    assert {run: None if one is None else one.run for run, one in controls.items()} == {
        "a-fake_qat-4": "a-float-32",
        "b-fake_qat-4": "b-float-32",
    }


@pytest.mark.parametrize("split", ["test", "noise"])
def test_rounding_is_that_of_the_same_float_model(folder: Path, split: str) -> None:
    (study,) = load_studies(folder, split=split)
    found = findings(study)
    gaps = found[found.claim.str.contains("ptq max")].difference
    assert len(gaps) > 0
    assert (gaps < 0).all()


def test_settings_that_all_runs_share_are_shared_by_all(tmp_path: Path) -> None:
    records = made.records()[:4]
    for record in records:
        record["config"]["model"] = {"preset": "digits"}
    records[1]["config"]["model"]["hidden"] = 256  # the first trial's alone
    (section,) = sections([made.study(tmp_path, records)], (), ())
    assert section.data["common"]["model.preset"] == "digits"
    assert "model.hidden" not in section.data["common"]
    assert "model.hidden" in section.data["settings"]
