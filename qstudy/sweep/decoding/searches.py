"""Run a study of searches: recognizers with their language models, ways to fuse them and beam widths, on one test set.

Weights of language models are tuned on a dev set, for each recognizer and each way to fuse; then every cell is decoded
on the test set from the files alone, timed, and priced by the simulator with the work that its search was seen to do.
Cells become run records, so that `qstudy report` tells of them.
"""

import time
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from tqdm import tqdm

from qstudy.data.feature_set import FeatureSet
from qstudy.data.manifest import groups_of, identity
from qstudy.errors import naming
from qstudy.fields import checked, fill
from qstudy.files import content_hash, file_hash, read_json, write_json
from qstudy.hardware.accelerator import load_accelerator
from qstudy.hardware.search import Search
from qstudy.hardware.simulator import simulate
from qstudy.hardware.size import size_bytes
from qstudy.locks import try_lock
from qstudy.model.language import LanguageModel
from qstudy.quant.packed.file import read as read_packed
from qstudy.quant.packed.model import PackedModel
from qstudy.recognize.build import build_beam_search, load_each
from qstudy.recognize.encoded import EncodedSet
from qstudy.recognize.fusion import Fusion
from qstudy.recognize.language import is_arpa
from qstudy.recognize.options import Decoding
from qstudy.recognize.recognizer import recognizer_from_packed
from qstudy.recognize.score import by_utterance, sample, score
from qstudy.sweep.decoding.fusion import ARGUMENTS, open_fusion_study, study_name, tried, tune_weights
from qstudy.sweep.decoding.search_study import ASKED, Cell, Models, SearchStudy
from qstudy.training.environment import environment
from qstudy.training.price import Price, describe_price
from qstudy.training.record import RECORD_FILE, Record, change_record, read_record, write_record
from qstudy.training.sections import Baseline, Notes
from qstudy.workloads import load_model, with_language_models, with_widths

NAMES = {"lm": "external_lm", "source_lm": "source_lm"}
"""What the layers of language models are called where they are priced."""


class Opened(NamedTuple):
    """What cells are decoded from, as far as they need it."""

    language: dict[str, LanguageModel]
    """By `lm` and `source_lm`."""
    sets: dict[str, EncodedSet]
    """`test`; and `dev`, where weights are tuned."""


def run_searches(config: SearchStudy, folder: Path, features: Path) -> list[Record]:
    """Decode every cell that has no record yet; several processes may work on one study.

    Args:
        config: the study.
        folder: receives `weights/*.json` and `runs/*/record.json`.
        features: folder of the feature cache.

    Returns:
        The records of all cells that are there in the end: all but those that other processes are still at.
    """
    for accelerator in config.accelerator:
        load_accelerator(accelerator)
    cells = config.cells
    with tqdm(total=len(cells), desc=config.study, unit="search", disable=None) as progress:
        for name, models in config.entries.items():
            mine = [cell for cell in cells if cell.name == name]
            progress.update(len(mine) - len(left := [each for each in mine if _kept(config, each, folder) is None]))
            if left:
                with naming(f"models.{name}"):
                    _decode(config, models, left, folder, features, progress)
    kept = [(cell, record) for cell in cells if (record := _kept(config, cell, folder)) is not None]
    return [_priced_anew(config, cell, record, folder) for cell, record in kept]


def _identity(config: SearchStudy, cell: Cell) -> str:
    """Of everything that what is heard in a cell depends on; what it costs is priced anew."""
    files = [_hash(path) for path in config.entries[cell.name].files(cell.form).values()]
    tuned = [asdict(config.tune), _hash(Path(config.dev), identity), config.seed] if ASKED[cell.form] else None
    return content_hash(files, _hash(Path(config.test), identity), tuned, config.search, cell.beam)


def _former_identity(config: SearchStudy, cell: Cell, record: Record) -> str:
    """The same as earlier versions told it, who also named what the record was priced for, and what no weights were
    tuned on."""
    tuned, told = bool(ASKED[cell.form]), checked(dict[str, Any], record.config, f"{cell.run}: config")
    dev = config.dev if tuned else told.get("searches", {}).get("dev", config.dev)
    files = [_hash(path) for path in config.entries[cell.name].files(cell.form).values()]
    try:
        files += [_hash(Path(path), identity) for path in (dev, config.test)]
    except OSError:  # the record's own dev set has gone: it cannot be known again
        return ""
    priced, tune = told.get("widths"), asdict(config.tune) if tuned else None
    seed = config.seed if tuned else record.seed
    return content_hash(files, priced, tune, config.search, cell.beam, list(record.latency or {}), seed)


def _hash(path: Path, of: Callable[[Path], str] = file_hash) -> str:
    """Of a file: cells share them, and language models are large, so that each is read once as long as it stays."""
    told = path.stat()
    return _hash_of(of, path, told.st_size, told.st_mtime_ns)


@cache
def _hash_of(of: Callable[[Path], str], path: Path, size: int, time_ns: int) -> str:
    return of(path)


def _kept(config: SearchStudy, cell: Cell, folder: Path) -> Record | None:
    """The record of a cell that was decoded already, from the same files."""
    path = folder / "runs" / cell.run / RECORD_FILE
    if not path.is_file():
        return None
    record = read_record(path)
    known = record.scored == _identity(config, cell) or record.scored == _former_identity(config, cell, record)
    return record if known else None


def _opened(config: SearchStudy, models: Models, left: list[Cell], features: Path) -> Opened:
    recognizer = recognizer_from_packed(PackedModel.load(Path(models.model)))  # records tell of its file: no checkpoint
    asked = sorted({name for cell in left for name in ASKED[cell.form]})
    loaded = load_each([Path(str(getattr(models, name))) for name in asked], recognizer.tokenizer)
    sets = {}
    for name, manifest in {"test": config.test, **({"dev": config.dev} if asked else {})}.items():
        utterances = FeatureSet.open(Path(manifest), recognizer.features, recognizer.tokenizer, features)
        sets[name] = EncodedSet(recognizer, utterances, manifest)
    return Opened({name: model for name, model in zip(asked, loaded, strict=True) if model is not None}, sets)


def _decode(
    config: SearchStudy, models: Models, left: list[Cell], folder: Path, features: Path, progress: "tqdm[Any]"
) -> None:
    """Decode cells of one recognizer; what others are at comes again, in case they are killed, until that is all."""
    opened, before = _opened(config, models, left, features), None
    while left and left != before:
        before, left = left, [cell for cell in left if not _cell(config, models, opened, cell, folder)]
        progress.update(len(before) - len(left))


def _cell(config: SearchStudy, models: Models, opened: Opened, cell: Cell, folder: Path) -> bool:
    """Decode one cell and write its record, unless another process has done so, or is at it or at its weights.

    Returns:
        Whether the record is there.
    """
    own = folder / "runs" / cell.run
    if (lock := try_lock(own / "cell.lock")) is None:
        return False
    with lock:
        if _kept(config, cell, folder) is not None:
            return True
        decoding = Decoding(decode="beam", beam=cell.beam, search=config.search)
        if (weights := _weights(config, models, opened, cell, folder)) is None:
            return False
        factors = {ARGUMENTS[name]: value for name, value in weights.items()}
        fusion = Fusion(opened.language.get("lm"), source=opened.language.get("source_lm"), **factors)
        search, test = build_beam_search(decoding, fusion), opened.sets["test"]
        features = test.features
        groups = groups_of(Path(config.test), features.lines.tolist())
        work = test.work(search)  # first: what is compiled on its first use is no decoding, nor is the encoder's part
        begin = time.perf_counter()
        texts = test.texts(search, cell.run)
        seconds = time.perf_counter() - begin + test.seconds
        record: Any = _record(config, models, cell, weights, work)
        write_record(
            own,
            replace(
                record,
                metrics={"test": score(features, texts, seconds, groups)},
                utterances={"test": by_utterance(features, texts, groups)},
                samples=sample(features, texts),
            ),
        )
    return True


def _weights(config: SearchStudy, models: Models, opened: Opened, cell: Cell, folder: Path) -> dict[str, float] | None:
    """The weights of a cell's language models: those of its models and form, tuned once for all beams; None: another
    process tunes them now."""
    if not ASKED[cell.form]:
        return {}
    name = folder / "weights" / f"{cell.name}-{cell.form}"
    if (lock := try_lock(name.with_name(f"{name.name}.lock"))) is None:
        return None
    with lock:
        found = _tuned(config, models, opened, cell, name.with_name(f"{name.name}.db"))
        write_json(name.with_name(f"{name.name}.json"), found)
    return {weight: found[weight] for weight in ARGUMENTS if weight in found}


def _tuned(config: SearchStudy, models: Models, opened: Opened, cell: Cell, storage: Path) -> dict[str, Any]:
    tune, files = config.tune, models.files(cell.form)
    inputs = [*map(_hash, files.values()), _hash(Path(config.dev), identity)]
    study = open_fusion_study(storage, study_name(inputs, tune.beam, config.search, config.seed))
    decoding = Decoding(decode="beam", beam=tune.beam, search=config.search)
    language = {name: opened.language[name] for name in ASKED[cell.form]}
    found = tune_weights(
        study, opened.sets["dev"], decoding, language["lm"], language.get("source_lm"), tune.trials, config.seed
    )
    told = {"dev_wer": found.value, "without": tried(study)[0].value, "trials": tune.trials, "beam": tune.beam}
    return {**found.params, **told}


def _record(config: SearchStudy, models: Models, cell: Cell, weights: dict[str, float], work: Search) -> Record:
    """What is known of a cell before it is decoded."""
    files = models.files(cell.form)
    header = read_packed(files["model"]).header
    told = {"study": config.study, "dev": config.dev, "test": config.test, "tune": asdict(config.tune)}
    return Record(
        run=cell.run,
        study=config.study,
        state="complete",
        policy=header["policy"]["name"],
        config={
            "policy": header["policy"],
            "model": header["model"],
            "files": {name: str(path) for name, path in files.items()},
            "widths": models.widths,
            "decoding": {**cell._asdict(), "search": config.search, **weights},
            "work": asdict(work),
            "searches": told,
        },
        **describe_price(_price(config, models, cell, work)),
        file_bytes=sum(path.stat().st_size for path in files.values()),
        notes={"choices": _choices(files)},
        baseline=_baseline(config, cell),
        seed=config.seed,
        scored=_identity(config, cell),
        **environment(),
    )


def _baseline(config: SearchStudy, cell: Cell) -> Baseline | None:
    """The first cell, which all others are held against."""
    return None if cell == (first := config.cells[0]) else {"id": first.run}


def _priced_anew(config: SearchStudy, cell: Cell, record: Record, folder: Path) -> Record:
    """A record that was there, at the price of today: there may be other accelerators or widths, or an accelerator's
    description has changed, or the simulator, on which nothing that was decoded depends."""
    told, models = checked(dict[str, Any], record.config, f"{cell.run}: config"), config.entries[cell.name]
    new = describe_price(_price(config, models, cell, fill(Search, told["work"], cell.run)))
    new |= {"config": {**told, "widths": models.widths}, "scored": _identity(config, cell)}
    new |= {"baseline": _baseline(config, cell)}
    if all(getattr(record, name) == value for name, value in new.items()):
        return record
    return change_record(folder / "runs" / cell.run, lambda now: replace(now, **new))


def _price(config: SearchStudy, models: Models, cell: Cell, work: Search) -> Price:
    """Bytes as they are stored, latency in the widths that the models are priced in."""
    files = models.files(cell.form)
    fused = {NAMES[name]: path for name, path in files.items() if name in NAMES and not is_arpa(path)}
    sizes = with_language_models(load_model(files["model"]), fused)
    priced = sizes.bit_map if models.widths is None else with_widths(sizes.bit_map, models.widths)
    load = sizes.workload(priced, work)
    latency = {name: simulate(load, load_accelerator(name)).summary() for name in config.accelerator}
    return Price(sizes.bit_map, list(sizes.shapes), size_bytes(sizes.shapes, sizes.bit_map), latency)


def _choices(files: dict[str, Path]) -> dict[str, Any]:
    """The quantizers that calibration chose for the tensors of all models, as the records beside their files tell."""
    found: dict[str, Any] = {}
    for name, file in files.items():
        path, prefix = file.with_name(RECORD_FILE), f"{NAMES[name]}." if name in NAMES else ""
        values = read_json(path) if path.is_file() else {}
        notes = checked(Notes, (values.get("notes") if isinstance(values, dict) else None) or {}, f"{path}: notes")
        found |= {f"{prefix}{tensor}": choice for tensor, choice in (notes.get("choices") or {}).items()}
    return found
