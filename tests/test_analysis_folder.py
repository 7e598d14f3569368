"""A report's folder: other people's files in it, edited ones, interrupted and older reports."""

import json
from pathlib import Path

import analysis_study as made
import pytest

from analysis.folder import MANIFEST, write_report
from qstudy.cli import main
from qstudy.errors import UserError
from qstudy.files import file_hash

OLD, NEW = {"a.csv": b"old", "b.csv": b"old"}, {"a.csv": b"new", "c.csv": b"new"}


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != MANIFEST}


def test_an_earlier_report_is_replaced_and_the_rest_stays(tmp_path: Path) -> None:
    others = dict.fromkeys(("all_runs.xlsx", "claims.docx", "notes_wer_vs_size.txt", "b_runs.csv"), b"mine")
    for name, content in others.items():
        (tmp_path / name).write_bytes(content)
    write_report(tmp_path, OLD)
    write_report(tmp_path, NEW)
    assert contents(tmp_path) == NEW | others
    assert json.loads((tmp_path / MANIFEST).read_text())["files"].keys() == NEW.keys()


def test_files_of_the_users_are_in_the_way(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    study, out = made.write(tmp_path / "study", made.records()[:3]), tmp_path / "out"
    mine = dict.fromkeys(("index.html", "records.jsonl", "wer_vs_size.png"), b"mine")
    out.mkdir()
    for name, content in mine.items():
        (out / name).write_bytes(content)
    with pytest.raises(SystemExit) as exit:
        main(["report", str(study), "--out", str(out)])
    assert exit.value.code == 2
    assert capfd.readouterr().err.startswith(f"qstudy: --out: {out / 'wer_vs_size.png'} is in the way")
    assert contents(out) == mine


def test_a_file_that_was_edited_is_not_replaced(tmp_path: Path) -> None:
    write_report(tmp_path, OLD)
    (tmp_path / "a.csv").write_bytes(b"edited")
    with pytest.raises(UserError, match=r"a\.csv is in the way: .* it was changed since"):
        write_report(tmp_path, NEW)
    assert contents(tmp_path) == {"a.csv": b"edited", "b.csv": b"old"}
    (tmp_path / "a.csv").unlink()
    (tmp_path / "b.csv").write_bytes(b"edited")
    write_report(tmp_path, NEW)
    assert contents(tmp_path) == {**NEW, "b.csv": b"edited"}, "what is stale is removed, but not what was edited"


@pytest.mark.parametrize("after", [1, 2])
def test_an_interrupted_report_is_replaced(after: int, tmp_path: Path) -> None:
    """By itself, and by the one before."""

    class Interrupted(dict[str, bytes]):
        calls = 0

        def items(self):  # type: ignore[no-untyped-def]
            self.calls += 1
            return super().items() if self.calls < 2 else self._some()

        def _some(self):  # type: ignore[no-untyped-def]
            yield from list(super().items())[:after]
            raise KeyboardInterrupt

    write_report(tmp_path, OLD)
    with pytest.raises(KeyboardInterrupt):
        write_report(tmp_path, Interrupted(NEW))
    assert contents(tmp_path) == OLD | dict(list(NEW.items())[:after])
    write_report(tmp_path, OLD)
    assert contents(tmp_path) == OLD
    write_report(tmp_path, NEW)
    assert contents(tmp_path) == NEW


def test_files_of_a_report_without_a_manifest_are_its_own_if_they_stay_the_same(tmp_path: Path) -> None:
    for name, content in OLD.items():
        (tmp_path / name).write_bytes(content)
    write_report(tmp_path, OLD)
    write_report(tmp_path, NEW)
    assert contents(tmp_path) == NEW


def test_a_manifest_cannot_name_files_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "precious").write_bytes(b"old")
    write_report(tmp_path / "out", OLD)
    manifest = json.loads((tmp_path / "out" / MANIFEST).read_text())
    for name in ("../precious", str(tmp_path / "precious")):
        manifest["files"][name] = manifest["files"]["a.csv"]
    (tmp_path / "out" / MANIFEST).write_text(json.dumps(manifest))
    write_report(tmp_path / "out", NEW)
    assert (tmp_path / "precious").exists()


@pytest.mark.parametrize("text", ["[]", "{}", '{"files": 3}', "no JSON"])
def test_another_file_of_the_manifests_name_is_kept(text: str, tmp_path: Path) -> None:
    (tmp_path / MANIFEST).write_text(text)
    with pytest.raises(UserError, match=r"report\.json"):
        write_report(tmp_path, OLD)
    assert (tmp_path / MANIFEST).read_text() == text


def test_rebuilding_in_place_loses_no_record(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Not even one that cannot be read."""
    lines = [json.dumps(record) for record in made.records()[:3]]
    (tmp_path / "records.jsonl").write_text("\n".join([*lines, '{"run": "half']))
    with pytest.raises(SystemExit):
        main(["report", str(tmp_path), "--out", f"{tmp_path}/."])
    assert "records.jsonl:4" in capfd.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["records.jsonl"]


def test_a_poorer_report_does_not_take_the_place_of_a_fuller(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Whose records may be all that is left of a study."""
    records, out = made.records(), tmp_path / "out"
    main(["report", str(made.write(tmp_path / "study", records[:4])), "--out", str(out)])
    before = contents(out)
    with pytest.raises(SystemExit):
        main(["report", str(made.write(tmp_path / "poorer", records[:2])), "--out", str(out)])
    said = capfd.readouterr().err
    assert f"{out}: 2 runs in its records.jsonl would be lost, which {tmp_path / 'poorer'} lacks" in said
    assert contents(out) == before
    main(["report", str(made.write(tmp_path / "fuller", records[:6])), "--out", str(out)])
    assert before["records.jsonl"] in contents(out)["records.jsonl"]


def test_runs_on_their_own_keep_the_name_they_were_shown_under(tmp_path: Path) -> None:
    """In a report, which has a folder of its own, too."""
    for record in made.records()[:2]:
        own = tmp_path / "plain" / record["run"]
        own.mkdir(parents=True)
        (own / "record.json").write_text(json.dumps({**record, "study": None}))
    main(["report", str(tmp_path / "plain"), "--out", str(tmp_path / "first")])
    again = tmp_path / "second" / "first"
    main(["report", str(tmp_path / "first"), "--out", str(again)])
    for name in ("runs.csv", "records.jsonl", "index.html"):
        assert (tmp_path / "first" / name).read_bytes() == (again / name).read_bytes()
    assert "plain" in (again / "index.html").read_text()


def test_the_committed_reports_can_be_rebuilt() -> None:
    """Their files are what their manifests say, so that the next report may replace them."""
    manifests = list((Path(__file__).parents[1] / "reports").glob(f"*/{MANIFEST}"))
    assert len(manifests) >= 3
    for path in manifests:
        hashes = json.loads(path.read_text())["files"]
        assert {name: file_hash(path.parent / name) for name in hashes} == hashes
        assert {"index.html", "records.jsonl"} <= hashes.keys()
