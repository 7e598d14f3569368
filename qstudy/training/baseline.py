"""The float model that quantized training starts from: trained once or given as a file, scored on the run's own sets.

A baseline is a folder `CACHE/baselines/HASH` with `record.json` and a float `model.qst`, as a run leaves them. Its name
is what it was made from: contents, not paths. Scores on other sets than those it was trained beside are a folder of
their own, so that nothing is trained twice and no score is of another study's sets. Runs that start from a baseline
share a lock on the file `used` in it, so that `qstudy cache --prune` leaves it.
"""

import shutil
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, replace
from pathlib import Path

from qstudy.data.manifest import identity
from qstudy.data.store import USED
from qstudy.errors import UserError
from qstudy.files import content_hash, file_hash, replacing
from qstudy.hardware.accelerator import load_accelerator
from qstudy.locks import locked, share
from qstudy.training.assets import make_corpus, open_assets
from qstudy.training.conclude import conclude
from qstudy.training.config import NEUTRAL, RunConfig, Schedule, to_dict
from qstudy.training.devices import join
from qstudy.training.price import price
from qstudy.training.record import MODEL_FILE, RECORD_FILE, Record, read_record, write_record
from qstudy.training.sections import Baseline
from qstudy.training.start import read_start

Train = Callable[..., Record]
"""`qstudy.training.run.run`: trains a configuration in a folder."""


def find_baseline(config: RunConfig, train: Train) -> Path:
    """The folder of the float model that `config` starts from; made on first use, then found by its hash.

    Several processes may ask at once: one makes it, the others wait.

    Args:
        config: the run that starts from it.
        train: trains the baseline if nothing is given as `config.start`.

    Raises:
        UserError: a manifest or the given model file is missing, or the file does not fit the run.
    """
    start = str(config.start_identity)  # a missing file shows before a corpus is made
    make_corpus(config)
    if config.start_file is not None:
        return _scored_baseline(config.start_file, start, f"{config.start_file.stem}-{start[:8]}", config)
    own, folder = _from_scratch(config), trained_folder(config)
    _make_once(
        folder, config, lambda: train(own, folder, name=f"float-{folder.name[:8]}", extra={"scored": _sets(own)})
    )
    record = read_record(folder / RECORD_FILE)
    if record.scored == _sets(config):
        return folder
    return _scored_baseline(folder / MODEL_FILE, file_hash(folder / MODEL_FILE), record.run, config)


def trained_folder(config: RunConfig) -> Path:
    """Where the float model trained under a configuration lies, or will: named by all that its weights depend on.

    Raises:
        UserError: there is no training manifest.
    """
    # what changes nothing is at its default, not left out: so baselines that are there keep their names
    same = replace(config, training=replace(config.training, **{name: getattr(Schedule(), name) for name in NEUTRAL}))
    parts = {key: to_dict(same)[key] for key in ("features", "tokenizer", "model", "augment", "training", "seed")}
    return Path(config.cache) / "baselines" / content_hash(_manifest("data.train", config.data.train), parts)


def publish(config: RunConfig, folder: Path) -> None:
    """Let a finished run, if it trained a float model from scratch, be the baseline of runs with the same settings."""
    if config.policy.get("name") != "float" or not config.from_scratch:
        return
    target = trained_folder(config)

    def copy() -> None:
        if not join(config.trainer).is_global_zero:
            return
        with replacing(target / MODEL_FILE) as temporary:
            shutil.copyfile(folder / MODEL_FILE, temporary)
        write_record(target, replace(read_record(folder / RECORD_FILE), scored=_sets(config)))

    _make_once(target, config, copy)


def baseline_summary(folder: Path | None) -> Baseline | None:
    """What a run's record says of its baseline."""
    if folder is None:
        return None
    record = read_record(folder / RECORD_FILE)
    return {
        "id": record.run,
        "wer": record.headline["wer"],
        "size_bytes": record.size_bytes,
        "metrics": record.metrics,
        "utterances": record.utterances,
        "latency": record.latency,
    }


def _scored_baseline(file: Path, identity: str, name: str, config: RunConfig) -> Path:
    """The folder with a model file's float model and its scores on the run's sets."""
    own = replace(config, policy={"name": "float"}, start=str(file))
    parts = {key: to_dict(own)[key] for key in ("features", "tokenizer", "model")}
    folder = Path(own.cache) / "baselines" / content_hash(identity, _sets(own), parts)
    _make_once(folder, config, lambda: _score_start_file(own, folder, name))
    return folder


def _score_start_file(config: RunConfig, folder: Path, name: str) -> None:
    """Pack the start file's model in float, evaluate it, and write the record of a run that did not train."""
    if not join(config.trainer).is_global_zero:
        return
    assert config.start_file is not None
    assets = open_assets(config)
    model = read_start(config.start_file, config, assets.tokenizer)
    conclude(model, config, price(config), assets, folder, run=name, scored=_sets(config))


def _from_scratch(config: RunConfig) -> RunConfig:
    return replace(config, policy={"name": "float"}, start="scratch")


def _sets(config: RunConfig) -> str:
    """A hash of all that a baseline's scores depend on beside its weights."""
    manifests = {"dev": config.data.dev, **config.data.test}
    contents = [(name, _manifest(f"data: {name}", path)) for name, path in manifests.items()]
    return content_hash(
        contents, config.data.skip_broken, [asdict(load_accelerator(name)) for name in config.accelerator]
    )


def _manifest(field: str, path: str) -> str:
    """What a manifest holds, as a hash."""
    if not Path(path).is_file():
        raise UserError(f"{field}: there is no manifest {path}; make the corpus with `qstudy data`.")
    return identity(Path(path))


def _make_once(folder: Path, config: RunConfig, make: Callable[[], object]) -> None:
    """Make a baseline unless it is there; of several runs one does it, the others wait.

    The processes of one run, one per device, are in this together: the first holds the locks for all of them.

    Args:
        folder: of the baseline.
        config: the run that asks; as long as it lives, the baseline is in use.
        make: makes it.
    """
    devices = join(config.trainer)
    with locked(folder.with_suffix(".lock")) if devices.is_global_zero else nullcontext():
        devices.barrier()  # from here on no other run can make it, so that all of our processes see the same
        if not (folder / RECORD_FILE).exists():
            make()
        if devices.is_global_zero:
            (folder / USED).touch()
            share(folder / USED, config)
    devices.barrier()
