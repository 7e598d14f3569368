"""Where results come from: commands, seeds, versions, commits; gathered from the runs' records."""

from dataclasses import dataclass

import pandas as pd

MAIN = ("qstudy", "torch", "python")


@dataclass(frozen=True)
class Provenance:
    """What made the runs; each entry lists every value that occurs."""

    commands: list[str]
    seeds: str
    versions: dict[str, str]
    commits: str

    @property
    def line(self) -> str:
        """What a caption has room for: seed, the main versions, commit."""
        main = ", ".join(f"{name} {self.versions[name]}" for name in MAIN if name in self.versions)
        parts = (f"seed {self.seeds}" * bool(self.seeds), main, f"commit {self.commits}" * bool(self.commits))
        return " · ".join(filter(None, parts))


def provenance(finished: pd.DataFrame) -> Provenance:
    """Gather what finished runs say of themselves."""
    told = {name: _all(values) for name, values in finished.filter(regex="^version[.]").items()}
    named = {str(name).removeprefix("version."): said for name, said in told.items() if said}
    versions = dict(sorted(named.items(), key=lambda item: (item[0] != MAIN[0], item[0])))
    commands = [command for command in finished.command.unique() if command]
    return Provenance(commands, _all(finished.seed.astype("Int64")), versions, _all(finished.commit))


def _all(values: pd.Series) -> str:
    """`0`, or `0, 1, 2`: distinct values, sorted, absent ones left out."""
    found = map(str, values.dropna().unique())
    return ", ".join(sorted(filter(None, found), key=lambda text: text.zfill(12)))
