"""`qstudy worker`."""

from pathlib import Path

from qstudy.files import safe_name


def worker(study: str, storage: str | None = None, root: Path = Path("studies"), prepare_only: bool = False) -> None:
    """Add a worker to a study: on CUDA_VISIBLE_DEVICES=1 with OMP_NUM_THREADS=8, or else the first GPU with all cores.

    `qstudy sweep` began the study, on this or any other machine; with the same storage and in a folder of its own that
    joins, too, with a worker for each GPU. Corpus and float baseline are looked for where the study says (`data`,
    `cache`), and made if they are missing: share those folders among machines, so that all trials start from the same
    baseline.

    Args:
        study: Name of the study.
        storage: URL of its database; by default the environment variable QSTUDY_STORAGE (better: process lists show a
            command's arguments to everyone on the machine), or the SQLite file in the study's folder.
        root: Folder of all studies; the runs of this worker go to ROOT/STUDY/runs.
        prepare_only: Make what all trials share (corpus, feature cache, float baseline), and end.
    """
    from qstudy.sweep.study import join_study

    join_study(study, root / safe_name(study, "--study"), storage, prepare_only)
