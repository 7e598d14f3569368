"""Tables: what stands in them, and how they are written."""

import copy
import csv
import io
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import analysis_study as made
import pandas as pd
import pytest
from test_analysis_frames import seeds

from analysis.latex import to_latex
from analysis.series import rows, series
from analysis.study import Study, load_studies
from analysis.tables import TABLES
from analysis.tables.by_width import cost_by_width, wer_by_width
from analysis.tables.claims import claims, findings, shown_not_worse, summaries
from analysis.tables.comparison import comparison
from analysis.tables.quantizers import quantizers
from analysis.tables.runs import runs
from analysis.tables.table import Column, Table, rate
from analysis.text import change, number, percent, size
from analysis.variants import order, variants
from analysis.verdicts import OPEN, REFUTED, SHOWN
from analysis.write import to_csv, to_markdown

WORDS, UTTERANCES = 5, 1000
MAX = {"name": "ptq", "weight_range": "max", "activation_range": "max"}
GPTQ = {"name": "ptq", "weight_range": "mse", "rounding": "gptq"}
FAKE = {"name": "fake_qat"}


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """The made-up study."""
    return made.study(tmp_path_factory.mktemp("study"), made.records())


@pytest.fixture(scope="module")
def policies(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """A study of policies, whose records tell errors by utterance."""
    return made.study(tmp_path_factory.mktemp("policies"), policy_records())


def run(policy: dict[str, Any], width: int, share: float, activation: int = 8, **fields: Any) -> dict[str, Any]:
    """A record whose utterances have an error each, up to this share of them."""
    wrong = round(share * UTTERANCES)
    scores = {"wer": (wer := wrong / (WORDS * UTTERANCES)), "wer_low": 0.8 * wer, "wer_high": 1.2 * wer}
    edits = {"errors": " ".join(["1"] * wrong + ["0"] * (UTTERANCES - wrong)), "words": " ".join(["5"] * UTTERANCES)}
    bits = {"weight": width, "activation": activation}
    record = {
        "run": f"{'-'.join(map(str, policy.values()))}-{width}-{activation}",
        "policy": policy["name"],
        "state": "complete",
        "study": "made",
        "trial": width,
        "steps": 0 if policy["name"] == "ptq" else 200,
        "config": {"policy": policy | {"layers": {"*": bits}}},
        "bit_map": {"encoder.lstm": bits, "joiner": bits},
        "metrics": {"test": scores, "dev": scores},
        "utterances": {"test": edits},
        "training_model_wer": wer,
        "size_bytes": 1000 * width,
        "step_ms": {"median": 12.0},
        "baseline": {"id": "float"},
    }
    return record | fields


def policy_records() -> list[dict[str, Any]]:
    """A baseline with 10 % wrong, rounding that breaks at 4 bits, training that does not, and a worse one."""
    floats, native = {"name": "float"}, {"name": "native_int"}
    return [
        run(floats, 32, 0.10, 32, baseline=None, run="float"),
        run(floats, 32, 0.09, 32, run="control"),
        *(run(MAX, width, share) for width, share in ((8, 0.1), (4, 0.4), (3, 0.9))),
        *(run(GPTQ, width, share) for width, share in ((8, 0.1), (4, 0.2), (3, 0.5))),
        *(run(FAKE, width, share) for width, share in ((8, 0.095), (4, 0.12), (3, 0.9))),
        *(
            run(native, width, share, training_model_wer=share / WORDS + 0.002)
            for width, share in ((8, 0.3), (4, 0.6), (3, 0.2))
        ),
    ]


def columns(table: Table | None) -> dict[str, list[Any]]:
    """Header -> cells."""
    assert table is not None
    cells = zip(*table.cells, strict=True)
    return {column.header: list(found) for column, found in zip(table.columns, cells, strict=True)}


def test_variants_of_a_policy_are_told_apart_by_what_varies() -> None:
    percentile = {"name": "ptq", "weight_range": "percentile", "percentile": 99.9}
    assert variants([MAX, GPTQ, percentile]) == ["max", "mse gptq", "percentile percentile=99.9"]
    assert variants([FAKE, FAKE]) == ["", ""]
    weights, activations = ({"name": "int4_e2e", f"{which}_quantizer": "max"} for which in ("weight", "activation"))
    assert variants([weights, activations, {"name": "int4_e2e", "weight_quantizer": "sawb"}]) == [
        "weight_quantizer=max",
        "activation_quantizer=max",
        "sawb",
    ]
    named = ["mine", "fake_qat", "ptq mse", "ptq max", "float"]
    assert order(named) == ["float", "ptq max", "ptq mse", "fake_qat", "mine"]


def test_series_put_equal_widths_side_by_side(study: Study) -> None:
    found = series(study).groupby(["kind", "name"]).width.agg(list)
    assert found["weights alone", "ptq"] == [8, 6, 5, 4, 3, 2]
    assert found["8-bit activations", "fake_qat"] == [6, 4, 3, 2]
    assert ("weights alone", "mixed") not in found


def test_equal_widths_of_weights_and_activations_are_a_series(tmp_path: Path) -> None:
    records = [run(FAKE, width, 0.1, width) for width in (8, 4, 2)]
    found = series(made.study(tmp_path, records))
    assert list(zip(found.kind, found.width, strict=True)) == [("activations as weights", width) for width in (8, 4, 2)]


def test_of_several_settings_the_middle_one_stands_for_all(tmp_path: Path) -> None:
    rates = (0.5, 0.1, 0.2)
    records = [run(FAKE, 4, rate, run=f"r{rate}", config={"policy": FAKE, "lr": rate}) for rate in rates]
    found = series(made.study(tmp_path, [*records, run(FAKE, 8, 0.1)]))
    middle = found[found.width == 4].iloc[0]
    assert (middle.run, middle.runs) == ("r0.2", 3)


def test_a_setting_with_more_seeds_stands_for_one_that_has_fewer(tmp_path: Path) -> None:
    """However lucky or unlucky the others were, and how many there are of them."""
    seeds = [run(FAKE, 4, rate, run=f"seed{seed}", seed=seed) for seed, rate in enumerate((0.3, 0.2, 0.4))]
    lucky = [run(FAKE, 4, rate, run=f"r{rate}", config={"policy": FAKE, "lr": rate}) for rate in (0.1, 0.11, 0.12, 0.5)]
    found = series(made.study(tmp_path, [*lucky, *seeds, run(FAKE, 8, 0.1)]))
    found = found[found.width == 4].iloc[0]
    assert (found.run, found.n, found.runs) == ("seed0", 3, 7)


def test_models_of_other_sizes_are_no_variants_of_each_other(tmp_path: Path) -> None:
    sizes = {"large": 2_000_000, "small": 970_000}
    records = []
    for name, count in sizes.items():
        layers = {"encoder.lstm": {"kind": "lstm", "parameters": count}}
        for width in (8, 4):
            config = {"policy": FAKE | {"layers": {"*": {"weight": width}}}, "model": {"encoder": {"hidden": count}}}
            records.append(run(FAKE, width, 0.1, run=f"{name}{width}", layers=layers, config=config))
    found = series(made.study(tmp_path, records))
    assert sorted(zip(found.name, found.width, found.runs, strict=True)) == [
        ("fake_qat (0.97 M)", 4, 1),
        ("fake_qat (0.97 M)", 8, 1),
        ("fake_qat (2 M)", 4, 1),
        ("fake_qat (2 M)", 8, 1),
    ]


def test_what_is_shown_to_be_not_worse_is_bold(policies: Study) -> None:
    found = columns(wer_by_width(policies))
    bold = {
        (name.text, width)
        for width in (8, 4, 3)
        for name, cell in zip(found["Policy"], found[f"{width} bits"], strict=True)
        if cell.bold
    }
    assert bold == {("ptq max", 8), ("ptq mse gptq", 8)}
    shown = policies.settings[policies.settings.setting.isin(shown_not_worse(policies))]
    assert {(one.method, one.weight_bits) for one in shown.itertuples()} == bold


def test_rows_begin_with_float_and_end_with_the_encoder_alone(tmp_path: Path) -> None:
    part = run({"name": "encoder_only"}, 4, 0.1)
    rest = copy.deepcopy(part) | {"run": "other"}
    part["bit_map"]["joiner"] = {"weight": 32, "activation": 32}
    rest["bit_map"] = {"encoder.lstm": {"weight": 4, "activation": 8}, "joiner": {"weight": 8, "activation": 8}}
    study = made.study(tmp_path, [*policy_records(), part, rest])
    found = rows(study)
    named = list(dict.fromkeys(zip(found.name, found.kind, strict=True)))
    assert named[:3] == [("float baseline", "float"), ("float control", "float"), ("ptq max", "8-bit activations")]
    assert named[-2:] == [("encoder_only", "encoder; rest in float"), ("encoder_only", "encoder; rest at 8 bits")]
    cells = columns(cost_by_width(study))
    trained = [cell.text for cell in cells["Policy"]].index("fake_qat")
    assert cells["4 bits"][trained].small == "12.0 ms"


def test_what_a_policy_chose_is_a_table(tmp_path: Path) -> None:
    records = policy_records()
    assert quantizers(made.study(tmp_path / "none", records)) is None
    weights = {"quantizer": "sawb", "errors": {"max": 0.02, "sawb": 0.0121}}
    records[-1]["notes"] = {"choices": {"encoder.weights.0": weights, "hidden": {"quantizer": "fixed", "errors": {}}}}
    table = quantizers(made.study(tmp_path / "some", records))
    assert table is not None
    assert [(row[1].text, row[1].small) for row in table.cells] == [("sawb", "0.012"), ("fixed", "")]
    assert table.frame.iloc[0, 2:].tolist() == [0.02, 0.0121]


def test_models_of_a_study_are_held_against_their_own_controls(tmp_path: Path) -> None:
    """Another architecture, whose float models recognize far better, changes nothing of what is said of this one; nor
    does a control that was trained for longer."""
    other = made.baseline() | {"run": "float-of-another"}
    control = next(one for one in made.records() if one["run"] == "trial-0000-float")
    control |= {"run": "trial-0099-float", "trial": 99, "seed": 5, "baseline": {"id": "float-of-another", "wer": 0.001}}
    for record in (other, control):
        record["metrics"]["test"] |= {"wer": 0.001, "wer_low": 0.0005, "wer_high": 0.002}
        record["config"] = record["config"] | {"model": {"encoder": {"name": "conformer"}}}
    longer = next(one for one in made.records() if one["run"] == "trial-0000-float")
    longer |= {"run": "trial-0098-float", "trial": 98}
    longer["metrics"]["test"] |= {"wer": 0.001, "wer_low": 0.0005, "wer_high": 0.002}
    longer["config"] = longer["config"] | {"finetune": {"steps": 10**6}}
    alone = findings(made.study(tmp_path / "alone", made.records()))
    beside = findings(made.study(tmp_path / "beside", [*made.records(), other, control, longer]))
    assert alone.claim.str.contains("float control").any()
    pd.testing.assert_frame_equal(alone, beside)


def test_without_a_control_every_seed_is_held_against_the_baseline(tmp_path: Path) -> None:
    """Of which there is one for all seeds, where trials start from a model file."""
    records = [one for one in made.records() if one["run"] != "trial-0000-float"]
    trained = next(one for one in records if one["policy"] == "fake_qat")
    seeds = [json.loads(json.dumps(trained)) | {"run": f"seed-{n}", "trial": 90 + n, "seed": n} for n in (1, 2)]
    for n, one in enumerate(seeds, 1):
        one["metrics"]["test"]["wer"] = trained["metrics"]["test"]["wer"] + 0.01 * n
        one["utterances"] = None
    found = findings(made.study(tmp_path / "three", [*records, *seeds])).set_index(["claim", "method"]).difference
    before = findings(made.study(tmp_path / "one", records)).set_index(["claim", "method"]).difference
    moved = (found - before).dropna()
    assert sorted(moved[moved.abs() > 1e-9]) == [pytest.approx(0.01)]


def test_claims_are_shown_refuted_or_open(policies: Study) -> None:
    found = {
        (one.claim.removesuffix(", trained as long"), one.method.split(",")[0]): one.verdict.split(" (")[0]
        for one in findings(policies).itertuples()
    }
    assert found["8 bits: not worse than the float baseline", "ptq max"] == SHOWN
    assert found["8 bits: not worse than the float control", "fake_qat"] == OPEN
    assert found["8 bits: not worse than the float control", "native_int"] == REFUTED
    rounding = "bits: lower WER than ptq max"
    assert (found[f"4 {rounding}", "fake_qat"], found[f"4 {rounding}", "native_int"]) == (SHOWN, REFUTED)
    assert (found[f"3 {rounding}", "fake_qat"], found[f"3 {rounding}", "native_int"]) == (OPEN, SHOWN)
    assert (f"4 {rounding}", "ptq mse gptq") not in found  # not trained
    packed = "all widths: the packed model's WER on dev is the training model's"
    assert (found[packed, "fake_qat"], found[packed, "native_int"]) == (SHOWN, REFUTED)
    assert summaries([("made", policies)])[f"4 {rounding}"] == [
        "made: shown for 1 of 2 methods and refuted for 1 of 2 methods (native_int, 8-bit activations)"
    ]


def test_comparison_has_a_column_per_set_and_study(study: Study, tmp_path: Path) -> None:
    records = [record | {"study": "other"} for record in made.records()]
    for record in records:
        record["metrics"] = {name: scores for name, scores in record.get("metrics", {}).items() if name == "test"}
    records[0]["metrics"]["noisy"] = records[0]["metrics"]["test"] | {"wer": 0.5}
    table = comparison([study, made.study(tmp_path, records)])
    assert table is not None
    keys = "policy bits digits_compression digits_test_wer other_compression other_test_wer other_noisy_wer"
    assert [column.key for column in table.columns] == keys.split()
    assert table.cells[0][0].text == "float baseline"
    assert table.frame.other_noisy_wer.iloc[0] == 0.5
    assert comparison([study]) is None


def test_comparison_keeps_models_apart(tmp_path: Path) -> None:
    """Of several architectures, and of one in several sizes; a baseline without a record is as its trials are."""
    records = []
    for name, hidden in (("conformer", 100), ("lstm", 100), ("lstm", 200)):
        for policy in ("float", "ptq"):
            layers = {layer: {"kind": "linear", "parameters": 1000 * hidden} for layer in ("encoder.lstm", "joiner")}
            one = run({"name": policy}, 8, 0.1, run=f"{policy}-{name}-{hidden}", trial=len(records), layers=layers)
            one["config"]["model"] = {"encoder": {"name": name, "hidden": hidden}}
            one["metrics"]["noisy"] = one["metrics"]["test"]
            one["baseline"] = {"id": f"float-{name}-{hidden}", "metrics": one["metrics"]}
            records.append(one)
    table = comparison([made.study(tmp_path, [one for one in records if one["policy"] != "float"])])
    assert table is not None
    models = ["conformer", "lstm (0.2 M)", "lstm (0.4 M)"]
    assert sorted(table.frame.architecture) == sorted(2 * models)
    assert [cell.text for cell in columns(table)["Architecture"]] == list(table.frame.architecture)


def test_comparison_counts_the_seeds_that_were_scored_on_a_set(tmp_path: Path) -> None:
    records = seeds()
    records[0]["metrics"]["noisy"] = records[0]["metrics"]["test"] | {"wer": 0.5, "wer_low": 0.4, "wer_high": 0.6}
    table = comparison([made.study(tmp_path, records)])
    assert table is not None
    told = {(cell.text, cell.small) for cell in columns(table)["noisy (%)"]}
    assert ("50.0", "[40.0, 60.0]") in told
    assert ("2.00", "± 1.00 (3 seeds)") in {(cell.text, cell.small) for cell in columns(table)["test (%)"]}


def test_a_setting_is_a_row_with_its_seeds(tmp_path: Path) -> None:
    study = made.study(tmp_path, seeds())
    assert len(runs(study).frame) == 3
    cells = columns(runs(study))["WER (%) [95 %]"]
    assert [(cell.text, cell.small) for cell in cells] == [
        ("2.00", "± 1.00 (3 seeds)"),
        ("2.00", "± 1.00 (3 seeds)"),
        ("4.00", "± 1.00 (3 seeds)"),
    ]


def test_the_csv_file_has_raw_values_and_every_run(study: Study) -> None:
    found = list(csv.DictReader(io.StringIO(to_csv(runs(study)))))
    assert len(found) == 29
    baseline, pruned = found[0], next(row for row in found if row["state"] == "pruned")
    assert float(baseline["wer"]) == 0.0132
    assert baseline["size_bytes"] == str(4 * made.PARAMETERS + 24000)
    assert (pruned["wer"], pruned["reason"].split(":")[0]) == ("", "over budget")
    assert {row["config.training.lr"] for row in found} == {"0.001", "0.002", ""}
    assert all(row["wer"] == "" or float(row["wer"]) <= float(row["wer_high"]) for row in found)


def test_markdown_and_latex_escape() -> None:
    frame = pd.DataFrame({"a": ["x|y_z"], "w": [0.012], "w_low": [0.01], "w_high": [0.02], "bold": [1]})
    table = Table("t", "T", "50 % & more", frame, (Column("a", "a_b"), rate("w", "WER (%)", bold="bold")))
    assert r"x\|y_z" in to_markdown(table)
    assert "**1.20** [1.00, 2.00]" in to_markdown(table)
    latex = to_latex(table)
    assert r"x|y\_z & \textbf{1.20} {\scriptsize [1.00, 2.00]} \\" in latex
    assert r"\caption{50 \% \& more}" in latex
    assert r"$\lambda$" in to_latex(Table("t", "T", "λ", frame, (Column("a", "λ"),)))
    assert r"\begin{tabular}{@{}lr@{}}" in latex


def test_committed_tables_need_no_more_than_plain_latex() -> None:
    """pdflatex knows no other letters unless it is told of them."""
    tables = list((Path(__file__).parents[1] / "reports").glob("*/*.tex"))
    assert tables
    assert not [path.name for path in tables if not path.read_text(encoding="utf-8").isascii()]


PAPER = r"\documentclass[twocolumn,10pt]{article}\usepackage{array,booktabs,graphicx}\begin{document}%s\end{document}"


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="needs a TeX")
def test_latex_tables_fit_a_page_with_two_columns(study: Study, policies: Study, tmp_path: Path) -> None:
    """The longest of each kind, too: rows go on on the next page."""
    tables = [table for one in (study, policies) for make in TABLES if (table := make(one))]
    tables += [table for table in (claims([("a", policies), ("b", study)]), comparison([study, policies])) if table]
    long = max(tables, key=lambda table: len(table.columns))
    tables.append(Table("long", "", "Long.", pd.concat([long.frame] * 12, ignore_index=True), long.columns))
    (tmp_path / "paper.tex").write_text(PAPER % "\n\\clearpage\n".join(map(to_latex, tables)), encoding="utf-8")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "paper.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:]
    assert not re.findall(r"Overfull.*|Float too large.*", done.stdout)


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (percent(0.01623), "1.62"),
        (percent(0.234), "23.4"),
        (percent(1.163), "116.3"),
        (percent(None), "–"),
        (percent(float("nan")), "–"),
        (percent(0.09996), "10.0"),
        (change(0.104), "+10"),
        (change(-0.1), "−10"),
        (change(0.001), "0"),
        (number(0.4891), "0.489"),
        (number(1234.5), "1234"),
        (number(12.34), "12.3"),
        (number(0.00017, 2), "0.00017"),
        (size(505 * 1024), "505 KiB"),
        (size(2 * 2**20), "2.00 MiB"),
    ],
)
def test_numbers_for_readers(said: str, expected: str) -> None:
    assert said == expected


def test_a_cell_may_be_longer_than_a_page() -> None:
    frame = pd.DataFrame({"a": ["out of memory " * 200, "no"]})
    latex = to_latex(Table("t", "T", "", frame, (Column("a", "Reason"),)))
    assert latex.count(r"\begin{tabular}") == 2


def test_the_model_that_candidates_are_judged_by_is_no_trial(tmp_path: Path) -> None:
    alone = made.study(tmp_path / "alone", made.records())
    folder = made.write(tmp_path / "screened", made.records())
    (folder / "screening").mkdir()
    model = next(record for record in made.records() if record["run"] in set(alone.finished.run))
    (folder / "screening" / "record.json").write_text(json.dumps({**model, "run": "toy-switchable", "trial": None}))
    for file, more in ((None, 1), ("study.yaml", 0)):  # without it, it is a folder of that name
        if file:
            (folder / file).write_text("study: toy")
        (found,) = load_studies(folder)
        assert len(found.runs) == len(alone.runs) + more
