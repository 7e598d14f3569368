"""The studies that are held against each other: the same space, fine-tunes and budgets, three seeds each."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from qstudy.sweep.config import Sampler, Screening, StudyConfig, load_study
from qstudy.sweep.launchers.local import ThisMachine
from qstudy.sweep.study import check, run_study

FILE = Path("sweeps") / "search.yaml"
SCREENING = Screening(by="switchable", steps=60, evaluations=60, utterances=60)
SCREENED_TRIALS = 3
WAYS = {
    "TPE": Sampler("tpe", startup=6),
    "NSGA-II": Sampler("nsga2", population=6),
    "screening": Sampler("tpe", startup=6),
}
"""Name in the figure -> its sampler; `screening` trains few candidates, judged by a switchable model."""


@dataclass(frozen=True)
class Entry:
    """One study."""

    way: str
    seed: int
    config: StudyConfig
    folder: Path

    @property
    def screened(self) -> bool:
        """Whether its candidates are."""
        return self.config.screening is not None


def entries(root: Path, seeds: int, ways: list[str]) -> Iterator[Entry]:
    """The studies, whose folders lie in `root`; a seed is that of the sampler and of the trainings."""
    base = load_study(FILE)
    for seed in range(seeds):
        for way in ways:
            own = replace(
                base,
                study=f"{base.study}-{way.lower()}-{seed}",
                base={**base.base, "seed": seed},
                sampler=replace(WAYS[way], seed=seed),
            )
            if way == "screening":
                own = replace(own, screening=SCREENING, trials=SCREENED_TRIALS)
            yield Entry(way, seed, own, root / own.study)


def sweep(entry: Entry) -> None:
    """Run a study, or what is left of it."""
    check(entry.config)
    run_study(entry.config, entry.folder, ThisMachine(), workers=1)
