"""From a record's JSON to a `Run`: unknown fields are ignored, missing ones accepted, wrong ones named."""

import math
from collections.abc import Mapping
from typing import Any

from analysis.records import FLOAT, Edits, Layer, Run, Scores, Width


def number(value: Any, name: str) -> float | None:
    """Return `value` as a float; None where it is absent, NaN or infinite.

    Raises:
        ValueError: it is something else.
    """
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{name} is {value!r}, not a number")
    return float(value) if math.isfinite(value) else None


def mapping(value: Any, name: str) -> dict[str, Any]:
    """Return `value` as a dictionary; an empty one where it is absent.

    Raises:
        ValueError: it is something else.
    """
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise ValueError(f"{name} is {value!r}, not a mapping")
    return dict(value)


def parse_run(record: Any) -> Run:
    """Read one record.

    Raises:
        ValueError: a field that every record has is missing, or a field has the wrong type.
    """
    record = mapping(record, "the record")
    if missing := [key for key in ("run", "policy", "state") if not isinstance(record.get(key), str)]:
        raise ValueError(f"the field {missing[0]!r} is missing or not text")
    baseline = mapping(record.get("baseline"), "baseline")
    own = {key: baseline.get(key) for key in ("wer", "wer_low", "wer_high")}
    parse_scores({"baseline": own, **mapping(baseline.get("metrics"), "baseline.metrics")})  # is it readable?
    number(baseline.get("size_bytes"), "baseline.size_bytes")
    latency = _inner(record.get("latency"), "latency")
    budgets = mapping(record.get("budgets"), "budgets")
    trial = number(record.get("trial"), "trial")
    step = record.get("step_ms")
    return Run(
        name=record["run"],
        policy=record["policy"],
        state=record["state"],
        study=str(record.get("study") or ""),
        trial=None if trial is None else int(trial),
        reason=str(record.get("reason") or ""),
        widths={name: _width(value, name) for name, value in _inner(record.get("bit_map"), "bit_map").items()},
        layers={name: _layer(value, name) for name, value in _inner(record.get("layers"), "layers").items()},
        scores=parse_scores(record.get("metrics")),
        edits={name: _edits(value, name) for name, value in _inner(record.get("utterances"), "utterances").items()},
        size_bytes=number(record.get("size_bytes"), "size_bytes"),
        latency_ms=_column(latency, "latency_ms"),
        rtf=_column(latency, "rtf"),
        size_budget=number(budgets.get("size_bytes"), "budgets.size_bytes"),
        latency_budgets=_latency_budgets(budgets.get("latency_ms")),
        step_ms=number(step.get("median") if isinstance(step, Mapping) else step, "step_ms"),
        samples=_samples(record.get("samples")),
        raw=record,
    )


def parse_scores(metrics: Any) -> dict[str, Scores]:
    """Read `{set: {wer, wer_low, wer_high, ...}}`; sets without a word error rate are left out."""
    scores = {}
    for split, values in _inner(metrics, "metrics").items():
        numbers = {key: number(values.get(key), f"metrics.{split}.{key}")
                   for key in ("wer", "wer_low", "wer_high", "cer", "words", "utterances")}  # fmt: skip
        if numbers["wer"] is not None:
            scores[split] = Scores(
                numbers["wer"], numbers["wer_low"], numbers["wer_high"], numbers["cer"],
                _whole(numbers["words"]), _whole(numbers["utterances"]),
            )  # fmt: skip
    return scores


def _inner(value: Any, name: str) -> dict[str, dict[str, Any]]:
    return {key: mapping(inner, f"{name}.{key}") for key, inner in mapping(value, name).items()}


def _whole(value: float | None) -> int | None:
    return None if value is None else int(value)


def _column(latency: dict[str, dict[str, Any]], key: str) -> dict[str, float]:
    found = {name: number(report.get(key), f"latency.{name}.{key}") for name, report in latency.items()}
    return {name: value for name, value in found.items() if value is not None}


def _edits(value: dict[str, Any], name: str) -> Edits:
    """Read `{errors: "0 2 1", words: "5 4 6"}`."""
    try:
        errors, words = (tuple(map(int, str(value[key]).split())) for key in ("errors", "words"))
    except (KeyError, ValueError) as error:
        raise ValueError(
            f"utterances.{name} needs `errors` and `words`, whole numbers by utterance ({error})"
        ) from error
    if len(errors) != len(words):
        raise ValueError(f"utterances.{name} has {len(errors)} errors, but {len(words)} words")
    return Edits(errors, words)


def _width(value: dict[str, Any], name: str) -> Width:
    weight, activation = (number(value.get(key), f"bit_map.{name}.{key}") for key in ("weight", "activation"))
    text = {key: str(value[key]) for key in ("grid", "granularity", "placement") if value.get(key)}
    return Width(_whole(weight) or FLOAT, _whole(activation) or FLOAT, **text)


def _layer(value: dict[str, Any], name: str) -> Layer:
    return Layer(str(value.get("kind") or ""), int(number(value.get("parameters"), f"layers.{name}.parameters") or 0))


def _latency_budgets(value: Any) -> dict[str, float]:
    if value is None:
        return {}
    fields = mapping(value, "budgets.latency_ms")
    limit = number(fields.get("limit"), "budgets.latency_ms.limit")
    return {} if limit is None else {str(fields.get("accelerator") or ""): limit}


def _samples(value: Any) -> tuple[tuple[str, str], ...]:
    if value is None:
        return ()
    if not isinstance(value, list):
        raise ValueError(f"samples is {value!r}, not a list")
    pairs = [mapping(sample, "samples") for sample in value]
    return tuple((str(pair.get("reference") or ""), str(pair.get("hypothesis") or "")) for pair in pairs)
