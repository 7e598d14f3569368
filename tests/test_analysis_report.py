"""The whole report: what it writes, that it is the same every time, and how it takes odd studies."""

import json
import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import analysis_study as made
import numpy as np
import pytest
from matplotlib.image import imread

from analysis.report import report

ROOT = Path(__file__).parents[1]
FIGURES = ("wer_vs_size", "wer_vs_latency", "wer_by_width", "bit_allocation")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of the made-up study."""
    folder = tmp_path_factory.mktemp("report")
    report(made.write(folder / "study", made.records()), folder / "out")
    return folder / "out"


def test_it_writes_tables_figures_page_and_records(written: Path):
    expected = {f"{name}.{ending}" for name in FIGURES for ending in ("png", "svg", "pdf")}
    tables = ("runs", "wer_by_width", "cost_by_width", "claims")
    expected |= {f"{name}.{ending}" for name in tables for ending in ("csv", "md", "tex")}
    assert {path.name for path in written.iterdir()} == expected | {"index.html", "records.jsonl", "report.json"}


@pytest.mark.parametrize("name", FIGURES)
def test_figures_show_something(written: Path, name: str):
    picture = imread(written / f"{name}.png")
    assert picture.shape[1] > 1000
    assert 0.02 < np.mean(picture[..., :3].min(axis=2) < 0.9) < 0.9


def test_the_same_records_give_the_same_bytes(written: Path, tmp_path: Path):
    """Elsewhere, in another process with another hash seed, from the copy of the records that the report keeps."""
    command = [sys.executable, "-m", "analysis.report", str(written), "--out", str(tmp_path / "again")]
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, "PYTHONHASHSEED": "7"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Lowest WER within the budgets: 1.40 % (fake_qat W5" in done.stdout
    for path in sorted(written.iterdir()):
        assert (tmp_path / "again" / path.name).read_bytes() == path.read_bytes(), path.name


class Resources(HTMLParser):
    """Gathers what a page refers to, and checks that tags are closed."""

    VOID = ("meta", "link", "br", "img", "input", "hr")

    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []
        self.open: list[str] = []
        self.ids: list[str] = []

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        self.links += [values[name] for name in ("href", "src", "srcset", "xlink:href") if values.get(name)]
        self.ids += [values["id"]] if values.get("id") else []
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_page_is_whole_and_needs_nothing_else(written: Path):
    text = (written / "index.html").read_text()
    page = Resources()
    page.feed(text)
    assert page.open == []
    assert len(page.ids) == len(set(page.ids))
    files = {link for link in page.links if not link.startswith(("#", "data:"))}
    assert files <= {path.name for path in written.iterdir()}
    assert not re.search(r"@import|url\((?!#|\"?data:)|<script[^>]+src", text)
    assert not re.search(r"url\(#(?!wer_|bit_)", text)


def test_the_page_tells_where_results_come_from_and_what_failed(written: Path):
    text = (written / "index.html").read_text()
    assert text.count("<code>qstudy sweep sweeps/digits.yaml</code> · seed 0 · qstudy 0.1.0, torch 2.12.1, python") == 8
    assert text.count("commit 0a1b2c3d4e5f") == 8
    assert "FloatingPointError: the loss is not finite at step 31" in text
    assert text.count("over budget: size_bytes") >= 2
    assert re.search(r"<del>\w+", text)
    assert re.search(r"<ins>\w+", text)


def test_text_from_records_is_escaped(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    records = made.records()[:2]
    records[1]["run"] = "<script>alert(1)</script>"
    records[1]["command"] = "qstudy sweep 'a & <b>'"
    records[1]["samples"] = [{"reference": "a <i> b", "hypothesis": "a <b> b"}]
    folder = tmp_path / "study"
    for index, record in enumerate(records):
        (folder / "runs" / str(index)).mkdir(parents=True)
        (folder / "runs" / str(index) / "record.json").write_text(json.dumps(record))
    report(folder, tmp_path / "out")
    text = (tmp_path / "out" / "index.html").read_text()
    assert "alert(1)</script>" not in text
    assert "<i>" not in text
    assert "qstudy sweep &#39;a &amp; &lt;b&gt;&#39;" in text


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
    report(made.write(tmp_path / "study", odd(made.records())[name]), tmp_path / "out")
    assert "</html>" in (tmp_path / "out" / "index.html").read_text()


def test_a_corrupt_record_is_a_warning_on_the_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    folder = made.write(tmp_path / "study", made.records()[:3])
    (folder / "runs" / "trial-0001-ptq" / "record.json").write_text("{")
    report(folder, tmp_path / "out")
    assert "left out runs/trial-0001-ptq/record.json" in capsys.readouterr().err
    text = (tmp_path / "out" / "index.html").read_text()
    assert "1 record left out" in text
    assert "runs/trial-0001-ptq/record.json" in text
    assert str(tmp_path) not in text


def test_a_report_without_latency_drops_the_old_figure(tmp_path: Path):
    records = made.records()[:3]
    report(made.write(tmp_path / "one", records), tmp_path / "out")
    assert (tmp_path / "out" / "wer_vs_latency.png").exists()
    report(made.write(tmp_path / "two", [record | {"latency": None} for record in records]), tmp_path / "out")
    assert not (tmp_path / "out" / "wer_vs_latency.png").exists()
    assert (tmp_path / "out" / "wer_vs_size.png").exists()


def test_several_studies_share_a_table(tmp_path: Path):
    first = made.write(tmp_path / "first", made.records()[:4])
    second = made.write(tmp_path / "second", [record | {"study": "commands"} for record in made.records()[:3]])
    command = [
        sys.executable,
        "-m",
        "analysis.report",
        str(first),
        "--also",
        str(second),
        "--out",
        str(tmp_path / "out"),
    ]
    subprocess.run(command, cwd=ROOT, check=True)
    header, *rows = (tmp_path / "out" / "comparison.md").read_text().splitlines()
    assert "commands test (%)" in header
    assert len([row for row in rows if row.startswith("| ptq")]) == 2


def test_a_users_mistake_ends_in_one_line(tmp_path: Path):
    command = [sys.executable, "-m", "analysis.report", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert "holds no run records" in done.stderr


PROBE = """<script>
const rows = () => [...document.querySelectorAll("#table-runs tbody tr")];
const cells = (column) => rows().map((row) => row.cells[column].innerText);
document.querySelectorAll("#table-runs th button")[4].click();
const rising = cells(4);
document.querySelectorAll("#table-runs th button")[4].click();
document.title = JSON.stringify({rising, falling: cells(4), wide: document.documentElement.scrollWidth});
</script>"""


def browser(*arguments: str) -> str:
    """Run Chromium headless."""
    quiet = (
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--hide-scrollbars",
    )
    command = [str(CHROMIUM), *quiet, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
def test_a_browser_sorts_the_table_and_fits_a_phone(written: Path, tmp_path: Path):
    page = tmp_path / "index.html"
    page.write_text((written / "index.html").read_text().replace("</body>", PROBE + "</body>"))
    dom = browser(f"--user-data-dir={tmp_path / 'profile'}", "--window-size=500,900", "--dump-dom", page.as_uri())
    title = re.search("<title>(.*?) *</title>", dom)
    assert title is not None
    told = json.loads(title[1])
    assert told["rising"][0].startswith("1.31")
    assert told["falling"][0].startswith("116.1")
    assert told["rising"][-1] == told["falling"][-1] == "–"  # rows without a value stay last
    assert told["wide"] <= 500


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
def test_a_browser_shows_it_light_and_dark(written: Path, tmp_path: Path):
    shots = []
    for index, scheme in enumerate((1, 0)):
        shot = tmp_path / f"{index}.png"
        browser(
            f"--user-data-dir={tmp_path / 'profile'}",
            f"--blink-settings=preferredColorScheme={scheme}",
            "--window-size=1100,1000",
            f"--screenshot={shot}",
            (written / "index.html").as_uri(),
        )
        shots.append(imread(shot)[..., :3])
    assert shots[0].mean() > 0.85
    assert shots[1].mean() < 0.25
    for shot in shots:  # the figure's coloured marks are there in both
        assert (shot.max(axis=2) - shot.min(axis=2) > 0.5).sum() > 300
