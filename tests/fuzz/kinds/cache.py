"""Feature caches: damaged files, of which a reader maps parts into memory."""

import shutil
from pathlib import Path
from random import Random

from ..case import Attempt
from ..mutate import bytes_changed
from ..originals import Originals


def make(random: Random, originals: Originals, folder: Path) -> Attempt:
    """Evaluate with a cache that someone wrote, or look at it; what is damaged may be made again."""
    shutil.copytree(originals.folder / "cache", folder / "cache")
    path = random.choice(sorted(path for path in folder.glob("cache/features/**/*") if path.is_file()))
    what = _damaged(random, path)
    model, manifest = str(originals.folder / "float.qst"), str(originals.corpus / "test.jsonl")
    evaluate = ["evaluate", model, "--manifest", manifest]
    argv = random.choice(
        [evaluate, evaluate, ["cache"], ["cache", "--verify"], ["cache", "--verify", "--prune", "--json"]]
    )
    return Attempt(argv, f"{path.suffix or path.name} {what}")


def _damaged(random: Random, path: Path) -> str:
    how = random.choice(["bytes", "bytes", "bytes", "bytes", "removed", "folder", "other"])
    match how:
        case "bytes":
            content, how = bytes_changed(random, path.read_bytes() or b"x")
            path.write_bytes(content)
        case "removed":
            path.unlink()
        case "folder":
            path.unlink()
            path.mkdir()
        case "other":
            shutil.copy(
                random.choice([each for each in sorted(path.parent.iterdir()) if each.is_file()]), path.with_name("x")
            )
            path.with_name("x").replace(path)
    return how
