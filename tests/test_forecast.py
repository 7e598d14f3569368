"""What a sweep says before it begins."""

from pathlib import Path

import pytest
import yaml

from qstudy.cli import main
from qstudy.sweep.config import load_study
from qstudy.sweep.forecast import duration, print_forecast

ROOT = Path(__file__).parents[1]


def said_of(name: str, done: int, capsys: pytest.CaptureFixture[str], fresh: bool = False) -> list[str]:
    print_forecast(load_study(ROOT / "sweeps" / f"{name}.yaml", fresh=fresh), Path("studies") / name, done)
    return capsys.readouterr().out.splitlines()


def test_a_plan_tells_what_is_made_and_what_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    head, corpus, baseline, trials = said_of("smoke", 0, capsys)
    assert head.startswith("Study smoke: about ")
    assert head.endswith("studies/smoke.")
    assert "make 288 utterances in corpora/smoke" in corpus
    assert "train a float model, 120 steps" in baseline
    assert "6 of up to 40 steps" in trials
    (tmp_path / "corpora/smoke").mkdir(parents=True)
    (tmp_path / "corpora/smoke/train.jsonl").write_text("{}")
    _, corpus, _, trials = said_of("smoke", 6, capsys)
    assert corpus.split() == ["corpus", "corpora/smoke", "is", "there", "done"]
    assert trials.split()[1:] == ["6", "of", "up", "to", "40", "steps,", "6", "done", "done"]


def test_a_plan_with_a_start_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as exit:
        main(["sweep", str(ROOT / "sweeps" / "quickstart.yaml")])
    said = capsys.readouterr().err
    assert exit.value.code == 2
    assert said.startswith("qstudy: start: there is no model file sweeps/base/commands.qst")
    assert "--fresh" in said
    assert "train a float model, 1,500 steps" in said_of("quickstart", 0, capsys, fresh=True)[2]
    (tmp_path / "sweeps/base").mkdir(parents=True)
    (tmp_path / "sweeps/base/commands.qst").write_bytes(b"a model")
    assert "sweeps/base/commands.qst (" in said_of("quickstart", 0, capsys)[2]


def test_a_base_whose_float_model_nobody_starts_from_is_not_trained(tmp_path: Path) -> None:
    base = {"from": str(ROOT / "sweeps/base/digits.yaml")}
    models = {"model": [{"preset": "lstm-small"}, {"preset": "amnet-lowrank"}]}
    for changes, needed in ((models, False), ({}, True)):
        study = {
            "study": "other",
            "base": base,
            "grid": {"policy": {"name": "ptq", "layers": {"*": {"weight": 8}}}, **changes},
        }
        (tmp_path / "study.yaml").write_text(yaml.safe_dump(study))
        assert load_study(tmp_path / "study.yaml").needs_baseline is needed


def test_a_study_whose_trials_all_have_a_start_of_their_own_trains_no_baseline(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    assert not load_study(ROOT / "sweeps" / "frontier.yaml").needs_baseline
    baselines = [line for line in said_of("frontier", 0, capsys) if line.startswith("  baseline")]
    assert [line.split()[1] for line in baselines] == [
        "sweeps/base/commands-conformer.qst",
        "sweeps/base/commands-cascaded.qst",
    ]
    assert len(said_of("native_qat", 0, capsys)) == 3 + 3  # the LSTM's, too


def test_fresh_changes_nothing_but_a_start_file(tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    data = {"train": "train.jsonl", "dev": "dev.jsonl"}
    for start, expected in (("a.qst", "baseline"), ("scratch", "scratch"), (None, None)):
        study = {"study": "s", "base": {"data": data, "start": start}, "grid": {"seed": [1, 2]}}
        path.write_text(yaml.safe_dump(study))
        assert load_study(path).base["start"] == start
        assert load_study(path, fresh=True).base["start"] == expected


@pytest.mark.parametrize(
    ("seconds", "said"), [(1, "10 s"), (44, "40 s"), (55, "1 min"), (700, "12 min"), (7000, "1.9 h")]
)
def test_durations(seconds: float, said: str) -> None:
    assert duration(seconds) == f"about {said}"
