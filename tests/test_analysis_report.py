"""The whole report: what it writes, that it is the same every time, and how it takes odd studies."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import analysis_study as made
import pytest

from analysis.summary import sentence
from qstudy.commands.report import report

ROOT = Path(__file__).parents[1]
FIGURES = ("wer_vs_size", "wer_vs_latency", "wer_by_width", "bit_allocation")


def test_it_writes_tables_figures_page_and_records(written: Path):
    expected = {f"{name}.{ending}" for name in FIGURES for ending in ("png", "svg", "pdf")}
    tables = ("runs", "wer_by_width", "cost_by_width", "claims")
    expected |= {f"{name}.{ending}" for name in tables for ending in ("csv", "md", "tex")}
    assert {path.name for path in written.iterdir()} == expected | {"index.html", "records.jsonl", "report.json"}


def test_the_same_records_give_the_same_bytes(written: Path, tmp_path: Path):
    """Elsewhere, in another process with another hash seed, from the copy of the records that the report keeps."""
    again = tmp_path / written.name
    command = [sys.executable, "-m", "qstudy", "report", str(written), "--out", str(again)]
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, "PYTHONHASHSEED": "7"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Lowest WER within the budgets, chosen on dev: 1.40 % (fake_qat W5" in done.stdout
    for path in sorted(written.iterdir()):
        assert (again / path.name).read_bytes() == path.read_bytes(), path.name


def test_what_there_is_is_counted(tmp_path: Path):
    """Trials, float models alone, or searches."""
    records = made.records()
    floats = [one | {"study": None, "run": f"float-{place}"} for place, one in enumerate([records[0]] * 2)]
    searches = [one | {"config": {"decoding": {"beam": 4}}} for one in records[:3]]
    told = {"trials": records[:3], "floats": floats, "searches": searches}
    found = {name: sentence(made.study(tmp_path / name, some)) for name, some in told.items()}
    starts = {"trials": "2 finished trials, ", "floats": "2 float models, ", "searches": "3 searches, "}
    assert {name: found[name].startswith(start) for name, start in starts.items()} == dict.fromkeys(starts, True)


def test_of_very_many_runs_the_page_shows_some_and_says_so(tmp_path: Path):
    """Every run of its tables is known to its script; no trained trial is lost to candidates; the CSV file has all."""
    many = [made.over_budget(100 + number, 8) for number in range(2500)]
    report([made.write(tmp_path / "study", [*made.records(), *many])], tmp_path / "out")
    page = (tmp_path / "out" / "index.html").read_text()
    assert "show 2,000 of 2,529 runs" in page
    assert "Printed: 2,000 of 2,529 rows; the CSV file has all." in page
    assert "<summary>1,974 of 2,503 rows</summary>" in page
    (data,) = json.loads(re.findall(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)[0])
    known = set(data["columns"]["run"])
    assert len(known) == 2000
    assert {record["run"] for record in made.records() if record["state"] == "complete"} <= known
    assert set(re.findall(r"<td>(trial-\d+-mixed|float-0a1b2c3d)</td>", page)) <= known
    assert len((tmp_path / "out" / "runs.csv").read_text().splitlines()) == 2529 + 1
    assert len((tmp_path / "out" / "records.jsonl").read_bytes().splitlines()) == 2529


def odd(records: list[dict]) -> dict[str, list[dict]]:
    """Name -> records of a study that lacks something."""
    trials = records[3:6]
    bare = {"run": "only", "policy": "mine", "state": "complete", "metrics": {"test": {"wer": 1.7}}}
    zero = [
        record | {"metrics": {"test": {"wer": rate, "wer_low": 0, "wer_high": 2 * rate}}}
        for record, rate in zip(trials, (0, 0.01, 0.9), strict=True)
    ]
    return {
        "baseline alone": records[:1],
        "one trial": trials[:1],
        "no baseline": [record | {"baseline": None} for record in trials],
        "bare": [bare],
        "bare beside full": [*records[:3], bare],
        "zero": zero,
        "all zero": [record | {"metrics": {"test": {"wer": 0}}} for record in trials],
        "no latency, no budgets": [record | {"latency": None, "budgets": None, "layers": None} for record in trials],
        "many own policies": [
            record | {"policy": f"mine{index}", "run": f"r{index}"} for index, record in enumerate(trials * 4)
        ],
    }


@pytest.mark.parametrize("name", odd(made.records()))
def test_odd_studies_are_reported(tmp_path: Path, name: str):
    report([made.write(tmp_path / "study", odd(made.records())[name])], tmp_path / "out")
    assert "</html>" in (tmp_path / "out" / "index.html").read_text()


def test_a_corrupt_record_is_a_warning_on_the_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    folder = made.write(tmp_path / "study", made.records()[:3])
    (folder / "runs" / "trial-0001-ptq" / "record.json").write_text("{")
    report([folder], tmp_path / "out")
    assert "left out runs/trial-0001-ptq/record.json" in capsys.readouterr().err
    text = (tmp_path / "out" / "index.html").read_text()
    assert "1 record left out" in text
    assert "runs/trial-0001-ptq/record.json" in text
    assert str(tmp_path) not in text


def test_a_report_without_latency_drops_the_old_figure(tmp_path: Path):
    records = made.records()[:3]
    report([made.write(tmp_path / "one", records)], tmp_path / "out")
    assert (tmp_path / "out" / "wer_vs_latency.png").exists()
    report([made.write(tmp_path / "two", [record | {"latency": None} for record in records])], tmp_path / "out")
    assert not (tmp_path / "out" / "wer_vs_latency.png").exists()
    assert (tmp_path / "out" / "wer_vs_size.png").exists()


def test_several_studies_share_a_table(tmp_path: Path):
    first = made.write(tmp_path / "first", made.records()[:4])
    second = made.write(tmp_path / "second", [record | {"study": "commands"} for record in made.records()[:3]])
    out, again = tmp_path / "out", tmp_path / "again" / "out"
    report([first, second], out)
    header, *rows = (out / "comparison.md").read_text().splitlines()
    assert "commands test (%)" in header
    assert len([row for row in rows if row.startswith("| ptq")]) == 2
    assert {"digits_runs.csv", "commands_runs.tex", "claims.md"} <= {path.name for path in out.iterdir()}
    report([out], again)  # from the copy of both studies' records
    for path in out.iterdir():
        assert (again / path.name).read_bytes() == path.read_bytes(), path.name


def test_a_users_mistake_ends_in_one_line(tmp_path: Path):
    command = [sys.executable, "-m", "qstudy", "report", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("qstudy: ")
    assert done.stderr.count("\n") == 1
    assert "holds no run records" in done.stderr
