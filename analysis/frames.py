"""Run records as pandas DataFrames: what tables, figures and notebooks start from.

    from analysis.frames import load, load_runs

    runs = load_runs("studies/digits", "studies/commands")
    runs[runs.uniform].pivot_table("wer.test", ["study", "method", "activation_bits"], "weight_bits")

`load_runs` gives one row per run. Where a record says nothing, numbers are NaN and texts empty. Its columns:

    study, run, trial       names, and the trial's number in the study
    state, reason           `complete`, `pruned` or `failed`, and why
    policy, variant         the policy, and which of its options tell it from the study's other runs: `ptq`, `max`
    method, title           both together, `ptq max`; the same, a float run being `float baseline` or `float control`
    is_baseline             whether it is a float model that others started from
    from_trials             whether this is a baseline without a record, as the runs that started from it describe it
    baseline                the run of the float model that it started from
    over_budget             whether it was pruned before training, because it breaks a budget
    setting                 equal for runs that differ in their seed alone
    trained_as              equal for runs that were trained alike, whatever their policy and their seed
    seed, steps             the seed; optimizer steps of its training
    bits, label             widths in words (`W2–6 (mean 3.4) A8`), and in short (`W3.4A8`)
    uniform                 whether all layers have the same widths
    weight_bits             mean over the parameters of all layers, float counting as 32: the width of uniform runs
    activation_bits         mean over the layers that have activations
    size_bytes, file_bytes  of the packed model's tensors, and of its file
    parameters              of the model
    wer.SET, cer.SET        word and character error rate on that set, fractions
    low.SET, high.SET       ends of the rate's 95 % interval
    substitutions.SET, insertions.SET, deletions.SET, words.SET, utterances.SET
                            counts
    decoding_rtf.SET        seconds of decoding per second of speech
    training_model_wer      word error rate on dev of the model that was trained, before packing
    mismatches              utterances of dev in which the packed model hears something else than that
    latency_ms.NAME         simulated on that accelerator: milliseconds from the end of speech to the last result
    rtf.NAME                and seconds of computing per second of speech
    size_budget             bytes that the study allows
    budget_ms.NAME          milliseconds that it allows on that accelerator
    step_ms, step_p95_ms    median and 95th percentile of the time of a training step
    train_seconds, loss_last
    command, commit, created, version.NAME
                            what made it
    config.FIELD            every field of the configurations that differs between the runs; lists are JSON
    record                  the whole record, compressed: `json.loads(analysis.records.unpacked(run.record))`

`load` gives a `Frames`: the same `runs`, with three more frames beside it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import lru_cache
from pathlib import Path
from sys import intern
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from analysis.bits import widths
from analysis.configs import compact, varying
from analysis.records import Problem, read_folder
from analysis.text import slug
from analysis.variants import variants
from qstudy.bits import LayerBits
from qstudy.errors import UserError
from qstudy.files import content_hash
from qstudy.training.config import NEUTRAL
from qstudy.training.record import Record

WIDTHS = {field.name: field.default for field in fields(LayerBits) if field.name not in ("accumulator", "group")}
"""What is told of a quantizable layer, and what it is where a record does not say."""
LAYER = ("layer", "kind", "parameters", "bytes", *WIDTHS)
NUMBERS = ("trial", "seed", "steps", "size_bytes", "file_bytes", "training_model_wer", "mismatches", "train_seconds")
TEXTS = ("reason", "command", "commit", "created")
COUNTS = ("cer", "substitutions", "insertions", "deletions", "words", "utterances")
EDITS = ("errors", "words", "group")


@dataclass(frozen=True)
class Frames:
    """Everything that records tell."""

    runs: pd.DataFrame
    """One row per run (see this file's head): the baseline first, then by trial."""
    layers: pd.DataFrame
    """One row per run and layer: study, run, layer, kind, parameters, bytes; and weight, activation (bits), quantizer,
    granularity, placement where the layer is quantizable."""
    errors: pd.DataFrame
    """One row per run, set and utterance: study, run, set, utterance (from 0), errors, words (of the reference), group
    (the number of what it shares with others, a speaker or recordings; -1: the record tells of none)."""
    samples: pd.DataFrame
    """One row per run and sample transcript: study, run, reference, hypothesis."""
    problems: tuple[Problem, ...]
    """Records that could not be used."""


def load_runs(*folders: str | Path) -> pd.DataFrame:
    """The runs of one study or several, one row per run.

    Args:
        folders: studies (`studies/digits`), or reports written earlier (`reports/digits`).

    Raises:
        UserError: there is no such folder, or two of them hold a study of the same name.

    Example:
        >>> runs = qstudy.load_runs("reports/digits", "reports/digits-search")
        >>> runs[runs.policy == "ptq"].pivot_table("wer.test", "study", "weight_bits").shape
        (1, 6)
    """
    return load(*folders).runs


def load(*folders: str | Path) -> Frames:
    """The same with layers, errors by utterance, samples, and the records that could not be used.

    Raises:
        UserError: as `load_runs`.
    """
    runs: list[_Run] = []
    problems: list[Problem] = []
    for folder in map(Path, folders):
        found = _folder(folder, problems)
        if twice := {run.row["study"] for run in runs} & {run.row["study"] for run in found}:
            raise UserError(f"{folder}: two studies are called {min(twice)}; give each of them once.")
        runs += found
    studies = list(dict.fromkeys(run.row["study"] for run in runs))
    runs.sort(key=lambda run: (studies.index(run.row["study"]), *_place(run.row)))
    layers = _beside(runs, "layers", LAYER)
    samples = _beside(runs, "samples", ("reference", "hypothesis"))
    return Frames(_runs(runs), layers, _errors(runs), samples, tuple(problems))


class _Run(NamedTuple):
    """What the frames take from a record: thousands of whole records would not fit into the memory of a laptop."""

    row: dict[str, Any]
    config: tuple[tuple[str, ...], tuple[Any, ...]]
    """Names and values."""
    layers: list[tuple[Any, ...]]
    """`LAYER` of each."""
    errors: list[tuple[Any, ...]]
    """(set, errors, words, group) by utterance."""
    samples: list[tuple[str, str]]


def _folder(folder: Path, problems: list[Problem]) -> list[_Run]:
    """The runs of one folder, those without a study in its only one; what cannot be used becomes a problem.

    A baseline without a record of its own is described by the first run that started from it.
    """
    runs: dict[tuple[str | None, str], _Run] = {}
    parents: dict[tuple[str | None, str], Record] = {}
    for source, record, content in read_folder(folder, problems):
        if (record.study, record.run) in runs:
            problems.append(Problem(source, f"there is another run {record.run} in the same study"))
            continue
        runs[record.study, record.run] = _run(record, content)
        if record.state == "complete" and record.baseline:
            parents.setdefault((record.study, _parent(record)), _described(record))
    runs |= {key: _run(record, b"") for key, record in parents.items() if key not in runs}
    studies = {study for study, _ in runs if study}
    default = studies.pop() if len(studies) == 1 else slug(folder.resolve().name)
    for run in runs.values():
        run.row["study"] = run.row["study"] or default
    return list(runs.values())


def _parent(run: Record) -> str:
    """The name of the float model that a run started from."""
    return (run.baseline or {}).get("id") or "float baseline"


def _described(run: Record) -> Record:
    """The record of that model, as far as the run tells it."""
    told: Any = run.baseline
    known = {name: told.get(name) for name in ("metrics", "utterances", "size_bytes", "latency")}
    known |= {name: getattr(run, name) for name in ("study", "seed", "layers")}
    known |= {"run": _parent(run), "bit_map": {name: {} for name in run.bit_map or {}}}
    return Record(policy="float", state="complete", **known)


def _place(row: dict[str, Any]) -> tuple[Any, ...]:
    """Of a run in its study: the baseline first, then by trial."""
    return not row["is_baseline"], np.isnan(row["trial"]), np.nan_to_num(row["trial"]), row["run"]


def _run(record: Record, content: bytes) -> _Run:
    """An empty content: there is no such record, others tell of it."""
    errors: Any = record.utterances or {}
    samples, layers = record.samples or [], _layers(record)
    return _Run(
        _row(record, layers, content),
        compact(record.config),
        [_shared(tuple(layer.get(column, np.nan) for column in LAYER)) for layer in layers],
        [(name, *_edits(edits)) for name, edits in errors.items()],
        [(intern(str(one.get("reference", ""))), intern(str(one.get("hypothesis", "")))) for one in samples],
    )


@lru_cache(maxsize=100_000)
def _shared(layer: tuple[Any, ...]) -> tuple[Any, ...]:
    """The same object for equal layers: thousands of runs have them in a few widths."""
    return layer


def _edits(edits: dict[str, str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Errors, words and group of every utterance."""
    words = _counts(edits["words"])
    groups = _counts(edits["groups"]) if "groups" in edits else np.full(len(words), -1, np.int8)
    return _counts(edits["errors"]), words, groups


def _counts(text: str) -> np.ndarray:
    """Whole numbers, as small as they fit: int8, int16 or int32."""
    values = np.array(text.split(), dtype=np.int32)
    return values.astype(np.min_scalar_type(-1 - values.max(initial=0)))


def _row(record: Record, layers: list[dict[str, Any]], content: bytes) -> dict[str, Any]:
    quantizable = [layer for layer in layers if "weight" in layer]
    config = record.config or {"run": record.run}
    is_baseline, is_float = record.baseline is None, record.policy == "float"
    return {
        "study": record.study,
        "run": record.run,
        "state": record.state,
        "policy": record.policy,
        "is_baseline": is_float and is_baseline,
        "from_trials": not content,
        "baseline": _parent(record) if record.baseline else "",
        "over_budget": record.state == "pruned" and (record.reason or "").startswith("over budget"),
        "setting": content_hash(record.policy, is_baseline, _setting(config), record.bit_map),
        "trained_as": content_hash(_trained_as(config, "training" if is_baseline else "finetune")),
        "parameters": sum(layer.get("parameters") or 0 for layer in layers),
        **{name: getattr(record, name) or "" for name in TEXTS},
        **widths(quantizable) | ({"bits": "float"} if is_float and not quantizable else {}),
        **{name: _number(value) for name, value in _numbers(record).items()},
        **{f"version.{name}": version for name, version in (record.versions or {}).items()},
        "options": config.get("policy") or {},
        "record": content,
    }


def _setting(config: Mapping[str, Any]) -> dict[str, Any]:
    """What seeds of one setting share: all of a configuration but the seed and what it was tested on, now or later."""
    data = {name: value for name, value in (config.get("data") or {}).items() if name != "test"}
    return {**config, "data": data, "seed": None}


def _trained_as(config: Mapping[str, Any], schedule: str) -> dict[str, Any]:
    """What a setting and its float control share: model, data, augmentation, and the schedule, that of `schedule`."""
    told = _setting(config)
    steps = {name: value for name, value in (told.get(schedule) or {}).items() if name not in NEUTRAL}
    parts = ("run", "data", "features", "tokenizer", "model", "augment")
    return {**{name: told.get(name) for name in parts}, "schedule": steps}


def _numbers(record: Record) -> dict[str, Any]:
    """Those that may be missing."""
    budgets, step, loss = record.budgets or {}, record.step_ms or {}, record.loss or {}
    found = {name: getattr(record, name) for name in NUMBERS}
    found |= {"step_ms": step.get("median"), "step_p95_ms": step.get("p95"), "loss_last": loss.get("last")}
    found["size_budget"] = budgets.get("size_bytes")
    if limit := budgets.get("latency_ms"):
        found[f"budget_ms.{limit.get('accelerator', '')}"] = limit.get("limit")
    for name, scores in (record.metrics or {}).items():
        wer, low, high = (_number(scores.get(key)) for key in ("wer", "wer_low", "wer_high"))
        found |= {f"wer.{name}": wer, f"low.{name}": min(low, wer), f"high.{name}": max(high, wer)}
        found |= {f"{key}.{name}": scores.get(key) for key in COUNTS} | {f"decoding_rtf.{name}": scores.get("rtf")}
    for name, simulated in (record.latency or {}).items():
        found |= {f"{key}.{name}": simulated.get(key) for key in ("latency_ms", "rtf")}
    return found


def _number(value: Any) -> float:
    """NaN for None."""
    return np.nan if value is None else float(value)


def _layers(record: Record) -> list[dict[str, Any]]:
    layers, bits = record.layers or {}, record.bit_map or {}
    told = {name: {key: one.get(key) or usual for key, usual in WIDTHS.items()} for name, one in bits.items()}
    return [{"layer": intern(name), **layers.get(name, {}), **told.get(name, {})} for name in {**layers, **bits}]


def _runs(runs: list[_Run]) -> pd.DataFrame:
    frame = pd.DataFrame.from_records([run.row for run in runs])
    if not runs:
        return frame
    options, frame["variant"] = frame.pop("options"), ""
    for _, some in options.groupby([frame.study, frame.policy]):
        frame.loc[some.index, "variant"] = variants(list(some))
    frame["method"] = (frame.policy + " " + frame.variant).str.strip()
    floats = frame.is_baseline.map({True: "float baseline", False: "float control"})
    frame["title"] = frame.method.where(frame.policy != "float", floats)
    configs = [run.config for run in runs]
    differing = varying(dict(zip(*config, strict=True)) for config in configs)
    told = {name: np.empty(len(runs), object) for name in differing}
    for place, config in enumerate(configs):
        for name, value in zip(*config, strict=True):
            if name in told:
                told[name][place] = value
    return pd.concat([frame, pd.DataFrame(told, index=frame.index).add_prefix("config.")], axis=1)


def _beside(runs: list[_Run], part: str, columns: tuple[str, ...]) -> pd.DataFrame:
    """The rows that runs have in a frame beside their own."""
    parts = [getattr(run, part) for run in runs]
    names = [(run.row["study"], run.row["run"]) for run, rows in zip(runs, parts, strict=True) for _ in rows]
    found = pd.DataFrame([one for rows in parts for one in rows], columns=columns)
    return pd.concat([pd.DataFrame(names, columns=["study", "run"]), found], axis=1)


def _errors(runs: list[_Run]) -> pd.DataFrame:
    sets = _beside(runs, "errors", ("set", *EDITS))
    lengths = [len(words) for words in sets.words]
    names = {key: pd.Categorical(sets[key]).repeat(lengths) for key in ("study", "run", "set")}
    counts = {"utterance": [np.arange(length, dtype=np.int32) for length in lengths], **sets[list(EDITS)]}
    empty = np.empty(0, np.int8)
    return pd.DataFrame({**names, **{key: np.concatenate([empty, *some]) for key, some in counts.items()}})
