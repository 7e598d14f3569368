"""`qstudy rescore`."""

from pathlib import Path
from typing import Annotated

from annotated_types import MinLen

from qstudy.errors import UserError


def rescore(folder: list[Path], sets: dict[str, Path], cache: Path = Path("cache"), trust: Path | None = None) -> None:
    """Score finished runs on more test sets, from their packed models, and keep that in their records.

    What is there already is not done again, so that the same command goes on after an interruption. `qstudy report
    --split NAME` then reports on one of them.

    Args:
        folder: Runs, folders of runs, or studies.
        sets: Name and manifest of each: '{snr5: corpora/noisy-5/test.jsonl, snr0: corpora/noisy-0/test.jsonl}'.
        cache: Folder of the feature cache.
        trust: A Python file of yours whose classes model files may name; they can run no other code.
    """
    from tqdm import tqdm

    from qstudy.fields import checked
    from qstudy.named import trusting
    from qstudy.training import rescore as again
    from qstudy.training.record import MODEL_FILE
    from qstudy.training.reprice import runs_below
    from qstudy.training.sections import Label

    if "dev" in sets or not sets:
        raise UserError("--sets: name one test set or more, none of them dev.")
    for name in sets:
        checked(Annotated[Label, MinLen(1)], name, "--sets")
    found = [runs_below(each) for each in folder]
    runs = [run for of_folder, _ in found for run in of_folder]
    here = [run for run in runs if (run / MODEL_FILE).is_file()]
    new = 0
    with trusting(trust):
        for run in tqdm(here, desc="runs", unit="run", leave=False, disable=None):
            new += bool(again.rescore(run, sets, cache))
    print(f"{new} of {len(runs)} runs were scored on something new.")
    if away := len(runs) - len(here):
        print(f"{away} stay as they are: their records came along (--known), their models are not here.")
    if others := sum(count for _, count in found):
        print(f"{others} left out, of language models: `qstudy perplexity` scores those.")
