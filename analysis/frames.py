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
    record                  the whole record, JSON in one line

`load` gives a `Frames`: the same `runs`, with three more frames beside it.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analysis.bits import describe, label, means, uniform
from analysis.configs import flat, setting, varying
from analysis.records import Problem, Read, read_folder
from analysis.text import slug
from analysis.variants import variants
from qstudy.errors import UserError
from qstudy.training.record import Record, parse_record

COUNTS = ("substitutions", "insertions", "deletions", "words", "utterances")


@dataclass(frozen=True)
class Frames:
    """Everything that records tell."""

    runs: pd.DataFrame
    """One row per run (see this file's head): the baseline first, then by trial."""
    layers: pd.DataFrame
    """One row per run and layer: study, run, layer, kind, parameters, bytes; and weight, activation (bits), grid,
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
    rows = sorted([*_from_trials(found), *found], key=lambda run: (studies.index(run.study), *_place(run)))
    return Frames(_runs(rows), _layers(rows), _errors(rows), _samples(rows), tuple(problems))


@dataclass(frozen=True)
class _Run:
    """A record, and where it belongs."""

    study: str
    record: Record
    text: str = ""
    """Empty: there is no such record, others tell of it."""

    @property
    def is_baseline(self) -> bool:
        return self.record.policy == "float" and self.record.baseline is None


def _folder(folder: Path) -> tuple[list[_Run], list[Problem]]:
    """The runs of one folder, those without a study in its only one; and what cannot be used."""
    read = list(read_folder(folder))
    problems = [one for one in read if isinstance(one, Problem)]
    sound = [one for one in read if isinstance(one, Read)]
    names = dict.fromkeys(one.record.study for one in sound if one.record.study)
    default = next(iter(names)) if len(names) == 1 else slug(folder.resolve().name)
    runs: dict[tuple[str, str], _Run] = {}
    for one in sound:
        run = _Run(one.record.study or default, one.record, one.text)
        if runs.setdefault((run.study, one.record.run), run) is not run:
            problems.append(Problem(one.source, f"there is another run {one.record.run} of the study {run.study}"))
    return list(runs.values()), problems


def _place(run: _Run) -> tuple[Any, ...]:
    """In its study: the baseline first, then by trial."""
    trial = run.record.trial
    return not run.is_baseline, trial is None, trial or 0, run.record.run


def _from_trials(runs: list[_Run]) -> list[_Run]:
    """The baselines that have no record of their own, as the runs that started from them describe them."""
    own = {(run.study, run.record.run) for run in runs}
    parents: dict[tuple[str, str], _Run] = {}
    for run in runs:
        parent = run.record.baseline
        key = run.study, parent.get("id", "") if parent else ""
        if parent and run.record.state == "complete" and key not in own and key not in parents:
            parents[key] = _Run(run.study, _described(run.record, parent))
    return list(parents.values())


def _described(run: Record, parent: Any) -> Record:
    told = {name: parent.get(name) for name in ("metrics", "utterances", "size_bytes", "latency")}
    name = parent.get("id") or "float baseline"
    bit_map = {name: {"weight": 32, "activation": 32} for name in run.bit_map or {}}
    return parse_record(
        {"run": name, "policy": "float", "state": "complete", "seed": run.seed, "layers": run.layers,
         "bit_map": bit_map, **told}
    )  # fmt: skip


def _runs(rows: list[_Run]) -> pd.DataFrame:
    configs = [flat(run.record.config) for run in rows]
    fields = varying(configs)
    frame = pd.DataFrame.from_records([_row(run) for run in rows])
    if rows:
        frame["variant"] = _variants(rows)
        frame["method"] = (frame.policy + " " + frame.variant).str.strip()
        floats = frame.is_baseline.map({True: "float baseline", False: "float control"})
        frame["title"] = frame.method.where(frame.policy != "float", floats)
    settings = pd.DataFrame({f"config.{name}": pd.Series([config.get(name) for config in configs], dtype=object)
                             for name in fields}, index=frame.index)  # fmt: skip
    texts = pd.Series([run.text for run in rows], index=frame.index, dtype=object, name="record")
    return pd.concat([frame, settings, texts], axis=1)


def _variants(rows: list[_Run]) -> list[str]:
    found: dict[int, str] = {}
    for study in dict.fromkeys(run.study for run in rows):
        places = [place for place, run in enumerate(rows) if run.study == study]
        policies = [(rows[place].record.policy, (rows[place].record.config or {}).get("policy") or {})
                    for place in places]  # fmt: skip
        found |= dict(zip(places, variants(policies), strict=True))
    return [found[place] for place in range(len(rows))]


def _row(run: _Run) -> dict[str, Any]:
    record = run.record
    widths: Any = record.bit_map or {}
    layers: Any = record.layers or {}
    step, loss, reason = record.step_ms or {}, record.loss or {}, record.reason or ""
    weight_bits, activation_bits = uniform(widths, layers) or means(widths, layers)
    return {
        "study": run.study,
        "run": record.run,
        "trial": _number(record.trial),
        "state": record.state,
        "reason": reason,
        "policy": record.policy,
        "is_baseline": run.is_baseline,
        "from_trials": not run.text,
        "baseline": (record.baseline or {}).get("id") or "",
        "over_budget": record.state == "pruned" and reason.startswith("over budget"),
        "setting": setting(record),
        "seed": _number(record.seed),
        "steps": _number(record.steps),
        "bits": "float" if record.policy == "float" and not widths else describe(widths, layers),
        "label": label(widths, layers),
        "uniform": uniform(widths, layers) is not None,
        "weight_bits": _number(weight_bits),
        "activation_bits": _number(activation_bits),
        "size_bytes": _number(record.size_bytes),
        "file_bytes": _number(record.file_bytes),
        "parameters": sum(layer.get("parameters") or 0 for layer in layers.values()),
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
    return {f"{key}.{name}": _number(latency.get(key))
            for name, latency in (record.latency or {}).items() for key in ("latency_ms", "rtf")}  # fmt: skip


def _budgets(record: Record) -> dict[str, float]:
    budgets = record.budgets or {}
    latency = budgets.get("latency_ms") or {}
    limited = {f"budget_ms.{latency.get('accelerator', '')}": _number(latency.get("limit"))} if latency else {}
    return {"size_budget": _number(budgets.get("size_bytes")), **limited}


def _number(value: Any) -> float:
    """NaN for None."""
    return np.nan if value is None else float(value)


def _layers(rows: list[_Run]) -> pd.DataFrame:
    found = [
        {"study": run.study, "run": run.record.run, "layer": name, **_layer(run.record, name)}
        for run in rows for name in dict.fromkeys([*(run.record.layers or {}), *(run.record.bit_map or {})])
    ]  # fmt: skip
    columns = ("study", "run", "layer", "kind", "parameters", "bytes", "weight", "activation", "grid", "granularity",
               "placement")  # fmt: skip
    return pd.DataFrame(found, columns=columns)


def _layer(record: Record, name: str) -> dict[str, Any]:
    layer: Any = (record.layers or {}).get(name) or {}
    bits: Any = (record.bit_map or {}).get(name)
    if bits is None:
        return dict(layer)
    defaults = {"grid": "uniform", "granularity": "channel", "placement": "accelerator"}
    widths = {key: bits.get(key) or 32 for key in ("weight", "activation")}
    return {**layer, **widths, **{key: bits.get(key) or usual for key, usual in defaults.items()}}


def _errors(rows: list[_Run]) -> pd.DataFrame:
    counted = list(_counted(rows))
    lengths = [len(errors) for *_, errors, _ in counted]
    names = {key: pd.Categorical([one[place] for one in counted]).repeat(lengths)
             for place, key in enumerate(("study", "run", "set"))}  # fmt: skip
    numbers = {
        "utterance": [np.arange(length, dtype=np.int32) for length in lengths],
        "errors": [one[3] for one in counted],
        "words": [one[4] for one in counted],
    }
    empty = [np.empty(0, dtype=np.int32)]
    return pd.DataFrame({**names, **{key: np.concatenate(parts or empty) for key, parts in numbers.items()}})


def _counted(rows: Iterable[_Run]) -> Iterator[tuple[str, str, str, np.ndarray, np.ndarray]]:
    """(study, run, set, errors, words); int32."""
    for run in rows:
        for name, edits in (run.record.utterances or {}).items():
            errors, words = (np.array(edits[key].split(), dtype=np.int32) for key in ("errors", "words"))
            yield run.study, run.record.run, name, errors, words


def _samples(rows: list[_Run]) -> pd.DataFrame:
    found = [(run.study, run.record.run, sample.get("reference", ""), sample.get("hypothesis", ""))
             for run in rows for sample in run.record.samples or []]  # fmt: skip
    return pd.DataFrame(found, columns=("study", "run", "reference", "hypothesis"))
