"""The page: whole, self-contained, and answering to clicks, filters, print and phones as it should."""

import html
import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import analysis_study as made
import jiwer
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.image import imread
from pages import CHROMIUM, Resources, browser, told

from analysis.transcripts import differences
from qstudy.cli import main
from qstudy.commands.report import report

needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
EVIL = "</script><script>document.title='evil'</script><img src=x onerror=document.title='evil'>"
SETTLED = """
const until = async (condition) => { while (!condition()) await new Promise((go) => setTimeout(go, 50)); };
const figures = [...document.querySelectorAll("figure:has(.plot)")];
await until(() => figures.every((figure) => figure.classList.contains("drawn")));
const points = () => [...figures[0].querySelectorAll(".mark-symbol.role-mark path")];
"""


def test_it_is_whole_and_needs_nothing_else(written: Path):
    text = (written / "index.html").read_text()
    page = Resources(text)
    assert page.open == []
    assert len(page.ids) == len(set(page.ids))
    files = {link for link in page.links if not link.startswith(("#", "data:"))}
    assert files <= {path.name for path in written.iterdir()}
    assert not re.search(r"@import url|<script[^>]+src=|<link[^>]+stylesheet", text)
    assert not re.search(r"url\(#(?!wer_|bit_)", text.partition('<script type="application/json"')[0])


def test_it_tells_where_results_come_from_and_what_failed(written: Path):
    text = (written / "index.html").read_text()
    assert text.count("<code>qstudy sweep sweeps/digits.yaml</code> · seed 0 · qstudy 0.1.0, torch 2.12.1, python") == 8
    assert text.count("commit 0a1b2c3d4e5f") == 8
    assert "FloatingPointError: the loss is not finite at step 31</td>" in text
    assert text.count("over budget: size_bytes") >= 2
    assert re.search(r"<del>\w+", text)
    assert re.search(r"<ins>\w+", text)


def test_the_command_that_it_names_rebuilds_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """All of it: of several studies, with tables and figures of one's own, from the records in its folder."""
    monkeypatch.chdir(tmp_path)
    first = made.write(tmp_path / "first", made.records()[:4])
    second = made.write(tmp_path / "second", [record | {"study": "noisy"} for record in made.records()[:3]])
    out, architectures = tmp_path / "reports" / "b o t h", "analysis.architectures.architectures"
    report([first, second], out, "dev", architectures, ["analysis.architectures.word_errors"], alone=True)
    written = {path.name: path.read_bytes() for path in out.iterdir()}
    assert {"digits_architectures.md", "noisy_architectures.md"} <= written.keys()
    said = re.search("<dt>Rebuild with</dt><dd><code>(.*?)</code>", written["index.html"].decode())
    assert said is not None
    command = shlex.split(html.unescape(said[1]))
    assert command[:5] == ["qstudy", "report", "reports/b o t h", "--out", "reports/b o t h"]
    main(command[1:])
    assert {path.name: path.read_bytes() for path in out.iterdir()} == written


words = st.lists(st.sampled_from(["one", "two", "three"]), max_size=7).map(" ".join)


@given(words, words)
def test_differences_tell_both_texts_and_no_more_edits_than_needed(reference: str, hypothesis: str):
    pieces = differences(reference, hypothesis)
    assert " ".join(text for kind, text in pieces if kind != "inserted") == reference
    assert " ".join(text for kind, text in pieces if kind != "deleted") == hypothesis
    if reference:
        kept = sum(len(text.split()) for kind, text in pieces if kind == "same")
        output = jiwer.process_words(reference, hypothesis)
        edits = output.substitutions + output.deletions + output.insertions
        changed = len(reference.split()) + len(hypothesis.split()) - 2 * kept  # a substitution counts twice
        assert edits <= changed <= 2 * edits


@needs_browser
def test_a_run_tells_itself_under_the_mouse_and_its_settings_at_a_click(written: Path, tmp_path: Path):
    found = told(
        written / "index.html",
        tmp_path,
        SETTLED
        + """
    const point = points()[0], box = point.getBoundingClientRect();
    const where = {bubbles: true, clientX: box.x + box.width / 2, clientY: box.y + box.height / 2};
    for (const type of ["pointerover", "pointermove", "mousemove"]) point.dispatchEvent(new PointerEvent(type, where));
    await until(() => document.querySelector("#vg-tooltip-element.visible"));
    const tip = document.querySelector("#vg-tooltip-element").innerText;
    point.dispatchEvent(new MouseEvent("click", where));
    await until(() => document.querySelector("dialog").open);
    tell({points: points().length, tip, dialog: document.querySelector("dialog").innerText, hash: location.hash});
    """,
    )
    assert found["points"] == 25 + 1 + 2  # trials, the baseline, candidates over the budget
    run = re.search(r"trial-\d{4}-\w+", found["tip"])
    assert run is not None
    assert "qstudy sweep sweeps/digits.yaml" in found["tip"]
    assert re.search(r"WER \(%\)\s+\d+\.\d\d \[", found["tip"])
    assert found["hash"].startswith("#run-0-")
    assert run[0] in found["dialog"]
    assert "training.lr" in found["dialog"]


@needs_browser
def test_filters_leave_the_same_runs_in_plots_and_tables(written: Path, tmp_path: Path):
    found = told(
        written / "index.html",
        tmp_path,
        SETTLED
        + """
    const form = document.querySelector(".filter");
    const choose = async (name, value) => {
      form.elements[name].value = value;
      form.dispatchEvent(new Event("input", {bubbles: true}));
      await new Promise((go) => setTimeout(go, 200));
      return [points().length, document.querySelectorAll("#table-runs tbody tr:not([hidden])").length];
    };
    tell([await choose("title", "ptq"), await choose("weight_bits", "3"), await choose("title", "")]);
    """,
    )
    assert found == [[10, 10], [2, 2], [4, 4]]


@needs_browser
def test_the_address_of_a_run_opens_it_and_tables_sort(written: Path, tmp_path: Path):
    found = told(
        written / "index.html",
        tmp_path,
        """
    const link = document.querySelector("#table-runs tbody tr:nth-child(3) a");
    location.hash = link.getAttribute("href");
    await new Promise((go) => setTimeout(go, 100));
    const shown = document.querySelector("dialog h2").textContent;
    const column = 5, rows = () => [...document.querySelectorAll("#table-runs tbody tr")];
    const cells = () => rows().map((row) => row.cells[column].innerText);
    const button = document.querySelectorAll("#table-runs th button")[column];
    button.click();
    const rising = cells();
    button.click();
    tell({same: shown === link.textContent, rising, falling: cells(), wide: document.documentElement.scrollWidth});
    """,
        "500,900",
    )
    assert found["same"]
    assert found["rising"][0].startswith("1.31")
    assert found["falling"][0].startswith("116.1")
    assert found["rising"][-1] == found["falling"][-1] == "–"  # rows without a value stay last
    assert found["wide"] <= 500


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of records whose every text would be a script if it could."""
    records = made.records()[:6]
    for record in records:
        record |= {"run": f"{record['run']}{EVIL}", "command": EVIL, "reason": EVIL}
        record["config"] = {EVIL: EVIL, "policy": {"name": "ptq", "option": f"{EVIL}{record['trial']}"}}
        record["samples"] = [{"reference": EVIL, "hypothesis": EVIL}]
        record["latency"] = {EVIL: {"latency_ms": 2.0}}
    records[1]["policy"] = EVIL
    folder = tmp_path_factory.mktemp("hostile")
    (folder / "records.jsonl").write_text("".join(f"{json.dumps(record)}\n" for record in records))
    report([folder], folder / "out")
    return folder / "out" / "index.html"


def test_strangers_texts_are_data(hostile: Path):
    text = hostile.read_text()
    assert "<script>document" not in text
    assert "<img src=x" not in text
    assert Resources(text).open == []
    inlined = re.search('id="data">(.*?)</script>', text, re.DOTALL)
    assert inlined is not None
    assert json.loads(inlined[1])[0]["common"][EVIL] == EVIL


@needs_browser
def test_strangers_texts_do_nothing_in_a_browser(hostile: Path, tmp_path: Path):
    found = told(
        hostile,
        tmp_path,
        SETTLED
        + """
    for (const point of points()) {
      const box = point.getBoundingClientRect();
      point.dispatchEvent(new PointerEvent("pointermove", {bubbles: true, clientX: box.x + 2, clientY: box.y + 2}));
      await new Promise((go) => setTimeout(go, 50));
    }
    location.hash = "run-0-1";
    await until(() => document.querySelector("dialog").open);
    tell({title: document.title, images: document.images.length, text: document.querySelector("dialog").innerText});
    """,
    )
    assert "evil" not in found["title"]
    assert found["images"] == 0
    assert "<img src=x" in found["text"]


@needs_browser
@pytest.mark.skipif(shutil.which("pdftotext") is None, reason="needs pdftotext")
def test_print_shows_folded_tables_and_still_figures(tmp_path: Path):
    records = made.records()
    many = [
        record | {"run": f"{record['run']}-{copy}", "config": {"copy": copy}}
        for copy in range(2)
        for record in records[1:]
    ]
    report([made.write(tmp_path / "study", [records[0], *many])], tmp_path / "out")
    page = tmp_path / "out" / "index.html"
    assert "<details>" in page.read_text()
    browser(tmp_path / "profile", f"--print-to-pdf={tmp_path / 'page.pdf'}", page.as_uri())
    text = subprocess.run(["pdftotext", str(tmp_path / "page.pdf"), "-"], capture_output=True, text=True).stdout
    assert text.count("trial-0003-ptq-1") == 1
    assert "Bits per weight all" not in text


@needs_browser
def test_a_browser_shows_it_light_and_dark(written: Path, tmp_path: Path):
    shots = []
    for index, scheme in enumerate((1, 0)):
        shot = tmp_path / f"{index}.png"
        browser(
            tmp_path / "profile",
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
