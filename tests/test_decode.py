"""`qstudy decode`: cells of a study of searches, what they go on from, and tables of their records."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import optuna
import pandas as pd
import pytest
import torch
import yaml
from analysis_study import study
from tiny import LSTM, TOKENIZER, filled, model_config, packed, talkative

from analysis.fusion import against_latency, by_beam, cells, choices, kept, searches
from analysis.study import load_studies
from qstudy.cli import main
from qstudy.data.corpora.noisy import noisy
from qstudy.data.feature_set import FeatureSet
from qstudy.data.manifest import identity
from qstudy.files import content_hash, file_hash, read_json
from qstudy.hardware.accelerator import PROFILES
from qstudy.locks import locked, try_lock
from qstudy.model.language import LSTMLanguageModel
from qstudy.quant.packed.model import pack_model
from qstudy.quant.policies import build_policy
from qstudy.recognize.build import build_beam_search
from qstudy.recognize.encoded import Encoded, EncodedSet
from qstudy.recognize.fusion import Fusion
from qstudy.recognize.language import describe, load_language_model
from qstudy.recognize.options import Decoding
from qstudy.settings import LanguageModelConfig
from qstudy.sweep.decoding import searches as searches_module
from qstudy.training.load import load_recognizer
from qstudy.training.record import Record, write_record


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recognizer and a language model of random weights, in float and in 4 bits."""
    folder = tmp_path_factory.mktemp("models")
    for name, policy in {"float": {"name": "float"}, "int4": {"name": "ptq", "layers": {"*": {"weight": 4}}}}.items():
        recognizer = talkative(model_config(dict(LSTM)))
        packed(recognizer, filled(recognizer, policy)).save(folder / f"{name}.qst")
        torch.manual_seed(3)
        sizes = LanguageModelConfig(embedding=8, hidden=16, layers=1)
        language, built = LSTMLanguageModel(TOKENIZER.size, sizes), build_policy(policy)
        built.prepare(language)
        built.calibrate(language, (language(torch.ones(2, 5, dtype=torch.int64)) for _ in range(2)))
        header = describe(sizes, TOKENIZER, policy)
        language.eval()
        pack_model(language, built.bit_map(language.shapes()), language.shapes(), header).save(
            folder / f"lm-{name}.qst"
        )
    (folder / "record.json").write_text(json.dumps({"notes": {"choices": {"x": {"quantizer": "sawb"}}}}))
    return folder


def described(folder: Path, corpus: Path, **changes: Any) -> dict[str, Any]:
    entries = {
        name: {
            "model": str(folder / f"{name}.qst"),
            "lm": str(folder / f"lm-{name}.qst"),
            "source_lm": str(folder / "lm-float.qst"),
        }
        for name in ("float", "int4")
    }
    manifests = {"dev": str(corpus / "dev.jsonl"), "test": str(corpus / "dev.jsonl")}
    values = {"study": "tiny", **manifests, "models": entries, "beams": [1, 3], "tune": {"trials": 3, "beam": 2}}
    return {**values, **changes}


def decode(folder: Path, values: dict[str, Any]) -> Path:
    (folder / "study.yaml").write_text(yaml.safe_dump(values))
    main(["decode", str(folder / "study.yaml"), "--root", str(folder), "--cache", str(folder / "cache")])
    return folder / values["study"]


def test_cells_are_decoded_once_and_told_of(
    models: Path, corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    values = described(models, corpus)
    values["models"]["float"]["widths"] = "w16a16"
    out = decode(tmp_path, values)
    paths = sorted((out / "runs").glob("*/record.json"))
    records = {path.parent.name: read_json(path) for path in paths}
    assert len(records) == 2 * 3 * 2
    assert len(sorted((out / "weights").glob("*.json"))) == 4
    before = {path: path.stat().st_mtime_ns for path in paths}
    decode(tmp_path, values)
    assert before == {path: path.stat().st_mtime_ns for path in paths}
    paths[0].unlink()
    decode(tmp_path, values)
    assert read_json(paths[0])["metrics"]["test"]["wer"] == records[paths[0].parent.name]["metrics"]["test"]["wer"]

    one, none = records["int4-density-beam03"], records["int4-none-beam03"]
    files = [models / name for name in ("int4.qst", "lm-int4.qst", "lm-float.qst")]
    assert one["file_bytes"] == sum(path.stat().st_size for path in files)
    assert one["size_bytes"] > none["size_bytes"]
    assert one["latency"]["mobile_npu"]["latency_ms"] > none["latency"]["mobile_npu"]["latency_ms"]
    assert {name.partition(".")[0] for name in one["bit_map"]} >= {"encoder", "external_lm", "source_lm"}
    assert {"x", "external_lm.x", "source_lm.x"} == set(one["notes"]["choices"])
    half = records["float-none-beam01"]["latency"]["mobile_npu"]["latency_ms"]
    assert half > records["int4-none-beam01"]["latency"]["mobile_npu"]["latency_ms"]

    found = load_studies(out)[0]
    assert len(cells(found)) == 12
    table = searches(found)
    assert table is not None
    assert set(table.frame.beam) == {1, 3}
    report = tmp_path / "report"
    options = ["--table+", "analysis.fusion.searches", "--table+", "analysis.fusion.kept"]
    options += ["--table+", "analysis.fusion.choices", "--figure+", "analysis.fusion.by_beam"]
    main(["report", str(out), "--out", str(report), "--alone", *options])
    names = {path.name for path in report.iterdir()}
    assert {"searches.csv", "kept.md", "choices.tex", "by_beam.svg", "records.jsonl"} <= names
    assert not {"runs.csv", "claims.csv"} & names
    capsys.readouterr()


def test_a_cell_is_what_evaluate_says(
    models: Path, corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = decode(tmp_path, described(models, corpus, fusion=["shallow"], beams=[2]))
    record = read_json(out / "runs" / "int4-shallow-beam02" / "record.json")
    weights = read_json(out / "weights" / "int4-shallow.json")
    capsys.readouterr()
    lm = ["--lm", str(models / "lm-int4.qst"), "--lm_weight", str(weights["lm_weight"])]
    search = ["--decode", "beam", "--beam", "2", "--length_reward", str(weights["length_reward"])]
    manifest = ["--manifest", str(corpus / "dev.jsonl"), "--cache", str(tmp_path / "cache"), "--json"]
    main(["evaluate", str(models / "int4.qst"), *manifest, *search, *lm])
    assert json.loads(capsys.readouterr().out)["wer"] == record["metrics"]["test"]["wer"]
    assert weights["dev_wer"] <= weights["without"]


def test_dev_is_heard_where_weights_are_tuned_on_it_alone(
    models: Path, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[str] = []

    class Counting(EncodedSet):
        def __init__(self, *parts: Any) -> None:
            self.manifest = Path(parts[-1])
            super().__init__(*parts)

        def _encode(self, indices: Sequence[int]) -> Encoded | None:
            heard.append(self.manifest.stem)
            return super()._encode(indices)

    monkeypatch.setattr(searches_module, "EncodedSet", Counting)
    values = described(models, corpus, test=str(corpus / "test.jsonl"), fusion=["none"], beams=[1])
    values["models"].pop("int4")
    decode(tmp_path, values)
    assert set(heard) == {"test"}
    decode(tmp_path, {**values, "fusion": ["shallow"]})
    assert set(heard) == {"test", "dev"}
    heard.clear()
    decode(tmp_path, {**values, "fusion": ["shallow"], "beams": [1, 2]})  # with the weights that were found
    assert set(heard) == {"test"}


def test_weights_of_names_with_a_dot_are_kept_apart(models: Path, corpus: Path, tmp_path: Path) -> None:
    values = described(models, corpus, fusion=["shallow", "density"], beams=[1], tune={"trials": 1, "beam": 1})
    values["models"] = {"int4.v2": values["models"]["int4"]}
    out = decode(tmp_path, values)
    forms = ("int4.v2-density", "int4.v2-shallow")
    assert {path.name for path in (out / "weights").iterdir()} == {
        f"{form}.{kind}" for form in forms for kind in ("db", "json", "lock")
    }


def test_what_another_process_does_is_left_to_it(
    models: Path, corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    values = described(models, corpus, beams=[1])
    study = tmp_path / "tiny"
    with locked(study / "weights" / "float-shallow.lock"), locked(study / "runs" / "int4-none-beam01" / "cell.lock"):
        decode(tmp_path, values)
        done = {path.parent.name for path in study.glob("runs/*/record.json")}
        assert "2 of 6 searches are still running in other processes" in capsys.readouterr().out
    decode(tmp_path, values)
    assert "other processes" not in capsys.readouterr().out
    every = {path.parent.name for path in study.glob("runs/*/record.json")}
    assert every - done == {"float-shallow-beam01", "int4-none-beam01"}
    assert len(every) == 6


def test_what_another_process_has_done_meanwhile_is_not_done_again(
    models: Path, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other one comes while this one is at its first cell, and does all others."""
    values = described(models, corpus, fusion=["none"], beams=[1, 2, 3])
    written: list[Path] = []

    def write(folder: Path, record: Record) -> None:
        written.append(folder)
        if len(written) == 1:
            decode(tmp_path, values)
        write_record(folder, record)

    monkeypatch.setattr(searches_module, "write_record", write)
    decode(tmp_path, values)
    assert len(written) == len(set(written)) == 6


def test_what_a_killed_process_was_at_is_done_in_the_end(
    models: Path, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = described(models, corpus, fusion=["none"], beams=[1, 2])
    lock = try_lock(tmp_path / "tiny" / "runs" / "float-none-beam01" / "cell.lock")
    assert lock is not None

    def write(folder: Path, record: Record) -> None:
        lock.close()  # while this one is at its next cell
        write_record(folder, record)

    monkeypatch.setattr(searches_module, "write_record", write)
    out = decode(tmp_path, values)
    assert len(list(out.glob("runs/*/record.json"))) == 4


def test_another_model_is_decoded_anew(models: Path, corpus: Path, tmp_path: Path) -> None:
    values = described(models, corpus, fusion=["none"], beams=[1])
    path = decode(tmp_path, values) / "runs" / "float-none-beam01" / "record.json"
    before = read_json(path)["scored"]
    values["models"]["float"]["model"] = values["models"]["int4"]["model"]
    decode(tmp_path, values)
    assert read_json(path)["scored"] != before


def test_another_accelerator_is_another_price_of_what_was_decoded(
    models: Path, corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chip = yaml.safe_load((PROFILES / "mobile_npu.yaml").read_text())
    values = described(models, corpus, fusion=["shallow"], beams=[1], accelerator=[str(tmp_path / "chip.yaml")])
    values["models"].pop("int4")
    found = []
    for clock in (2400, 1200, 1200):
        chip["cpu"]["clock_mhz"] = clock  # where layers in float run
        (tmp_path / "chip.yaml").write_text(yaml.safe_dump(chip))
        path = decode(tmp_path, values) / "runs" / "float-shallow-beam01" / "record.json"
        found.append((read_json(path), path.stat().st_mtime_ns, capsys.readouterr().out))
    (fast, _, _), (slow, written, said), (_, again, _) = found
    before, after = (each["latency"][str(tmp_path / "chip.yaml")]["latency_ms"] for each in (fast, slow))
    assert after > before
    assert f"{after:.3g}" in said
    assert again == written
    assert {**slow, "latency": fast["latency"]} == fast  # decoded once: its speed is the same, too


@pytest.mark.parametrize("former", [False, True], ids=["of this version", "of an earlier version"])
def test_what_nothing_that_is_heard_depends_on_decodes_nothing_anew(
    models: Path, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, former: bool
) -> None:
    """Accelerators and widths are a matter of price, and without language models nobody needs dev or a seed."""
    values = described(models, corpus, fusion=["none", "shallow"], beams=[1], accelerator=["mobile_npu"])
    values["models"].pop("int4")
    out = decode(tmp_path, values)
    if former:
        for path in out.glob("runs/*/record.json"):
            path.write_text(json.dumps({**read_json(path), "scored": earlier_hash(values, read_json(path))}))
    written: list[Path] = []
    monkeypatch.setattr(searches_module, "write_record", lambda folder, record: written.append(folder))
    half = {"models": {"float": {**values["models"]["float"], "widths": "w16a16"}}}
    for change in ({"accelerator": ["int4_multicore", "mobile_npu"]}, half, {}, {"accelerator": ["int4_multicore"]}):
        values |= change
        decode(tmp_path, values)
        for path in out.glob("runs/*/record.json"):
            record = read_json(path)
            assert list(record["latency"]) == values["accelerator"]
            assert record["config"]["widths"] == values["models"]["float"].get("widths")
    assert not written
    decode(tmp_path, {**values, "dev": str(corpus / "test.jsonl"), "seed": 1})
    assert [folder.name for folder in written] == ["float-shallow-beam01"]


def earlier_hash(values: dict[str, Any], record: dict[str, Any]) -> str:
    """What records were known by when accelerators, widths, dev and seed were in it."""
    files = [file_hash(Path(path)) for path in record["config"]["files"].values()]
    files += [identity(Path(values[name])) for name in ("dev", "test")]
    decoding, tune = record["config"]["decoding"], values["tune"] if len(files) > 3 else None
    return content_hash(files, None, tune, decoding["search"], decoding["beam"], values["accelerator"], record["seed"])


def test_other_sounds_of_the_same_texts_are_decoded_anew(models: Path, corpus: Path, tmp_path: Path) -> None:
    values = described(models, tmp_path, fusion=["shallow"], beams=[1])
    values["models"].pop("int4")
    manifests, seen = set(), []
    for ratio in (30, 0, 0):
        noisy([corpus / "dev.jsonl"], tmp_path, ratio, ["white"])
        manifests.add((tmp_path / "dev.jsonl").read_bytes())
        out = decode(tmp_path, values)
        tuned = optuna.get_all_study_names(f"sqlite:///{out}/weights/float-shallow.db")
        seen.append((read_json(out / "runs" / "float-shallow-beam01" / "record.json")["scored"], len(tuned)))
    assert len(manifests) == 1
    assert seen[0][0] != seen[1][0] == seen[2][0]
    assert [count for _, count in seen] == [1, 2, 2]


def test_work_is_what_greedy_search_does(models: Path, corpus: Path, tmp_path: Path) -> None:
    """A beam of one: once per frame and once per label the joiner, once per label everything else."""
    recognizer = load_recognizer(models / "float.qst")
    features = FeatureSet.open(
        corpus / "dev.jsonl", recognizer.features, recognizer.tokenizer, tmp_path / "cache", False
    )
    heard = EncodedSet(recognizer, features)
    language = load_language_model(models / "lm-float.qst", recognizer.tokenizer)
    search = build_beam_search(Decoding(decode="beam", beam=1), Fusion(language, 0.0))
    work = heard.work(search, len(features))
    labels = sum(len(recognizer.tokenizer.encode(text)) for text in heard.texts(search))
    frames = sum(int(length) for _, length in heard._single())
    assert work.labels_per_hypothesis == work.batches_per_label == 1.0
    assert work.expansions == pytest.approx((frames + labels) / frames)


def test_a_checkpoint_is_refused_before_anything_is_tuned(
    models: Path, corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save({"state_dict": {}}, tmp_path / "last.ckpt")
    values = described(models, corpus, fusion=["shallow"], beams=[1])
    values["models"] = {"float": {**values["models"]["float"], "model": str(tmp_path / "last.ckpt")}}
    with pytest.raises(SystemExit) as ended:
        decode(tmp_path, values)
    assert ended.value.code == 2
    assert "models.float: " in (said := capsys.readouterr().err)
    assert "last.ckpt is not a complete packed model" in said
    assert not (tmp_path / "tiny" / "weights").exists()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"beams": [0]}, "beams"),
        ({"models": {}}, "models"),
        ({"models": {"a": {"model": "m.qst"}}}, "models.a: lm: it is missing; fusion of the form shallow takes it"),
        ({"models": {"a": {"model": "m.qst", "more": 1}}}, "models.a"),
        ({"fusion": ["deep"]}, "fusion"),
        ({"colour": 1}, "colour"),
        ({"accelerator": ["gone"]}, "gone"),
    ],
)
def test_bad_studies(
    models: Path, corpus: Path, tmp_path: Path, changes: dict[str, Any], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        decode(tmp_path, described(models, corpus, **changes))
    assert ended.value.code == 2
    assert said in capsys.readouterr().err


def record(name: str, form: str, beam: int, errors: str) -> dict[str, Any]:
    rate = sum(map(int, errors.split())) / (5 * len(errors.split()))
    scores = {"wer": rate, "wer_low": 0.9 * rate, "wer_high": 1.1 * rate, "rtf": 0.01}
    quick = {"latency_ms": 1.0 if name == "INT4" else 8.0, "rtf": 0.1}
    return {
        "schema": 2,
        "run": f"{name}-{form}-{beam}",
        "study": "searches",
        "state": "complete",
        "policy": "float" if name == "float" else "int4_e2e",
        "size_bytes": 100,
        "file_bytes": 800 if name == "float" else 100,
        "config": {"policy": {"name": "float"}, "decoding": {"name": name, "form": form, "beam": beam}},
        "metrics": {"test": scores},
        "utterances": {"test": {"errors": errors, "words": " ".join(["5"] * len(errors.split()))}},
        "latency": {"npu": quick},
        "baseline": None if (name, form, beam) == ("float", "none", 1) else {"id": "float-none-1"},
    }


def test_what_is_kept_of_the_gain(tmp_path: Path) -> None:
    """Fusion takes 2 of 4 errors an utterance off in float, and in 4 bits as many, or none."""
    count = 60
    errors = {
        ("float", "none"): "4 " * count,
        ("float", "shallow"): "2 " * count,
        ("float", "density"): "1 " * count,
        ("INT4", "none"): "4 " * count,
        ("INT4", "shallow"): "2 " * count,
        ("INT4", "density"): "4 " * count,
    }
    records = [record(*key, 1, text.strip()) for key, text in errors.items()]
    made = study(tmp_path, records)
    table = kept(made)
    assert table is not None
    rows = table.frame.set_index("fusion")
    assert rows.share["shallow fusion"] == pytest.approx(1.0)
    assert rows.share["density ratio"] == pytest.approx(0.0)
    assert rows.float_gain["density ratio"] == pytest.approx(0.6)
    assert rows.kept["shallow fusion"] == "shown"
    assert rows.kept["density ratio"] == "refuted"
    assert rows.not_worse["no language model"] == "shown"
    assert rows.not_worse["density ratio"] == "refuted"
    assert math.isnan(rows.share["no language model"])
    table = searches(made)
    assert table is not None
    frame: pd.DataFrame = table.frame
    assert frame.ratio[frame.models == "INT4"].tolist() == [8.0] * 3
    assert [picture.name for picture in (*by_beam(made), *against_latency(made))] == ["by_beam", "against_latency"]
    assert choices(made) is None


@pytest.mark.parametrize("there", [True, False], ids=["with its record", "without its record"])
def test_the_reference_is_what_the_others_name_whatever_its_policy(tmp_path: Path, there: bool) -> None:
    """Not the first by name: of two quantized models, the one that the study names first."""
    made = [record(name, "none", beam, f"{errors} 0 1") for name, errors in (("W8", 1), ("INT4", 3)) for beam in (1, 2)]
    for each in made:
        each |= {"policy": "int4_e2e", "baseline": {"id": "W8-none-1"}}
    made[0]["baseline"] = None
    found = study(tmp_path, made if there else made[1:])
    assert list(cells(found).models.unique()) == ["W8", "INT4"]
    table = kept(found)
    assert table is not None
    assert table.frame.models.tolist() == ["INT4"] * (2 if there else 1)
    assert [column.header for column in table.columns][3] == "W8 WER (%)"
