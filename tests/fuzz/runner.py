"""Runs cases and tells what was found."""

import json
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from . import originals
from .case import Case
from .kinds import KINDS
from .originals import Originals
from .server import Server
from .verdict import Finding, judge


@dataclass
class Tally:
    """What came out, kind by kind."""

    cases: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    """Cases that ended with exit code 2."""
    findings: list[Finding] = field(default_factory=list)

    def by_cause(self) -> dict[str, list[Finding]]:
        """Findings that seem to have one cause, the most frequent first."""
        causes: dict[str, list[Finding]] = {}
        for finding in self.findings:
            causes.setdefault(finding.cause, []).append(finding)
        return dict(sorted(causes.items(), key=lambda item: -len(item[1])))


class Bench:
    """The sound files, and the process in which commands run."""

    def __init__(self, folder: Path, server: Server, sound: Originals) -> None:
        self.folder, self.server, self.sound = folder, server, sound

    def run(self, case: Case, keep: bool = False) -> tuple[Finding | None, int]:
        """Run one case; what was found, and the exit code. Its files stay with `keep`."""
        root = self.folder / f"{case.kind}-{case.seed}"
        shutil.rmtree(root, ignore_errors=True)
        folder = root / "a" / "b" / "c"  # `..` stays in the case's own
        folder.mkdir(parents=True)
        attempt = KINDS[case.kind](case.random, self.sound, folder)
        outcome = self.server.run(attempt.argv, folder, attempt.entry)
        finding = judge(case, attempt, outcome, folder)
        if keep:
            print(json.dumps({"folder": str(folder), "argv": attempt.argv, "what": attempt.what}, indent=1))
            print(f"exit code {outcome.code}, {outcome.seconds:.1f} s, {outcome.grown_bytes >> 20} MiB")
            print(f"{outcome.out}{outcome.err}")
            return finding, outcome.code
        shutil.rmtree(root, ignore_errors=True)
        return finding, outcome.code

    def tally(self, cases: Iterable[Case]) -> Tally:
        """Run many."""
        tally = Tally()
        for case in cases:
            finding, code = self.run(case)
            tally.cases[case.kind] += 1
            tally.refused[case.kind] += code == 2
            if finding:
                tally.findings.append(finding)
        return tally


@contextmanager
def bench(folder: Path, limit_s: float = 20.0) -> Iterator[Bench]:
    """Make the sound files in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    with Server(folder, limit_s) as server:
        yield Bench(folder, server, originals.make(folder / "originals", server))


def cases(kinds: Iterable[str], count: int, seed: int) -> list[Case]:
    """`count` cases, the kinds in turn."""
    names = list(kinds)
    return [Case(names[index % len(names)], seed + index // len(names)) for index in range(count)]


def report(tally: Tally) -> str:
    """Counts per kind, then one paragraph per cause with the command that replays it."""
    lines = [f"{'kind':<12}{'cases':>7}{'refused':>9}{'findings':>10}"]
    found = Counter(finding.case.kind for finding in tally.findings)
    lines += [f"{kind:<12}{tally.cases[kind]:>7}{tally.refused[kind]:>9}{found[kind]:>10}" for kind in tally.cases]
    lines.append(f"{'all':<12}{tally.cases.total():>7}{tally.refused.total():>9}{found.total():>10}")
    for findings in tally.by_cause().values():
        first = findings[0]
        lines.append(f"\n{first.verdict} ({len(findings)}x): {first.what}\n  {first.detail}\n  {first.case.command}")
    return "\n".join(lines)
