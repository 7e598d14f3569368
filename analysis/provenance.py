"""Where results come from: commands, seeds, versions, commits; gathered from the runs' records."""

from collections.abc import Iterable
from dataclasses import dataclass

import pandas as pd

MAIN = ("qstudy", "torch", "python")


@dataclass(frozen=True)
class Provenance:
    """What made the runs; each entry lists every value that occurs."""

    commands: tuple[str, ...]
    seeds: str
    versions: dict[str, str]
    commits: str

    @property
    def line(self) -> str:
        """What a caption has room for: seed, the main versions, commit."""
        main = ", ".join(f"{name} {self.versions[name]}" for name in MAIN if name in self.versions)
        parts = (f"seed {self.seeds}" * bool(self.seeds), main, f"commit {self.commits}" * bool(self.commits))
        return " · ".join(part for part in parts if part)


def provenance(finished: pd.DataFrame) -> Provenance:
    """Gather what finished runs say of themselves."""
    names = [column.removeprefix("version.") for column in finished if column.startswith("version.")]
    versions = {
        name: _all(finished[f"version.{name}"]) for name in sorted(names, key=lambda name: (name != MAIN[0], name))
    }
    commands = tuple(command for command in finished.command.unique() if command)
    seeds = finished.seed.dropna().astype(int)
    return Provenance(
        commands, _all(seeds), {name: said for name, said in versions.items() if said}, _all(finished.commit)
    )


def _all(values: Iterable[object]) -> str:
    """`0`, or `0, 1, 2`: distinct values, sorted, absent ones left out."""
    found = {value for value in values if value == value and value != ""}
    return ", ".join(map(str, sorted(found, key=lambda value: (not isinstance(value, int), str(value).zfill(12)))))
