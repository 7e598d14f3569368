"""The page over all reports: claims of papers, the common front, and a run behind every point."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from analysis_study import write

from analysis.figures.joint import joint
from analysis.joint import stretches, tasks
from analysis.papers import load_papers
from analysis.records import RECORDS
from analysis.study import load_studies
from qstudy.commands.index import index
from qstudy.commands.report import report
from qstudy.errors import UserError
from qstudy.presets import load_preset

UTTERANCES = 400
WORDS = " ".join(["5"] * UTTERANCES)
CLAIMS = {
    "papers": [
        {
            "paper": "Native QAT",
            "source": "Ding et al. 2022",
            "report": "one",
            "claims": [
                {
                    "says": "4 bits lose nothing",
                    "theirs": "as float",
                    "measure": "not_worse",
                    "study": "one",
                    "of": {"architecture": "lstm", "policy": "native_int", "bits": "W4"},
                    "why": "Because it is so; reports/two and reports/bench have more, reports/none has nothing.",
                },
                {
                    "says": "and are smaller",
                    "theirs": "5.8 times",
                    "measure": "smaller",
                    "at_least": 5.8,
                    "study": "one",
                    "of": {"policy": "native_int", "bits": "W4"},
                },
                {
                    "says": "2 bits beat 4",
                    "theirs": "yes",
                    "measure": "better",
                    "study": "one",
                    "of": {"bits": "W2"},
                    "against": {"bits": "W4"},
                },
                {
                    "says": "2 bits are smaller",
                    "theirs": "?",
                    "measure": "smaller",
                    "study": "two",
                    "of": {"bits": "W2"},
                },
                {"says": "unknown", "theirs": "?", "measure": "saved", "study": "nowhere", "of": {"bits": "W4"}},
                {
                    "says": "faster",
                    "theirs": "5 %",
                    "measure": "faster",
                    "study": "one",
                    "of": {"bits": "W2"},
                    "against": {"bits": "W4"},
                    "at_least": 0.05,
                },
            ],
        }
    ]
}


def errors(every: int) -> str:
    """One error in each `every`-th utterance."""
    return " ".join("1" if place % every == 0 else "0" for place in range(UTTERANCES))


def record(study: str, run: str, policy: str, every: int, size: int, **more: Any) -> dict[str, Any]:
    counts = errors(every)
    rate = sum(map(int, counts.split())) / (5 * UTTERANCES)
    scores = {"wer": rate, "wer_low": 0.7 * rate, "wer_high": 1.4 * rate, "words": 2000, "utterances": UTTERANCES}
    data = {"train": "corpora/c/train.jsonl", "dev": "corpora/c/dev.jsonl", "test": {"test": "corpora/c/test.jsonl"}}
    return {
        "schema": 2,
        "run": run,
        "study": study,
        "state": "complete",
        "policy": policy,
        "size_bytes": size,
        "layers": {"encoder": {"kind": "linear", "parameters": 250_000}},
        "config": {"model": load_preset("lstm").parts, "policy": {"name": policy, "run": run}, "data": data},
        "metrics": {"test": scores, "dev": scores},
        "utterances": {"test": {"errors": counts, "words": WORDS}},
        "latency": {"edge_nna": {"latency_ms": size / 1e5}},
        "command": f"qstudy sweep {study}.yaml",
        "commit": "abc123",
        **more,
    }


def study(name: str) -> list[dict[str, Any]]:
    start = {"baseline": {"id": f"float-{name}", "wer": 0.05, "size_bytes": 1_000_000}}
    bits = [{"bit_map": {"encoder": {"weight": width}}} for width in (4, 2)]
    return [
        record(name, f"float-{name}", "float", 4, 1_000_000, baseline=None),
        record(name, "control", "float", 4, 1_000_000, trial=0, **start),
        record(name, "four", "native_int", 4, 150_000, trial=1, **start, **bits[0]),
        record(name, "two", "s8bqat", 2, 80_000, trial=2, **start, **bits[1]),
    ]


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two reports of one task, and the claims."""
    folder = tmp_path_factory.mktemp("index")
    for name in ("one", "two"):
        report([write(folder / "studies" / name, study(name))], folder / "reports" / name)
    (folder / "reports" / "papers.yaml").write_text(yaml.safe_dump(CLAIMS))
    (folder / "reports" / "bench").mkdir()
    (folder / "reports" / "bench" / "bench.md").write_text("Fast.")
    index(folder / "reports")
    return folder / "reports"


def lay(folder: Path, records: list[dict[str, Any]]) -> None:
    """What the page reads of a report."""
    folder.mkdir()
    (folder / RECORDS).write_text("\n".join(map(json.dumps, records)))


def page(folder: Path, **studies: list[dict[str, Any]]) -> str:
    """The page over reports of these studies, with a figure of the smallest."""
    for name, records in studies.items():
        lay(folder / name, records)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("analysis.index.FEWEST", 2)
        index(folder)
    return (folder / "index.html").read_text()


def behind(text: str, anchor: str) -> str:
    """What stands behind a point, its tags taken away."""
    found = re.search(rf'<section class="behind" id="{anchor}">(.*?)</section>', text, re.DOTALL)
    assert found is not None
    return re.sub("<[^>]+>", "", found[1])


def scored(wer: float) -> dict[str, Any]:
    return {"wer": wer, "wer_low": 0.7 * wer, "wer_high": 1.4 * wer, "words": 2000, "utterances": UTTERANCES}


def test_claims_get_their_verdicts(reports: Path) -> None:
    rows = (reports / "papers.md").read_text().splitlines()[2:8]
    assert [row.split("|")[-2].strip().strip("*") for row in rows] == [
        "shown",
        "shown",
        "refuted",
        "–",
        "not measured",
        "shown",
    ]
    assert "6.7×" in rows[1]
    assert "+5.00 points" in rows[2]
    assert "46.7 % (0.8 against 1.5 ms)" in rows[5]


def test_every_point_leads_to_its_configuration_and_command(reports: Path) -> None:
    page = (reports / "index.html").read_text()
    links = set(re.findall(r'href="#(run-[^"]+)"', page))
    places = set(re.findall(r'id="(run-[^"]+)"', page))
    assert len(links) == 8
    assert links <= places
    assert "qstudy sweep one.yaml" in page
    assert "Because it is so; " in page
    assert 'href="one/index.html"' in page


def test_a_point_of_several_seeds_names_them_all(tmp_path: Path) -> None:
    runs = study("one")
    again = json.loads(json.dumps(runs[2])) | {
        "run": "again",
        "trial": 5,
        "seed": 1,
        "command": "qstudy sweep again.yaml",
    }
    again["metrics"] = {name: scored(0.07) for name in ("dev", "test")}
    runs[2]["seed"] = 0
    told = behind(page(tmp_path, one=[*runs, again]), "run-one-four")
    assert "four and again" in told
    assert "lstm, native_int W4: 6.00 % (mean of 2 seeds)" in told
    for run in ("four, seed 0: 5.00 % · commit abc123", "again, seed 1: 7.00 % · commit abc123"):
        assert run in told
    assert "qstudy sweep one.yaml" in told
    assert "qstudy sweep again.yaml" in told
    assert "\nseed:" not in told


def test_a_float_model_without_a_record_is_looked_up_by_its_name(tmp_path: Path) -> None:
    """In all studies, of other tasks, too; where none has it, that is said."""
    others, runs, more = study("other"), study("one")[1:], study("two")[1:]
    for run in others:
        run["config"]["data"] = {"test": {"test": "corpora/elsewhere/test.jsonl"}}
    for run in [*runs, *more]:
        run["baseline"] = {"id": "float-other", "size_bytes": 999_999, "metrics": {"test": scored(0.04)}}
        run["config"]["start"] = "runs/a/model.qst"
    text = page(tmp_path, one=runs, other=others)
    assert "qstudy sweep other.yaml" in behind(text, "run-one-float-other")
    for run in more:
        run["baseline"] = {**run["baseline"], "id": "float-unknown"}
    told = behind(page(tmp_path, two=more), "run-two-float-unknown")
    assert "a float model without a record of its own, read from runs/a/model.qst" in told
    assert "not recorded" not in told


def test_a_run_that_several_studies_hold_is_one_point(tmp_path: Path) -> None:
    """A copy by its time, commit and command; a float model by its name; what was trained anew is another run."""
    made: dict[str, Any] = {"created": "2026-01-01", "command": "qstudy sweep one.yaml", "seed": 0}
    first, second = study("one"), study("two")[1:]
    first[1] |= made
    second[0] |= made | {"run": "copy"}
    whole = {"id": "float-one", "size_bytes": 1_000_000, "metrics": first[0]["metrics"]}
    for run in second:
        run["baseline"] = whole
    again = json.loads(json.dumps(first[1])) | {"run": "seed-1", "seed": 1, "created": "2026-01-02"}
    text = page(tmp_path, one=[*first, again], two=second)
    places = set(re.findall(r'id="(run-[^"]+)"', text))
    assert places == {
        f"run-{name}" for name in ("one-float-one", "one-control", "one-four", "one-two", "two-four", "two-two")
    }
    assert "· one · two" in behind(text, "run-one-control")
    assert "qstudy sweep one.yaml" in behind(text, "run-one-float-one")
    (task,) = tasks([*load_studies(tmp_path / "one"), *load_studies(tmp_path / "two")])
    assert "over 2 studies" in stretches(task).caption
    assert "this setting recognized dev best" in stretches(task).caption


@pytest.mark.parametrize(
    ("rates", "said"),
    [
        ((0.05, 0.1), "; the line joins them; hollow"),
        ((0.11, 0.1), "; chosen on dev, so not monotone here, and not joined; hollow"),
    ],
    ids=["falls", "rises"],
)
def test_a_caption_tells_of_a_line_where_there_is_one(tmp_path: Path, rates: tuple[float, ...], said: str) -> None:
    runs = study("one")
    for run, rate in zip(runs[2:], rates, strict=True):
        run["metrics"] = {**run["metrics"], "test": scored(rate)}
    write(tmp_path, runs)
    size, latency = joint(tasks(load_studies(tmp_path))[0])
    assert said in size.caption
    assert size.caption.count("line") == len(
        [line for line in size.figure.axes[0].lines if line.get_linestyle() == "-"]
    )
    assert ("joins" in latency.caption) == ("joins" in size.caption)


def test_all_reports_are_linked_and_the_command_is_named(reports: Path) -> None:
    text = (reports / "index.html").read_text()
    assert '<a href="bench/bench.md">bench</a>' in text
    for path, where in (("reports/two", "two/index.html"), ("reports/bench", "bench/bench.md")):
        assert f'<a href="{where}">{path}</a>' in text
    assert " have more, reports/none has nothing." in text
    assert 'Our records: <a href="one/index.html">one</a>, <a href="two/index.html">two</a>.' in text
    for claim, name in (("4 bits lose nothing", "one"), ("2 bits are smaller", "two")):
        assert f'<td><a href="{name}/index.html">{claim}</a></td>' in text
    assert "<td>unknown</td>" in text
    pictures, tables = text.count("<figcaption>"), len(re.findall('<section id="table-', text))
    assert text.count("<code>qstudy index --reports reports</code>") == pictures + tables


def test_the_front_is_common_to_the_studies_of_a_task(reports: Path) -> None:
    (task,) = tasks([*load_studies(reports / "one"), *load_studies(reports / "two")])
    assert task.name == "c"
    assert list(stretches(task).frame.bits) == ["W2", "W4"]
    assert list(np.round(stretches(task).frame.wer, 3)) == [0.1, 0.05]


def test_it_is_the_same_every_time(reports: Path, tmp_path: Path) -> None:
    before = {path.name: path.read_bytes() for path in reports.iterdir() if path.is_file()}
    done = subprocess.run([sys.executable, "-m", "qstudy", "index", "--reports", str(reports)], capture_output=True)
    assert done.returncode == 0, done.stderr
    assert {path.name: path.read_bytes() for path in reports.iterdir() if path.is_file()} == before


def test_nothing_to_show_is_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no reports"):
        index(tmp_path)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"measure": "luck"}, "papers.0.claims.0.measure: 'luck' is not one of"),
        ({"measure": "better"}, "papers.0.claims.0.*against: missing; name what"),
        ({"of": {"policy": "s8bqat", "odd": 1}}, "odd is not a column"),
        ({"of": {"architecture": "lstm"}}, "4 settings of one fit .*say which is meant"),
        ({"measure": "better", "against": {"title": "float baseline"}}, "one: a float baseline was not trained as its"),
    ],
    ids=["measure", "against", "column", "ambiguous", "baseline"],
)
def test_a_claim_that_cannot_be_held_against_anything_is_named(
    tmp_path: Path, change: dict[str, Any], said: str
) -> None:
    first = {**CLAIMS["papers"][0], "claims": [CLAIMS["papers"][0]["claims"][0] | change]}  # type: ignore[operator]
    (tmp_path / "papers.yaml").write_text(yaml.safe_dump({"papers": [first]}))
    lay(tmp_path / "one", study("one"))
    with pytest.raises(UserError, match=said):
        index(tmp_path)


def test_a_setting_is_found_by_a_number_though_it_is_a_mean_over_seeds(tmp_path: Path) -> None:
    claim = {**CLAIMS["papers"][0]["claims"][0], "of": {"policy": "native_int", "parameters": 250_000}}  # type: ignore[index]
    (tmp_path / "papers.yaml").write_text(yaml.safe_dump({"papers": [{**CLAIMS["papers"][0], "claims": [claim]}]}))
    runs = study("one")
    again = json.loads(json.dumps(next(one for one in runs if one["run"] == "four"))) | {"run": "again", "seed": 1}
    lay(tmp_path / "one", [*runs, again])
    index(tmp_path)
    assert "not measured" not in (tmp_path / "papers.md").read_text()


def test_claims_are_a_list(tmp_path: Path) -> None:
    (tmp_path / "papers.yaml").write_text("papers: {}")
    with pytest.raises(UserError, match="must be a list"):
        load_papers(tmp_path / "papers.yaml")


def test_a_study_in_two_reports_counts_once(reports: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    records = {name: (reports / name / RECORDS).read_bytes() for name in ("one", "two")}
    for name, held in (records | {"three": records["one"] + records["two"]}).items():
        (tmp_path / name).mkdir()
        (tmp_path / name / RECORDS).write_bytes(held)
    index(tmp_path)
    said = capsys.readouterr().err
    assert "warning: two: its study two is that of three; counted once." in said
    page = (tmp_path / "index.html").read_text()
    assert page.count('class="behind"') == 8
    assert 'href="three/index.html"' in page


def test_claims_are_shown_without_a_picture_and_without_a_latency(tmp_path: Path) -> None:
    """Of too few settings for a figure, simulated on another accelerator."""
    runs = [one | {"latency": {"mine": {"latency_ms": 1.0}}} for one in study("one")]
    lay(tmp_path / "one", runs)
    (tmp_path / "papers.yaml").write_text(yaml.safe_dump(CLAIMS))
    index(tmp_path)
    assert 'id="table-papers"' in (tmp_path / "index.html").read_text()
    rows = (tmp_path / "papers.md").read_text().splitlines()[2:8]
    assert rows[5].split("|")[-2].strip() == "not measured"


def test_sets_of_one_folder_are_tasks_of_different_names(tmp_path: Path) -> None:
    """Which name their files."""
    other = study("two")
    for run in other:
        run["metrics"] = {**run["metrics"], "test": {**run["metrics"]["test"], "words": 1000}}
    write(tmp_path / "one", study("one"))
    write(tmp_path / "two", other)
    found = tasks([*load_studies(tmp_path / "one"), *load_studies(tmp_path / "two")])
    assert len({stretches(task).name for task in found}) == 2
    assert {picture.name for picture in joint(found[0])}.isdisjoint(picture.name for picture in joint(found[1]))
