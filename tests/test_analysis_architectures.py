"""A study over architectures: its table and its figures, from records as runs write them."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from analysis_study import study

from analysis.architectures import against_control, amortized, architecture, architectures, settings, word_errors
from analysis.study import Study
from qstudy.presets import load_preset

ERRORS = {"lstm": "0 1 0 2", "conformer-s": "1 1 0 1"}


def record(name: str, run: str, policy: str, errors: str, **more: Any) -> dict[str, Any]:
    counts = [int(count) for count in errors.split()]
    rate = sum(counts) / 20
    scores = {"wer": rate, "wer_low": 0.5 * rate, "wer_high": 2 * rate, "words": 20, "utterances": 4}
    return {
        "schema": 2,
        "run": run,
        "study": "architectures",
        "state": "complete",
        "policy": policy,
        "size_bytes": 1_000_000 if policy == "float" else 200_000,
        "layers": {"encoder": {"kind": "linear", "parameters": 250_000, "bytes": 1_000_000}},
        "config": {"model": load_preset(name).parts, "policy": {"name": policy}},
        "metrics": {"test": scores, "dev": scores},
        "utterances": {"test": {"errors": errors, "words": "5 5 5 5"}},
        **more,
    }


@pytest.fixture
def made(tmp_path: Path) -> Study:
    """Two architectures: each a baseline, a control and a quantized run."""
    records, trial = [], 0
    for name, errors in ERRORS.items():
        baseline = f"float-{name}"
        records.append(record(name, baseline, "float", errors, baseline=None))
        start = {"baseline": {"id": baseline, "wer": 0.15, "size_bytes": 1_000_000}}
        records.append(record(name, f"control-{name}", "float", errors, trial=trial, **start))
        usage = {"usage": {"test": {"saved": 0.4}}, "first_pass": {"test": {"wer": 0.5}}}
        records.append(record(name, f"int-{name}", "native_int", "1 1 1 2", trial=trial + 1, **start, **usage))
        trial += 2
    return study(tmp_path, records)


def test_every_architecture_has_its_own_baseline(made: Study) -> None:
    found = settings(made)
    assert list(found.architecture) == ["lstm"] * 3 + ["conformer-s"] * 3
    assert sorted(made.references.run) == ["float-conformer-s", "float-lstm"]
    quantized = found[found.policy == "native_int"]
    assert list(quantized.float_run) == ["float-lstm", "float-conformer-s"]
    assert list((20 * quantized.gap).round().astype(int)) == [2, 2]
    assert (quantized.gap_low <= quantized.gap).all()
    assert (quantized.gap_high >= quantized.gap).all()
    assert found[found.policy == "float"].gap.isna().all()


def test_the_table(made: Study) -> None:
    table = architectures(made)
    assert table is not None
    rows = [[cell.text for cell in row] for row in table.cells]
    assert [row[0] for row in rows] == ["lstm"] * 3 + ["conformer-s"] * 3
    assert [row[5] for row in rows] == ["", "", "50.0"] * 2
    assert [row[7] for row in rows if row[7]] == [f"cannot be told ({needed} utterances would)" for needed in (21, 20)]
    assert [row[10] for row in rows] == ["", "", "40.0"] * 2
    assert [row[9] for row in rows[1:3]] == ["1.0", "5.0"]


def test_the_figures(made: Study) -> None:
    (rates,), (gaps,) = list(word_errors(made)), list(against_control(made))
    assert "lstm" in rates.caption
    (axes,) = rates.figure.axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["lstm", "conformer-s"]
    assert ["5.0×" in label.get_text() for label in gaps.figure.axes[0].get_yticklabels()] == [True, True]
    assert all(rates.drawn().values())
    (saved,) = amortized(made)
    assert len(saved.figure.axes[0].texts) == 2  # the settings that were counted
    assert "full branch" not in saved.caption


def test_captions_explain_what_is_there(made: Study, tmp_path: Path) -> None:
    table = architectures(made)
    assert table is not None
    assert "MACs saved: of the encoder" in table.caption
    assert "First pass:" in table.caption
    assert "λ" not in table.caption
    assert "Full branch" not in table.caption
    alone = record("lstm", "alone", "float", "0 1 0 2", baseline=None, usage={"test": {"saved": 0.0}})
    (saved,) = amortized(study(tmp_path / "alone", [alone]))
    assert saved.caption.endswith("At 0 % saved: the full branch alone.")
    plain = architectures(study(tmp_path / "plain", [record("lstm", "float", "float", "0 1 0 2", baseline=None)]))
    assert plain is not None
    for word in ("MACs", "branch", "λ", "First pass", "measured shares"):
        assert word not in plain.caption


def test_a_policy_of_the_users_own_has_its_marks(made: Study) -> None:
    policies = made.runs.policy.replace("native_int", "my_policy.Ternary")
    own = replace(made, runs=made.runs.assign(policy=policies))
    for figures in (word_errors(own), against_control(own)):
        assert all(picture.drawn() for picture in figures)


def test_a_control_is_trained_as_the_other_was(made: Study) -> None:
    other = made.runs.trained_as.mask(made.runs.run == "control-lstm", "for longer")
    found = settings(replace(made, runs=made.runs.assign(trained_as=other)))
    quantized = found[found.policy == "native_int"].set_index("architecture")
    assert quantized.gap.isna().to_dict() == {"lstm": True, "conformer-s": False}


def test_what_a_model_is_called() -> None:
    assert architecture(load_preset("lstm-small").parts) == "lstm-small"
    assert architecture({"encoder": {"name": "lstm", "hidden": 7}}) == "lstm"
    assert architecture({}) == "unknown"
    amortized_one = load_preset("amnet-lowrank").parts
    assert architecture(amortized_one) == "amnet-lowrank"
    alone = {"encoder": {**amortized_one["encoder"], "branch_from": 1.0}}
    assert architecture(alone) == "amnet-lowrank, full alone"


def test_nothing_to_show(tmp_path: Path) -> None:
    alone = study(tmp_path, [record("lstm", "int-lstm", "native_int", "0 0 0 1", trial=0)])
    assert list(word_errors(alone)) == []
    assert list(against_control(alone)) == []


def of_seeds(*seeds: int, **more: Any) -> list[dict[str, Any]]:
    """A control and a quantized run of each seed, from one baseline."""
    start = {"baseline": {"id": "float-lstm", "wer": 0.15, "size_bytes": 1_000_000}}
    found = [record("lstm", "float-lstm", "float", "0 1 0 2", baseline=None, seed=0)]
    for seed in seeds:
        found.append(record("lstm", f"control-{seed}", "float", "0 1 0 2", trial=seed, seed=seed, **start))
        saved = {"usage": {"test": {"saved": 0.1 * seed}}, "first_pass": {"test": {"wer": 0.2 * seed}}}
        found.append(
            record("lstm", f"int-{seed}", "native_int", "1 1 1 2", trial=9 + seed, seed=seed, **start, **saved, **more)
        )
    return found


def test_what_is_saved_is_a_mean_over_seeds_as_the_rate_is(tmp_path: Path) -> None:
    found = settings(study(tmp_path, of_seeds(1, 3)))
    (one,) = found[found.policy == "native_int"].itertuples()
    assert (one.n, one.saved, one.first_wer) == (2, pytest.approx(0.2), pytest.approx(0.4))


def test_another_precision_than_the_controls_is_told(tmp_path: Path) -> None:
    like = architectures(study(tmp_path / "like", of_seeds(0, 1)))
    other = architectures(study(tmp_path / "other", of_seeds(0, 1, precision="bf16-mixed")))
    assert like is not None
    assert other is not None
    assert "precision" not in like.caption
    assert "another precision than their controls: lstm native_int – (seed 0 and 1)." in other.caption


def test_starts_that_share_a_seed_are_no_mean(tmp_path: Path) -> None:
    """Unlike baselines of several seeds, which are one setting."""
    for name, seeds, count in (("starts", (0, 0), 2), ("seeds", (0, 1), 1)):
        records = []
        for place, seed in enumerate(seeds):
            records.append(record("lstm", f"float-{place}", "float", "0 1 0 2", baseline=None, seed=seed))
            start = {"baseline": {"id": f"float-{place}", "wer": 0.15, "size_bytes": 1_000_000}}
            records.append(record("lstm", f"int-{place}", "native_int", "1 1 1 2", trial=place, seed=seed, **start))
        records.append(record("conformer-s", "float-c", "float", "0 1 0 2", baseline=None, seed=0))
        assert len(study(tmp_path / name, records).references) == count + 1


def test_policies_from_scratch_need_no_baseline(tmp_path: Path) -> None:
    records = [record(name, f"int-{name}", "native_int", errors, baseline=None) for name, errors in ERRORS.items()]
    made = study(tmp_path, records)
    assert made.references.empty
    assert set(settings(made).architecture) == set(ERRORS)


def test_a_control_is_found_by_any_seed(tmp_path: Path) -> None:
    """Baselines are trained anew for every seed; that of seed 0 has no control, since it failed."""
    records = []
    for seed in (0, 1):
        start = {"baseline": {"id": f"float-{seed}", "wer": 0.15, "size_bytes": 1_000_000}}
        records.append(record("lstm", f"float-{seed}", "float", "0 1 0 2", baseline=None, seed=seed))
        records.append(record("lstm", f"int-{seed}", "native_int", "1 1 1 2", trial=seed, seed=seed, **start))
    records.append(record("lstm", "control", "float", "0 1 0 2", trial=5, seed=1, **start))
    made = study(tmp_path, records)
    (one,) = made.settings[made.settings.policy == "native_int"].iloc
    control = made.control_of(one)
    assert control is not None
    assert control.run == "control"
