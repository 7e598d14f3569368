"""What is wrong with how a command ended, if anything is."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from .case import Attempt, Case
from .server import CANARY, Outcome

Complaint = tuple[str, str, str]
"""Verdict, detail, cause."""
MOST_BYTES = 2 << 30
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\x80-\x9f]")  # what a terminal might obey
LIVE = {
    ".html": re.compile(f"<script>{CANARY}"),
    ".svg": re.compile(f"<script>{CANARY}"),
    ".tex": re.compile(rf"\\input{{{CANARY}"),
    ".csv": re.compile(rf"(?m)(?:^|,)\"?=\w+\({CANARY}"),
}
_OURS = re.compile(r'File ".*?/((?:qstudy|analysis)/\S+?\.py)", line \d+, in (\S+)')


@dataclass(frozen=True)
class Finding:
    """A case that did not end as it should."""

    case: Case
    verdict: str
    what: str
    detail: str
    cause: str
    """Findings with the same cause are one."""


def judge(case: Case, attempt: Attempt, outcome: Outcome, folder: Path) -> Finding | None:
    """The worst that can be said of a case, or None."""
    for verdict, detail, cause in _complaints(attempt, outcome, folder):
        return Finding(case, verdict, attempt.what, detail, f"{verdict} {cause}")
    return None


def _complaints(attempt: Attempt, outcome: Outcome, folder: Path) -> Iterator[Complaint]:
    """The worst first."""
    ran = outcome.ran + [f"made {path.name}" for path in folder.rglob(CANARY)] + _scripts(folder)
    if ran:
        yield "code run", ran[0], _gist(attempt.what)
    asked = ".." in attempt.argv or "'..'" in attempt.what
    if not asked and (strays := _strays(folder)):
        yield "wrote outside", strays[0], _gist(attempt.what)
    if outcome.timed_out:
        yield "hang", f"{outcome.seconds:.0f} s; {_place(outcome.err)}", _place(outcome.err)
    if outcome.grown_bytes > MOST_BYTES:
        yield "memory", f"{outcome.grown_bytes / 2**30:.1f} GiB, {outcome.seconds:.0f} s", _gist(attempt.what)
    if outcome.code < 0:
        yield "crash", f"signal {-outcome.code}; {_place(outcome.err)}", _place(outcome.err)
    if "Traceback (most recent call last)" in outcome.err or outcome.code not in (0, 2):
        last = _exception(outcome.err)
        yield "traceback", f"exit {outcome.code}; {_place(outcome.err)}: {last}", _place(outcome.err) + _general(last)
    if outcome.code == 0 and attempt.invalid:
        yield "silent acceptance", _last_line(outcome.out), _gist(attempt.what)
    if outcome.code == 2:
        yield from _message(attempt, outcome)


def _message(attempt: Attempt, outcome: Outcome) -> Iterator[Complaint]:
    """A refusal is one sentence; what is wrong with a list of files may follow it, indented."""
    if attempt.valid:
        yield "false refusal", _last_line(outcome.err), _gist(attempt.what)
    lines = outcome.err.rstrip("\n").split("\n")
    begin = max((i for i, line in enumerate(lines) if re.match(r"(qstudy|error|usage): ", line)), default=None)
    if begin is None:
        if not outcome.out.startswith("usage:"):
            yield "message", f"none: {_last_line(outcome.err)}", "none" + _gist(attempt.what)
        return
    message = lines[begin:]
    if any(not line.startswith("  ") for line in message[1:]):
        yield "message", f"several lines: {' / '.join(message)[:200]}", "several lines" + _gist(attempt.what)
    text = "\n".join(message)
    if _CONTROL.search(text.replace("\n", "")):
        yield "message", f"control characters: {text[:200]!r}", "control characters" + _gist(attempt.what)
    if "weights_only" in text:
        yield "message", f"advice of another program: {text[:200]}", "weights_only" + _gist(attempt.what)
    if len(lines[begin]) > 2000:
        yield "message", f"{len(text)} characters: {text[:100]}", "length" + _gist(attempt.what)
    if attempt.named and attempt.named not in text:
        yield "message", f"does not name {attempt.named}: {text[:200]}", "unnamed " + attempt.named


def _scripts(folder: Path) -> list[str]:
    """Text of the input's that a reader's program would run."""
    texts = [
        (path, path.read_text("utf-8", "replace"))
        for path in folder.rglob("*")
        if path.suffix in LIVE and path.is_file()
    ]
    return [f"{path.name} has {found[0]}" for path, text in texts if (found := LIVE[path.suffix].search(text))]


def _strays(folder: Path) -> list[str]:
    """Files beside the case's folder and above it, in what is the case's alone."""
    own = {Path(f"{folder}.{log}") for log in ("out", "err", "ran")}
    roots = [folder.parents[2] / "a", folder.parents[1] / "b", folder.parent / "c"]
    found = [path for root in roots for path in root.parent.iterdir() if path != root and path not in own]
    return [str(path.relative_to(folder.parents[2])) for path in found]


def _gist(what: str) -> str:
    """What was changed, without the value that varies."""
    return _general(re.sub(r" \(\w+\)$|^(train|evaluate|simulate|alone) ", "", what).replace("\\", ""))


def _place(err: str) -> str:
    """The innermost frame that is ours: in faulthandler's order that is the first, in a traceback the last."""
    if hung := re.search(r"Current thread .*\n((?:  File .*\n?)+)", err):
        frames = re.findall(r'File ".*?/((?:qstudy|analysis)/\S+?\.py)", line \d+ in (\S+)', hung[1])
        return " ".join(frames[0]) if frames else hung[1].splitlines()[0].strip()
    frames = _OURS.findall(err)
    return " ".join(frames[-1]) if frames else "?"


def _last_line(text: str) -> str:
    return (text.rstrip().splitlines() or ["nothing"])[-1][:300]


def _exception(err: str) -> str:
    """The line that names the exception; its message may go on for several."""
    named = re.findall(
        r"^(?:[\w.]+(?:Error|Exception|Interrupt|Warning|Diverged|Exit|Interrupted|Unsupported)\b.*)$",
        err,
        re.MULTILINE,
    )
    return (named or [_last_line(err)])[-1][:300]


def _general(text: str) -> str:
    """Without what varies from case to case."""
    return re.sub(r"'[^']*'|\"[^\"]*\"|[\d.]+|\S*/\S*|\([^)]*\)|\[[^\]]*\]|\{[^}]*\}", "*", text)[:60]
