"""`qstudy tune-fusion`: what it writes and how it goes on; the n-best lists of `qstudy transcribe`."""

import gzip
import json
import re
import shlex
from pathlib import Path

import optuna
import pytest
from tiny import TOKENIZER, filled, packed, talkative

from qstudy.cli import main
from qstudy.data.corpora.noisy import noisy
from qstudy.data.manifest import read_manifest
from qstudy.errors import UserError
from qstudy.files import read_json
from qstudy.locks import locked
from qstudy.model.arpa import write_arpa
from qstudy.recognize.options import FusionSettings, load_fusion, save_fusion
from qstudy.sweep.decoding.fusion import best, open_fusion_study, tune
from qstudy.sweep.storage import open_storage
from qstudy.training.kneser_ney import estimate

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A packed recognizer of random weights, and two n-gram models of its labels."""
    folder = tmp_path_factory.mktemp("fusion")
    model = talkative()
    packed(model, filled(model, {"name": "ptq", "layers": {"*": {"weight": 8}}})).save(folder / "model.qst")
    for name, texts in {"lm": ["turn on the light", "play jazz"], "source": ["what is the weather", "stop"]}.items():
        write_arpa(
            folder / f"{name}.arpa", estimate([*map(TOKENIZER.encode, texts)], TOKENIZER.size, 2), TOKENIZER.names()
        )
    return folder


def run(folder: Path, corpus: Path, *more: str) -> None:
    model, files = (
        str(folder / "model.qst"),
        ["--lm", str(folder / "lm.arpa"), "--source_lm", str(folder / "source.arpa")],
    )
    dev = ["--manifest", str(corpus / "dev.jsonl"), "--cache", str(folder / "cache")]
    main(["tune-fusion", model, *dev, *files, "--beam", "2", *more])


def wer(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> float:
    capsys.readouterr()
    main(["evaluate", *arguments, "--json"])
    return float(json.loads(capsys.readouterr().out)["wer"])


def test_it_finds_weights_and_says_how_to_use_them(
    folder: Path, corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = folder / "fusion.json"
    run(folder, corpus, "--trials", "4", "--out", str(out))
    said = capsys.readouterr().out
    written = read_json(out)
    assert written["lm"] == "lm.arpa"
    assert written["found"]["trials"] == 4
    assert written["found"]["wer"] <= written["found"]["without"]
    command = re.search(r"^Next: qstudy evaluate (.*)$", said, re.MULTILINE)
    assert command is not None
    dev = ["--cache", str(folder / "cache")]
    arguments = command[1].replace("TEST", str(corpus / "dev.jsonl")).split()
    assert wer([*arguments, *dev], capsys) == written["found"]["wer"]
    plain = arguments[: arguments.index("--fusion")]
    assert wer([*plain, *dev], capsys) == written["found"]["without"]


def test_other_sounds_of_the_same_texts_are_tuned_on_anew(folder: Path, corpus: Path, tmp_path: Path) -> None:
    options = ["--trials", "1", "--out", str(tmp_path / "fusion.json")]
    manifests, tuned = set(), []
    for ratio in (30, 0, 0):
        noisy([corpus / "dev.jsonl"], tmp_path, ratio, ["white"])
        manifests.add((tmp_path / "dev.jsonl").read_bytes())
        run(folder, tmp_path, *options)
        tuned.append(len(optuna.get_all_study_names(f"sqlite:///{tmp_path}/fusion.json.trials.db")))
    assert len(manifests) == 1
    assert tuned == [1, 2, 2]


def test_each_seed_has_its_own_trials_and_fewer_are_the_first_of_them(
    folder: Path, corpus: Path, tmp_path: Path
) -> None:
    out, found = tmp_path / "fusion.json", []
    for seed, trials in ((0, 3), (1, 3), (0, 3), (0, 1)):
        run(folder, corpus, "--trials", str(trials), "--seed", str(seed), "--out", str(out))
        found.append(read_json(out))
    assert len(optuna.get_all_study_names(f"sqlite:///{out}.trials.db")) == 2
    assert found[2] == found[0]
    assert found[3]["found"]["trials"] == 1
    assert (found[3]["lm_weight"], found[3]["found"]["wer"]) == (0.0, found[0]["found"]["without"])


def test_an_interrupted_study_goes_on_as_if_it_was_not(tmp_path: Path) -> None:
    asked: dict[str, list[dict[str, float]]] = {"whole": [], "parts": []}

    def errors(name: str):  # type: ignore[no-untyped-def]
        def tried(weights: dict[str, float]) -> tuple[float, float]:
            if name == "parts" and len(asked[name]) in (0, 11):
                asked[name].append({})
                raise KeyboardInterrupt
            asked[name].append(weights)
            return (weights["lm_weight"] - 0.4) ** 2, 0.5

        return tried

    names = ["lm_weight", "length_reward"]
    tune(open_fusion_study(tmp_path / "a.db", "study"), names, 16, 3, errors("whole"))
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            tune(open_fusion_study(tmp_path / "b.db", "study"), names, 16, 3, errors("parts"))
    study = open_fusion_study(tmp_path / "b.db", "study")
    tune(study, names, 16, 3, errors("parts"))
    assert asked["whole"][0] == {"lm_weight": 0.0, "length_reward": 0.0}
    assert [each for each in asked["parts"] if each] == asked["whole"]
    assert abs(best(study).params["lm_weight"] - 0.4) < 0.2
    tune(study, names, 16, 3, errors("parts"))  # nothing to do
    assert len(asked["parts"]) == 18


def test_two_commands_at_once(folder: Path, corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The second would take the first's running trial for an interrupted one."""
    out = ["--trials", "1", "--out", str(tmp_path / "fusion.json")]
    with locked(tmp_path / "fusion.json.lock"), pytest.raises(SystemExit) as ended:
        run(folder, corpus, *out)
    assert ended.value.code == 2
    said = f"another `qstudy tune-fusion` is writing {tmp_path / 'fusion.json'} now; wait for it, or name another file."
    assert said in capsys.readouterr().err
    assert not (tmp_path / "fusion.json.trials.db").exists()
    run(folder, corpus, *out)
    assert (tmp_path / "fusion.json").exists()


def test_files_are_named_as_seen_from_where_the_folder_is(tmp_path: Path) -> None:
    (tmp_path / "deep" / "er").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "deep" / "er")
    (tmp_path / "store").write_text("n-grams")
    (tmp_path / "lm.arpa").symlink_to(tmp_path / "store")
    save_fusion(tmp_path / "link" / "fusion.json", FusionSettings(lm=tmp_path / "lm.arpa", lm_weight=0.5), {})
    found = load_fusion(tmp_path / "link" / "fusion.json").lm
    assert found is not None
    assert found.read_text() == "n-grams"
    assert found.suffix == ".arpa"


def test_trials_lie_where_they_are_said_to(tmp_path: Path) -> None:
    """Whatever a URL would make of the name."""
    file = tmp_path / "w?t=1#{x}%41" / "a.db"
    open_fusion_study(file, "study")
    assert file.exists()
    open_storage(None, file.parent)
    assert (file.parent / "study.db").exists()


@pytest.mark.parametrize("damage", ["another file", "cut short", "a page of zeros"])
def test_trials_that_cannot_be_read_are_told_of(tmp_path: Path, damage: str) -> None:
    file = tmp_path / "a.db"
    tune(open_fusion_study(file, "study"), ["lm_weight"], 3, 0, lambda weights: (weights["lm_weight"], 0.5))
    content = file.read_bytes()
    half = len(content) // 2
    pieces = {"another file": b"no database" * 200, "cut short": content[:half]}
    file.write_bytes(pieces.get(damage, content[:4096] + bytes(4096) + content[8192:]))
    with pytest.raises(UserError, match=r"a\.db cannot be used \(.+\); remove it to tune anew\.$") as error:
        open_fusion_study(file, "study")
    assert "\n" not in str(error.value)
    file.unlink()
    open_fusion_study(file, "study")


def test_of_equals_the_smallest_weights_are_best() -> None:
    study = optuna.create_study()
    tune(study, ["lm_weight"], 5, 0, lambda weights: (0.25, 0.5))
    assert best(study).params == {"lm_weight": 0.0}


def test_the_printed_commands(
    folder: Path, corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the small model in place of theirs."""
    section = (ROOT / "docs" / "decoding.md").read_text(encoding="utf-8").partition("## Beam search and fusion")[2]
    commands = section.partition("```\n")[2].partition("```")[0].splitlines()
    for name in ("sweeps/base", "corpora"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "sweeps" / "base" / "commands.qst").symlink_to(folder / "model.qst")
    (tmp_path / "corpora" / "commands").symlink_to(corpus)
    (tmp_path / "world.arpa.gz").write_bytes(gzip.compress((folder / "lm.arpa").read_bytes()))
    (tmp_path / "some.wav").symlink_to(read_manifest(corpus / "dev.jsonl")[0].audio)
    monkeypatch.chdir(tmp_path)
    for command in commands:
        program, *arguments = shlex.split(command.replace("--trials 30", "--trials 2"))
        assert program == "qstudy"
        main(arguments)
    assert "WER" in capsys.readouterr().out
    assert len(commands) == 3


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--trials", "0"], "--trials: 0 should be greater than or equal to 1"),
        (["--beam", "0"], "--beam: 0 should be greater"),
        (["--source_lm", "gone.arpa"], "gone.arpa"),
        (["--out", "lm.arpa"], "--out: lm.arpa is also an input"),
    ],
)
def test_bad_options(
    folder: Path,
    options: list[str],
    said: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(folder)
    out = [] if "--out" in options else ["--out", "bad.json"]
    with pytest.raises(SystemExit) as exit:
        main(["tune-fusion", "model.qst", "--manifest", "gone.jsonl", "--lm", "lm.arpa", *out, *options])
    assert exit.value.code == 2
    assert said in capsys.readouterr().err
    assert not (folder / "bad.json").exists()


def test_transcribe_prints_as_many_hypotheses(folder: Path, corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sound = str(read_manifest(corpus / "dev.jsonl")[0].audio)
    beam = ["transcribe", str(folder / "model.qst"), sound, "--decode", "beam", "--beam", "5"]
    main(beam)
    best_text = capsys.readouterr().out
    main([*beam, "--nbest", "4"])
    lines = capsys.readouterr().out.splitlines()
    scores = [float(line[:9]) for line in lines]
    assert len(lines) == 4
    assert scores == sorted(scores, reverse=True)
    assert f"{lines[0][11:]}\n" == best_text
    main([*beam, "--nbest", "4", "--json", "--stream"])
    told = json.loads(capsys.readouterr().out)
    assert told["audio"] == sound
    assert [each["text"] for each in told["hypotheses"]] == [line[11:] for line in lines]
    assert [round(each["score"], 3) for each in told["hypotheses"]] == pytest.approx(scores, abs=2e-3)
    for each in told["hypotheses"]:
        assert TOKENIZER.decode(each["labels"]) == each["text"]
        assert len(each["times_s"]) == len(each["labels"])
        assert each["times_s"] == sorted(each["times_s"])
    weights = ["--lm", str(folder / "lm.arpa"), "--lm_weight", "3", "--length_reward", "2"]
    main([*beam, *weights, "--search", "alignment"])
    assert capsys.readouterr().out not in (best_text, "\n")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--nbest", "2"], "--nbest: 2 hypotheses need a beam of as many; use --decode beam --beam 2."),
        (["--decode", "beam", "--beam", "3", "--nbest", "4"], "--nbest: 4 hypotheses need a beam of as many"),
        (["--beam", "4"], "beam: greedy search has none; use --decode beam, or leave --beam out."),
        (["--decode", "beam", "--fusion", "gone.json"], "gone.json"),
    ],
)
def test_bad_searches(folder: Path, options: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit:
        main(["transcribe", str(folder / "model.qst"), "a.wav", *options])
    assert exit.value.code == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
