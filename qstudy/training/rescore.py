"""Finished runs on more test sets: what was trained is as it was, and hears something else."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from qstudy.data.feature_set import FeatureSet
from qstudy.data.manifest import groups_of
from qstudy.errors import UserError, naming
from qstudy.named import asked_by
from qstudy.recognize.score import by_utterance, recognize, score
from qstudy.training.load import load_recognizer
from qstudy.training.record import MODEL_FILE, RECORD_FILE, Record, change_record, read_record


def rescore(run: Path, sets: Mapping[str, Path], cache: Path = Path("cache")) -> tuple[str, ...]:
    """Score a finished run's packed model on sets that its record does not know yet, and write that into the record.

    Args:
        run: the folder of the run, with its packed model.
        sets: name -> manifest.
        cache: folder of the feature cache.

    Returns:
        The sets that were new.

    Raises:
        UserError: record, model or manifest are damaged or missing, or the record has another set of one of the names.
    """
    missing = _missing(read_record(run / RECORD_FILE), run, sets)
    if missing:
        with asked_by(run / RECORD_FILE):
            found = {name: _scored(run / MODEL_FILE, name, sets[name], cache) for name in missing}
        new = {name: sets[name] for name in missing}

        def extended(record: Record) -> Record:  # which another process may have changed meanwhile
            return _extended(record, {name: found[name] for name in _missing(record, run, new)}, sets)

        change_record(run, extended)
    return missing


def _missing(record: Record, run: Path, sets: Mapping[str, Path]) -> tuple[str, ...]:
    """The sets that a run's record does not know; raises as `_known`."""
    with naming(run / RECORD_FILE):
        return tuple(name for name in sets if not _known(record, name, sets[name]))


def _known(record: Record, name: str, manifest: Path) -> bool:
    """Whether the record has that set already.

    Raises:
        UserError: another one has its name.
    """
    if name not in (record.metrics or {}):
        return False
    there = _manifests(record).get(name)
    if there != str(manifest):
        raise UserError(
            f"metrics.{name}: the record has a set of this name already ({there}); name the new one otherwise."
        )
    return True


def _manifests(record: Record) -> dict[str, Any]:
    data = (record.config or {}).get("data") or {}
    return {"dev": data.get("dev"), **(data.get("test") or {})}


def _scored(model: Path, name: str, manifest: Path, cache: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """Rates, and errors by utterance."""
    recognizer = load_recognizer(model)
    features = FeatureSet.open(manifest, recognizer.features, recognizer.tokenizer, cache / "features")
    groups = groups_of(manifest, features.lines.tolist())
    texts, seconds = recognize(recognizer.model, features, recognizer.tokenizer, name)
    return score(features, texts, seconds, groups), by_utterance(features, texts, groups)


def _extended(record: Record, found: Mapping[str, tuple[Any, Any]], sets: Mapping[str, Path]) -> Record:
    config = dict(record.config or {})
    data = dict(config.get("data") or {})
    data["test"] = {**(data.get("test") or {}), **{name: str(sets[name]) for name in found}}
    return replace(
        record,
        config={**config, "data": data},
        metrics={**(record.metrics or {}), **{name: scores for name, (scores, _) in found.items()}},
        utterances={**(record.utterances or {}), **{name: edits for name, (_, edits) in found.items()}},
    )
