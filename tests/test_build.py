"""Building a feature store: interrupted in every way it goes on, and ends as if nothing had happened."""

import functools
import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile

from qstudy.data.draft import Draft
from qstudy.data.feature_set import FeatureSet
from qstudy.data.features import FeatureSettings
from qstudy.data.manifest import manifest_lines
from qstudy.data.store import lock_path, store_key
from qstudy.data.tokenizer import CharTokenizer
from qstudy.errors import UserError
from qstudy.locks import locked

LINES = 640  # blocks enough that a builder is still at work when its interrupter gets to it

OPEN = """
import resource, sys
from pathlib import Path
sys.path.insert(0, sys.argv[3])
if sys.argv[4:]:
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[4]),) * 2)
from qstudy.data.feature_set import FeatureSet
from qstudy.data.features import FeatureSettings
from qstudy.data.manifest import manifest_lines
from qstudy.data.store import lock_path, store_key
from qstudy.data.tokenizer import CharTokenizer
features = FeatureSet.open(Path(sys.argv[1]), FeatureSettings(), CharTokenizer(), Path(sys.argv[2]), skip_broken=True)
print(len(features), float(features.frames(len(features) - 1).sum()))
"""


def write_manifest(folder: Path) -> Path:
    """Ten blocks of noise; two of its files are broken."""
    generator = np.random.default_rng(0)
    for number in range(4):
        soundfile.write(folder / f"{number}.wav", generator.standard_normal(8000 + 800 * number) * 0.1, 16000)
    entries = [
        {"audio_filepath": f"{i % 4}.wav", "duration": 0.5 + 0.05 * (i % 4), "text": "one"} for i in range(LINES)
    ]
    entries[10]["audio_filepath"] = entries[150]["audio_filepath"] = "gone.wav"
    path = folder / "train.jsonl"
    path.write_text("".join(f"{json.dumps(entry)}\n" for entry in entries))
    return path


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Only read; each test has a cache of its own."""
    return write_manifest(tmp_path_factory.mktemp("noise"))


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def untouched(manifest: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache whose store was built in one go."""
    folder = tmp_path_factory.mktemp("untouched")
    opened(manifest, folder)
    return folder


@pytest.fixture(scope="module")
def killed(manifest: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache whose builder was killed; tests go on from copies of it."""
    folder = tmp_path_factory.mktemp("killed")
    interrupt(manifest, folder, signal.SIGKILL)
    return folder


def opener(manifest: Path, cache: Path, *size_limit: int) -> "subprocess.Popen[str]":
    """Another process that opens the manifest's features; no file of its may become larger than `size_limit`."""
    arguments = [manifest, cache, Path(__file__).parents[1], *size_limit]
    command = [sys.executable, "-c", OPEN, *map(str, arguments)]
    listens = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # tests in the background do not
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=listens)


def opened(manifest: Path, cache: Path) -> FeatureSet:
    return FeatureSet.open(manifest, FeatureSettings(), CharTokenizer(), cache, skip_broken=True)


def journal(cache: Path) -> bytes:
    """What an unfinished build has written so far."""
    found = list(cache.glob(".*.partial/journal.jsonl"))
    return found[0].read_bytes() if found else b""


def interrupt(manifest: Path, cache: Path, how: signal.Signals) -> None:
    """Stop a builder as soon as it has finished some blocks, but not all."""
    victim = opener(manifest, cache)
    while journal(cache).count(b"\n") < 2:
        assert victim.poll() is None, victim.communicate()
        time.sleep(0.002)
    victim.send_signal(how)
    victim.communicate()
    assert journal(cache).count(b"\n") < LINES // 64
    assert not list(cache.glob("[!.]*/"))  # whole or absent


def assert_as_if_never_interrupted(manifest: Path, cache: Path, untouched: Path) -> None:
    """Every file of the store equals that of another cache, which was built in one go; nothing else is left."""
    opened(manifest, cache)
    store, expected = (list(each.glob("[!.]*/")) for each in (cache, untouched))
    assert [folder.name for folder in store] == [folder.name for folder in expected]
    names = sorted(path.name for path in expected[0].iterdir())
    assert sorted(path.name for path in store[0].iterdir()) == names
    assert len(names) == 4
    for name in names:
        assert (store[0] / name).read_bytes() == (expected[0] / name).read_bytes(), name
    assert not list(cache.glob(".*"))


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_build_goes_on(
    manifest: Path,
    cache: Path,
    untouched: Path,
    how: signal.Signals,
    request: pytest.FixtureRequest,
    caplog: pytest.LogCaptureFixture,
) -> None:
    if how == signal.SIGKILL:
        shutil.copytree(request.getfixturevalue("killed"), cache)
    else:
        interrupt(manifest, cache, how)
    done = 64 * journal(cache).count(b"\n")
    opened(manifest, cache)
    assert f"{done} of {LINES} lines are done" in caplog.text
    assert_as_if_never_interrupted(manifest, cache, untouched)


def test_a_full_disk_is_one_sentence_and_the_build_goes_on(
    manifest: Path, cache: Path, untouched: Path, caplog: pytest.LogCaptureFixture
) -> None:
    error = opener(manifest, cache, 1_000_000).communicate()[1].splitlines()[-1]
    assert "UserError: Cannot write the feature cache" in error
    assert "File too large; free space or choose another folder." in error
    assert journal(cache)
    assert_as_if_never_interrupted(manifest, cache, untouched)
    assert "lines are done" in caplog.text


@pytest.mark.parametrize("loss", ["features lost", "features changed", "journal torn", "tail of no block"])
def test_what_a_crash_left_is_believed_as_far_as_it_agrees(
    manifest: Path, cache: Path, untouched: Path, killed: Path, loss: str
) -> None:
    shutil.copytree(killed, cache)
    (partial,) = cache.glob(".*.partial")
    features, lines = partial / "store" / "features.i16", partial / "journal.jsonl"
    first = sum(json.loads(lines.read_bytes().splitlines()[0])["lengths"]) * 80  # bytes of the first block
    content = features.read_bytes()
    if loss == "features lost":
        features.write_bytes(content[: first + 1000])
    elif loss == "features changed":
        features.write_bytes(content[: first + 1000] + bytes(len(content) - first - 1000))
    elif loss == "journal torn":
        lines.write_bytes(lines.read_bytes()[: len(lines.read_bytes().splitlines()[0]) + 20])
    else:
        features.write_bytes(content[:first] + b"\1" * 999)
        lines.write_bytes(lines.read_bytes().splitlines(keepends=True)[0])
    draft = Draft(partial, FeatureSettings().bins)
    draft.close()
    assert draft.done == 64
    assert features.stat().st_size == first
    assert_as_if_never_interrupted(manifest, cache, untouched)


def test_what_was_computed_survives_the_complaint_about_the_rest(
    tmp_path: Path, cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    manifest = write_manifest(tmp_path)
    soundfile.write(manifest.parent / "gone.wav", np.zeros(8000), 16000)  # silent: only the audio tells
    with pytest.raises(Exception, match="2 of its lines cannot be used"):
        FeatureSet.open(manifest, FeatureSettings(), CharTokenizer(), cache)
    assert len(opened(manifest, cache)) == LINES - 2
    assert f"{LINES} of {LINES} lines are done" in caplog.text
    opened(manifest, tmp_path / "untouched")
    assert_as_if_never_interrupted(manifest, cache, tmp_path / "untouched")


def test_one_builds_the_others_wait(manifest: Path, cache: Path, untouched: Path) -> None:
    key = store_key(manifest, manifest_lines(manifest), FeatureSettings())
    with locked(lock_path(cache / key)):  # so that they are all there before the first one builds
        processes = [opener(manifest, cache) for _ in range(3)]
        for process in processes:
            assert process.stderr is not None
            assert "Waiting for another process" in process.stderr.readline()
    answers = [process.communicate() for process in processes]
    features = opened(manifest, cache)
    last = float(features.frames(len(features) - 1).sum())
    assert [answer for answer, _ in answers] == [f"{LINES - 2} {last}\n"] * 3
    assert_as_if_never_interrupted(manifest, cache, untouched)


@pytest.mark.parametrize("link", ["store/features.i16", "journal.jsonl", "store"])
def test_a_strangers_draft_leads_nowhere(tmp_path: Path, link: str) -> None:
    """A cache from elsewhere may hold links to any file."""
    draft = tmp_path / "draft"
    Draft(draft, 40)
    names = {path.name for path in draft.rglob("*")}
    victim = tmp_path / "victim"
    if (draft / link).is_dir():
        shutil.rmtree(draft / link)
        victim.mkdir()
    else:
        assert Path(link).name in names
        (draft / link).unlink()
        victim.write_text("thesis")
    (draft / link).symlink_to(victim)
    with pytest.raises(UserError, match="remove it"):
        Draft(draft, 40)
    assert victim.is_dir() or victim.read_text() == "thesis"


@pytest.mark.parametrize(
    "block",
    [
        {"lines": [1], "lengths": [2**50], "problems": [], "checksum": 0},
        {"lines": [1], "lengths": [-1], "problems": [], "checksum": 0},
        {"lines": "1", "lengths": [0], "problems": [], "checksum": 0},
        {"lines": [1], "lengths": [], "problems": [[2]], "checksum": 0},
        [[[]]],
    ],
    ids=str,
)
def test_a_journal_that_nobody_can_have_written(tmp_path: Path, block: object) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "features.i16").write_bytes(bytes(800))
    (tmp_path / "journal.jsonl").write_text(json.dumps(block) + "\n")
    draft = Draft(tmp_path, 40)
    draft.close()
    assert draft.done == 0
