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
from dataclasses import dataclass, fields, replace
from pathlib import Path
from sys import intern
from typing import Any

import numpy as np
import pandas as pd

from analysis.bits import describe, label, means, uniform
from analysis.configs import flat, setting, varying
from analysis.records import Problem, read_folder
from analysis.text import slug
from analysis.variants import variants
from qstudy.bits import LayerBits
from qstudy.errors import UserError
from qstudy.training.record import Record

WIDTHS = {field.name: field.default for field in fields(LayerBits) if field.name not in ("accumulator", "group")}
"""What is told of a quantizable layer, and what it is where a record does not say."""
COUNTS = ("substitutions", "insertions", "deletions", "words", "utterances")


@dataclass(frozen=True)
class Frames:
    """Everything that records tell."""

    runs: pd.DataFrame
    """One row per run (see this file's head): the baseline first, then by trial."""
    layers: pd.DataFrame
    """One row per run and layer: study, run, layer, kind, parameters, bytes; and weight, activation (bits), quantizer,
    granularity, placement where the layer is quantizable."""
    errors: pd.DataFrame
    """One row per run, set and utterance: study, run, set, utterance (from 0), errors, words (of the reference)."""
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
    found: list[_Run] = []
    problems: list[Problem] = []
    for folder in map(Path, folders):
        runs, unusable = _folder(folder)
        problems += unusable
        if twice := {one.study for one in found} & {one.study for one in runs}:
            raise UserError(f"{folder}: two studies are called {min(twice)}; give each of them once.")
        found += runs
    studies = list(dict.fromkeys(run.study for run in found))
    found.sort(key=lambda run: (studies.index(run.study), *run.place))
    return Frames(_runs(found), _layers(found), _errors(found), _samples(found), tuple(problems))


@dataclass(frozen=True)
class _Run:
    """What the frames take from a record: thousands of whole records would not fit into the memory of a laptop."""

    study: str
    row: dict[str, Any]
    config: dict[str, Any]
    """Flat."""
    options: Mapping[str, Any]
    """Of its policy."""
    layers: list[dict[str, Any]]
    errors: list[tuple[str, np.ndarray, np.ndarray]]
    """(set, errors, words) by utterance."""
    samples: list[tuple[str, str]]
    content: bytes
    """Empty: there is no such record, others tell of it."""

    @property
    def name(self) -> str:
        return str(self.row["run"])

    @property
    def place(self) -> tuple[Any, ...]:
        """In its study: the baseline first, then by trial."""
        trial = self.row["trial"]
        return not self.row["is_baseline"], np.isnan(trial), np.nan_to_num(trial), self.name


def _folder(folder: Path) -> tuple[list[_Run], list[Problem]]:
    """The runs of one folder, those without a study in its only one; and what cannot be used.

    A baseline without a record of its own is described by the first run that started from it.
    """
    runs: dict[tuple[str, str], _Run] = {}
    parents: dict[tuple[str, str], Record] = {}
    problems: list[Problem] = []
    for one in read_folder(folder):
        if isinstance(one, Problem):
            problems.append(one)
            continue
        record, study = one.record, one.record.study or ""
        if (study, record.run) in runs:
            problems.append(Problem(one.source, f"there is another run {record.run} in the same study"))
            continue
        runs[study, record.run] = _run(record, one.content)
        if record.state == "complete" and record.baseline and (study, _parent(record)) not in parents:
            parents[study, _parent(record)] = _described(record)
    described = [replace(_run(parents[key], b""), study=key[0]) for key in parents if key not in runs]
    studies = dict.fromkeys(study for study, _ in runs if study)
    default = next(iter(studies)) if len(studies) == 1 else slug(folder.resolve().name)
    return [replace(run, study=run.study or default) for run in [*runs.values(), *described]], problems


def _run(record: Record, content: bytes) -> _Run:
    utterances: Any = record.utterances or {}
    errors = [(name, _counts(edits["errors"]), _counts(edits["words"])) for name, edits in utterances.items()]
    samples = [
        (intern(sample.get("reference", "")), intern(sample.get("hypothesis", ""))) for sample in record.samples or []
    ]
    options = (record.config or {}).get("policy") or {}
    return _Run(
        record.study or "",
        _row(record, content),
        flat(record.config),
        options,
        _layers_of(record),
        errors,
        samples,
        content,
    )


def _counts(text: str) -> np.ndarray:
    """Whole numbers, as small as they fit: int8, int16 or int32."""
    values = np.array(text.split(), dtype=np.int32)
    return values.astype(np.min_scalar_type(-1 - values.max(initial=0)))


def _parent(run: Record) -> str:
    """The name of the float model that a run started from."""
    return (run.baseline or {}).get("id") or "float baseline"


def _described(run: Record) -> Record:
    parent: Any = run.baseline
    widths: Any = {name: {} for name in run.bit_map or {}}
    known = {name: parent.get(name) for name in ("metrics", "utterances", "size_bytes", "latency")}
    return Record(
        run=_parent(run), policy="float", state="complete", seed=run.seed, layers=run.layers, bit_map=widths, **known
    )


def _runs(runs: list[_Run]) -> pd.DataFrame:
    differing = varying([run.config for run in runs])
    frame = pd.DataFrame.from_records([{"study": run.study, **run.row} for run in runs])
    if runs:
        frame["variant"] = _variants(runs)
        frame["method"] = (frame.policy + " " + frame.variant).str.strip()
        floats = frame.is_baseline.map({True: "float baseline", False: "float control"})
        frame["title"] = frame.method.where(frame.policy != "float", floats)
    settings = {f"config.{name}": pd.Series([run.config.get(name) for run in runs], dtype=object) for name in differing}
    records = pd.Series([run.content for run in runs], index=frame.index, dtype=object, name="record")
    return pd.concat([frame, pd.DataFrame(settings, index=frame.index), records], axis=1)


def _variants(runs: list[_Run]) -> list[str]:
    studies = dict.fromkeys(run.study for run in runs)
    return [
        word
        for study in studies
        for word in variants([(run.row["policy"], run.options) for run in runs if run.study == study])
    ]


def _row(record: Record, content: bytes) -> dict[str, Any]:
    layers = _layers_of(record)
    quantizable = [layer for layer in layers if "weight" in layer]
    step, loss, reason = record.step_ms or {}, record.loss or {}, record.reason or ""
    weight_bits, activation_bits = uniform(quantizable) or means(quantizable)
    return {
        "run": record.run,
        "trial": _number(record.trial),
        "state": record.state,
        "reason": reason,
        "policy": record.policy,
        "is_baseline": record.policy == "float" and record.baseline is None,
        "from_trials": not content,
        "baseline": _parent(record) if record.baseline else "",
        "over_budget": record.state == "pruned" and reason.startswith("over budget"),
        "setting": setting(record),
        "seed": _number(record.seed),
        "steps": _number(record.steps),
        "bits": "float" if record.policy == "float" and not quantizable else describe(quantizable),
        "label": label(quantizable),
        "uniform": uniform(quantizable) is not None,
        "weight_bits": _number(weight_bits),
        "activation_bits": _number(activation_bits),
        "size_bytes": _number(record.size_bytes),
        "file_bytes": _number(record.file_bytes),
        "parameters": sum(layer.get("parameters") or 0 for layer in layers),
        "training_model_wer": _number(record.training_model_wer),
        "step_ms": _number(step.get("median")),
        "step_p95_ms": _number(step.get("p95")),
        "train_seconds": _number(record.train_seconds),
        "loss_last": _number(loss.get("last")),
        "command": record.command or "",
        "commit": record.commit or "",
        "created": record.created or "",
        **_scores(record),
        **_simulated(record),
        **_budgets(record),
        **{f"version.{name}": version for name, version in (record.versions or {}).items()},
    }


def _scores(record: Record) -> dict[str, float]:
    found: dict[str, float] = {}
    for name, scores in (record.metrics or {}).items():
        wer, low, high = (_number(scores.get(key)) for key in ("wer", "wer_low", "wer_high"))
        found |= {f"wer.{name}": wer, f"low.{name}": min(low, wer), f"high.{name}": max(high, wer)}
        found |= {f"{key}.{name}": _number(scores.get(key)) for key in ("cer", *COUNTS)}
        found[f"decoding_rtf.{name}"] = _number(scores.get("rtf"))
    return found


def _simulated(record: Record) -> dict[str, float]:
    return {
        f"{key}.{name}": _number(latency.get(key))
        for name, latency in (record.latency or {}).items()
        for key in ("latency_ms", "rtf")
    }


def _budgets(record: Record) -> dict[str, float]:
    budgets = record.budgets or {}
    latency = budgets.get("latency_ms") or {}
    limited = {f"budget_ms.{latency.get('accelerator', '')}": _number(latency.get("limit"))} if latency else {}
    return {"size_budget": _number(budgets.get("size_bytes")), **limited}


def _number(value: Any) -> float:
    """NaN for None."""
    return np.nan if value is None else float(value)


def _layers(runs: list[_Run]) -> pd.DataFrame:
    found = [{"study": run.study, "run": run.name, **layer} for run in runs for layer in run.layers]
    return pd.DataFrame(found, columns=["study", "run", "layer", "kind", "parameters", "bytes", *WIDTHS])


def _layers_of(record: Record) -> list[dict[str, Any]]:
    layers, widths = record.layers or {}, record.bit_map or {}
    names = map(intern, {**layers, **widths})
    return [{"layer": name, **layers.get(name, {}), **_widths(widths.get(name))} for name in names]


def _widths(bits: Any) -> dict[str, Any]:
    if bits is None:
        return {}
    return {key: bits.get(key) or usual for key, usual in WIDTHS.items()}


def _errors(runs: list[_Run]) -> pd.DataFrame:
    parts = [(run.study, run.name, *part) for run in runs for part in run.errors]
    lengths = [len(errors) for *_, errors, _ in parts]
    names = {
        key: pd.Categorical([part[place] for part in parts]).repeat(lengths)
        for place, key in enumerate(("study", "run", "set"))
    }
    empty = [np.empty(0, dtype=np.int8)]
    numbers = {
        "utterance": [np.arange(length, dtype=np.int32) for length in lengths],
        "errors": [part[3] for part in parts],
        "words": [part[4] for part in parts],
    }
    return pd.DataFrame({**names, **{key: np.concatenate(some or empty) for key, some in numbers.items()}})


def _samples(runs: list[_Run]) -> pd.DataFrame:
    found = [(run.study, run.name, *sample) for run in runs for sample in run.samples]
    return pd.DataFrame(found, columns=("study", "run", "reference", "hypothesis"))
