"""Records from strangers: what is wrong is named with file, line and field; what is text stays text everywhere."""

import csv
import json
from pathlib import Path
from typing import Any

import analysis_study as made
import pandas as pd
import pytest

from analysis.latex import to_latex
from analysis.tables.table import Column, Table
from analysis.write import to_csv, to_markdown
from qstudy.cli import main

HTML, TEX, FORMULA = "<script>alert(1)</script>", r"\input{/etc/passwd}", '=HYPERLINK("http://example.org","x")'


def write_lines(folder: Path, *lines: bytes) -> Path:
    folder.mkdir()
    (folder / "records.jsonl").write_bytes(b"\n".join(lines) + b"\n")
    return folder


def changed(record: dict[str, Any], **fields: Any) -> bytes:
    return json.dumps(record | fields).encode()


def test_every_wrong_line_is_named(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    sound, first, *_ = made.records()
    wrong = {
        b"\xff": "not UTF-8 text",
        changed(first, seed=[1]): "seed: a list should be a valid integer",
        changed(first, size_bytes=-5): "size_bytes: -5 should be greater than or equal to 0",
        changed(first, size_bytes=float("nan")): "NaN is not a finite number",
        changed(first, size_bytes=10**30): "has more than 20 digits",
        changed(first, study="../../x"): "study: '../../x' cannot name a file",
        changed(first, study="/etc/x"): "study: '/etc/x' cannot name a file",
        b'{"config": ' + b"[" * 10**5: "nested more than 50 times",
        b'{"run": "a", "run": "b"}': "the key 'run' occurs twice",
        b'{"run": "a", "policy": "ptq"}': "state: this field is missing",
        b"3": "The record is not a mapping",
        changed(first, baseline={"latency": 3}): "baseline.latency: 3 should be a mapping",
    }
    folder = write_lines(tmp_path / "in", json.dumps(sound).encode(), *wrong)
    main(["report", str(folder), "--out", str(tmp_path / "out")])
    warnings = capfd.readouterr().err.splitlines()
    assert len(warnings) == len(wrong)
    for line, (warning, message) in enumerate(zip(warnings, wrong.values(), strict=True), start=2):
        assert warning.startswith(f"warning: left out records.jsonl:{line}: ")
        assert message in warning
    assert {path.name for path in tmp_path.iterdir()} == {"in", "out"}


def test_a_report_of_nothing_readable_is_one_sentence(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder = write_lines(tmp_path / "in", b"\xff\xfe", b"[1")
    with pytest.raises(SystemExit) as exit:
        main(["report", str(folder)])
    assert exit.value.code == 2
    said = capfd.readouterr().err
    assert said.count("\n") == 1
    assert "2 that cannot be read: not UTF-8 text" in said


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of records in which every text that may be anything is hostile."""
    folder = tmp_path_factory.mktemp("strangers")
    records = made.records()[:6]
    for number, record in enumerate(records):
        evil = f"{FORMULA}{HTML}{TEX}$\\frac{{${number}"
        record |= {"run": evil, "command": evil, "commit": evil, "reason": evil, "versions": {evil: evil}}
        record |= {"samples": [{"reference": evil, "hypothesis": f"{evil} {HTML}"}], "config": {evil: evil}}
        record["config"] |= {"policy": {"name": record["policy"], "option": f"{evil} {number % 3}"}}
        for field in ("bit_map", "layers", "latency"):
            record[field] = {f"{evil} {name}": value for name, value in record[field].items()}
        record["latency"] |= {f"../../{HTML}": {"latency_ms": 2.0}}
        record["metrics"] = {HTML + TEX: record["metrics"]["test"], "dev": record["metrics"]["dev"]}
        record["policy"] = f"{record['policy']}{HTML}" if number else "float"
    folder = write_lines(folder / "in", *(json.dumps(record).encode() for record in records))
    main(["report", str(folder), "--out", str(folder.parent / "out")])
    assert {path.name for path in folder.parent.iterdir()} == {"in", "out"}
    return folder.parent / "out"


def test_no_text_becomes_code(written: Path) -> None:
    page = (written / "index.html").read_text()
    assert "alert(1)" in page
    for path in (written / "index.html", *written.glob("*.svg"), *written.glob("*.md")):
        assert "<script>alert" not in path.read_text()
    tables = list(written.glob("*.tex"))
    assert any("input" in path.read_text() for path in tables)
    assert not any(r"\input" in path.read_text() for path in tables)
    for path in written.glob("*.csv"):
        with path.open(newline="") as file:
            assert not [cell for row in csv.reader(file) for cell in row if cell.startswith(("=", "+", "@"))]


def test_a_password_in_an_old_record_goes_no_further(tmp_path: Path) -> None:
    command = "qstudy sweep a.yaml --storage 'postgresql://host/db?user=me&password=geh3im' --trials 3"
    folder = write_lines(tmp_path / "in", changed(made.records()[0], command=command))
    main(["report", str(folder), "--out", str(tmp_path / "out")])
    assert not [path for path in (tmp_path / "out").iterdir() if b"geh3im" in path.read_bytes()]
    page = (tmp_path / "out" / "index.html").read_text()
    assert "--storage &#39;postgresql://host/db?***&#39; --trials 3" in page


def test_every_format_escapes_its_own() -> None:
    texts = (FORMULA, "@x", "-1+1", "a\n\nb", "[x](javascript:x)", "![](//x)|")
    table = Table("t}\\input{x", "", HTML, pd.DataFrame({"+x": texts}), (Column("+x", TEX),))
    assert to_csv(table).splitlines()[0] == "'+x"
    assert to_csv(table).splitlines()[1].startswith("\"'=HYPERLINK")
    assert {"'@x", "'-1+1"} <= set(to_csv(table).splitlines())
    markdown = to_markdown(table)
    assert "<" not in markdown
    assert "](" not in markdown
    assert r"[x]\(javascript:x)" in markdown
    assert all(line.startswith("| ") for line in markdown.splitlines()[:8])
    assert r"\input" not in to_latex(table)
    assert r"\label{tab:t--input-x}" in to_latex(table)


def test_two_studies_of_one_name_are_not_mixed(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folders = [str(made.write(tmp_path / name, made.records()[:2])) for name in "ab"]
    with pytest.raises(SystemExit):
        main(["report", folders[0], folders[1], "--out", str(tmp_path / "out")])
    assert "two studies are called digits; give each of them once" in capfd.readouterr().err
    assert not (tmp_path / "out").exists()
