"""Where results come from: commands, seeds, versions, commits; gathered from the runs' records."""

from collections.abc import Iterable
from dataclasses import dataclass

from analysis.records import Run
from analysis.study import Study

MAIN = ("qstudy", "torch", "python")


@dataclass(frozen=True)
class Provenance:
    """What made the runs; each entry lists every value that occurs."""

    commands: tuple[str, ...]
    rebuild: str
    """The command that makes the report again."""
    seeds: str
    versions: dict[str, str]
    commits: str

    @property
    def line(self) -> str:
        """What a caption has room for: seed, the main versions, commit."""
        main = ", ".join(f"{name} {self.versions[name]}" for name in MAIN if name in self.versions)
        parts = [
            f"seed {self.seeds}" if self.seeds else "",
            main,
            f"commit {self.commits}" if self.commits else "",
        ]
        return " · ".join(part for part in parts if part)


def provenance(*studies: Study, rebuild: str) -> Provenance:
    """Gather what the studies' finished runs say of themselves."""
    runs = [run for study in studies for run in study.finished]
    names = sorted({name for run in runs for name in _versions(run)}, key=lambda name: (name != "qstudy", name))
    versions = {name: _all(_versions(run).get(name) for run in runs) for name in names}
    return Provenance(
        tuple(dict.fromkeys(str(run.raw["command"]) for run in runs if run.raw.get("command"))),
        rebuild,
        _all(run.raw.get("seed") for run in runs),
        versions,
        _all(str(run.raw.get("commit") or "") for run in runs),
    )


def _versions(run: Run) -> dict[str, str]:
    versions = run.raw.get("versions")
    return {str(name): str(value) for name, value in versions.items()} if isinstance(versions, dict) else {}


def _all(values: Iterable[object]) -> str:
    """`0`, or `0, 1, 2`: distinct values, sorted, absent ones left out."""
    found = {value for value in values if value is not None and value != ""}
    return ", ".join(map(str, sorted(found, key=lambda value: (not isinstance(value, int), str(value).zfill(12)))))
