"""The tables of single papers: the same bytes spent in two ways; trained in one way and served in another."""

from pathlib import Path
from typing import Any

from analysis_study import study
from test_index import record

from analysis.conditions import conditions
from analysis.footprints import footprints
from analysis.served import served

START = {"baseline": {"id": "float", "wer": 0.05, "size_bytes": 1_000_000}}


def sized(run: str, parameters: int, width: int, every: int, **more: Any) -> dict[str, Any]:
    made = record("s8bqat", run, "s8bqat", every, parameters * width // 8, **START, **more)
    made["layers"] = {"encoder": {"kind": "linear", "parameters": parameters}}
    made["bit_map"] = {"encoder": {"weight": width, "activation": 8}}
    return made


def test_a_larger_model_of_fewer_bits_is_held_against_its_equal_in_bytes(tmp_path: Path) -> None:
    made = [
        sized("small", 500_000, 8, 2),
        sized("large", 1_000_000, 4, 4),
        sized("other", 300_000, 8, 2),  # of no use: no model of its size
        sized("half", 500_000, 4, 3),
    ]
    table = footprints(study(tmp_path, made))
    assert table is not None
    (row,) = table.frame.to_dict("records")
    assert (row["run"], row["small_run"]) == ("large", "small")
    assert row["relative"] == -0.5
    assert row["verdict"] == "shown"
    assert row["gap_high"] < 0


def test_nothing_of_one_size_is_no_table(tmp_path: Path) -> None:
    assert footprints(study(tmp_path, [sized("a", 500_000, 8, 2), sized("b", 1_000_000, 8, 4)])) is None


def aware(run: str, every: int, steps: int, start: str, **formats: Any) -> dict[str, Any]:
    made = record("aat", run, "accelerator_aware", every, 250_000, steps=steps, **START)
    made["config"]["policy"] = {"name": "accelerator_aware", **formats}
    made["config"]["start"] = start
    made["bit_map"] = {"encoder": {"weight": 8, "activation": 8}}
    return made


def test_models_are_held_against_what_was_trained_for_the_operators_that_serve_them(tmp_path: Path) -> None:
    made = [
        aware("own", 8, 100, "base.qst"),
        aware("harsh", 8, 100, "base.qst", cell_bits=8),
        aware("float-gentle", 8, 0, "studies/x/runs/trial-0000-float/model.qst"),
        aware("float-harsh", 2, 0, "studies/x/runs/trial-0000-float/model.qst", cell_bits=8),
    ]
    table = served(study(tmp_path, made))
    assert table is not None
    rows = table.frame.set_index("run")
    assert list(rows.loc[["own", "harsh"]].verdict.isna()) == [True, True]
    assert rows.verdict["float-gentle"] == "shown"
    assert rows.verdict["float-harsh"] == "refuted"
    assert rows.trained["float-harsh"] == "float"
    assert rows.served["float-harsh"] == "accelerator_aware cell_bits=8"
    assert round(rows.gap["float-harsh"], 3) == round(0.1 - 0.025, 3)


def test_served_models_are_held_against_one_of_their_size(tmp_path: Path) -> None:
    made = []
    for size, every in (("small", 4), ("large", 16)):
        own = aware(f"{size}-own", every, 100, "base.qst")
        other = aware(f"{size}-served", every, 0, f"studies/x/runs/trial-0000-{size}/model.qst")
        for one in (own, other):
            one["config"]["model"] = {"encoder": {"name": "lstm", "hidden": every}}
            one["layers"] = {"encoder": {"kind": "lstm", "parameters": 1_000_000 if size == "small" else 4_000_000}}
        made += [own, other]
    table = served(study(tmp_path, made))
    assert table is not None
    assert table.frame.set_index("run").gap[["small-served", "large-served"]].abs().max() < 1e-9


def test_what_is_served_as_it_was_trained_is_no_table(tmp_path: Path) -> None:
    assert served(study(tmp_path, [aware("own", 8, 100, "base.qst")])) is None


def heard(run: str, policy: str, every: int, in_noise: int, **more: Any) -> dict[str, Any]:
    made = record("noise", run, policy, every, 250_000, **START, **more)
    noisy = record("noise", run, policy, in_noise, 250_000)
    made["metrics"]["snr0"] = noisy["metrics"]["test"]
    made["utterances"]["snr0"] = noisy["utterances"]["test"]
    return made


def test_every_condition_has_its_own_verdict(tmp_path: Path) -> None:
    quantized = {"bit_map": {"encoder": {"weight": 4}}}
    made = [heard("control", "float", 8, 4), heard("four", "native_int", 8, 2, **quantized)]
    table = conditions(study(tmp_path, made))
    assert table is not None
    (row,) = table.frame.to_dict("records")
    assert (row["verdict.test"], row["verdict.snr0"]) == ("shown", "refuted")
    assert [column.key for column in table.columns[3:]] == ["wer.test", "wer.snr0"]
    assert round(row["gap.snr0"], 3) == 0.05


def test_one_condition_is_no_table(tmp_path: Path) -> None:
    made = [
        record("noise", "control", "float", 8, 1_000_000, **START),
        record("noise", "x", "ptq", 8, 250_000, **START),
    ]
    assert conditions(study(tmp_path, made)) is None
