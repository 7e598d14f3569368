"""From a record's JSON to a `Run`: unknown fields are ignored, missing ones accepted, wrong ones named."""

import re
from collections.abc import Mapping
from typing import Any

from analysis.fields import amount, count, label, mapping, mappings, number, shown, text
from analysis.records import FLOAT, Edits, Layer, Run, Scores, Width
from qstudy.errors import UserError
from qstudy.files import safe_name
from qstudy.secrets import mask_urls

STATES = ("complete", "pruned", "failed")
UTTERANCES = 100_000  # of a set: what a bootstrap takes seconds for
SAMPLE = 2_000  # characters of a transcript that are kept
EDITS = ("substitutions", "insertions", "deletions")
_SMALL = re.compile("[0-9]{1,6}")


def parse_run(record: Any) -> Run:
    """Read one record.

    Raises:
        ValueError: a field that every record has is missing, or a field has the wrong type.
    """
    record = mapping(record, "the record")
    if missing := [key for key in ("run", "policy", "state") if not isinstance(record.get(key), str)]:
        raise ValueError(f"the field {missing[0]!r} is missing or not text")
    if record["state"] not in STATES:
        raise ValueError(f"state is {shown(record['state'])}, not one of {', '.join(STATES)}")
    _check_baseline(record.get("baseline"))
    _check_rest(record)
    if "command" in record:  # older versions left some passwords in it
        record["command"] = mask_urls(text(record["command"], "command"))
    latency, budgets = mappings(record.get("latency"), "latency"), mapping(record.get("budgets"), "budgets")
    step = record.get("step_ms")
    return Run(
        name=label(record["run"], "run"),
        policy=label(record["policy"], "policy"),
        state=record["state"],
        study=_study(record.get("study")),
        trial=count(record.get("trial"), "trial"),
        reason=text(record.get("reason"), "reason"),
        widths={name: _width(value, name) for name, value in mappings(record.get("bit_map"), "bit_map").items()},
        layers={name: _layer(value, name) for name, value in mappings(record.get("layers"), "layers").items()},
        scores=parse_scores(record.get("metrics")),
        edits={name: _edits(value, name) for name, value in mappings(record.get("utterances"), "utterances").items()},
        size_bytes=amount(record.get("size_bytes"), "size_bytes"),
        latency_ms=_column(latency, "latency_ms"),
        rtf=_column(latency, "rtf"),
        size_budget=amount(budgets.get("size_bytes"), "budgets.size_bytes"),
        latency_budgets=_latency_budgets(budgets.get("latency_ms")),
        step_ms=amount(step.get("median") if isinstance(step, Mapping) else step, "step_ms"),
        samples=_samples(record.get("samples")),
        raw=record,
    )


def told_baseline(parent: dict[str, Any], metrics: Any, bit_map: Any) -> Run:
    """The float baseline as a run that started from it describes it.

    Raises:
        ValueError: as `parse_run`.
    """
    described = {key: parent.get(key) for key in ("utterances", "size_bytes", "latency")}
    name = label(parent.get("id"), "baseline.id") or "float baseline"
    return parse_run(
        {"run": name, "policy": "float", "state": "complete", "metrics": metrics, "bit_map": bit_map, **described}
    )


def _check_baseline(value: Any) -> None:
    baseline = mapping(value, "baseline")
    own = {key: baseline.get(key) for key in ("wer", "wer_low", "wer_high")}
    parse_scores({"baseline": own, **mapping(baseline.get("metrics"), "baseline.metrics")})
    if baseline:
        try:
            told_baseline(baseline, baseline.get("metrics"), None)
        except ValueError as error:
            raise ValueError(f"baseline: {error}") from error


def _check_rest(record: dict[str, Any]) -> None:
    """What tables take from the record as it stands there."""
    for name in ("file_bytes", "training_model_wer", "train_seconds"):
        amount(record.get(name), name)
    for name in ("seed", "steps"):
        count(record.get(name), name)
    for name in ("commit", "created"):
        text(record.get(name), name)
    for name, key in (("step_ms", "p95"), ("loss", "last")):
        if isinstance(inside := record.get(name), Mapping):
            number(inside.get(key), f"{name}.{key}")
    for name, version in mapping(record.get("versions"), "versions").items():
        label(version, f"versions.{name}")
    mapping(mapping(record.get("config"), "config").get("policy"), "config.policy")
    notes = record.get("notes")
    for name, choice in mappings(notes.get("choices") if isinstance(notes, Mapping) else None, "notes.choices").items():
        label(choice.get("quantizer"), f"notes.choices.{name}.quantizer")
        for key, error in mapping(choice.get("errors"), f"notes.choices.{name}.errors").items():
            amount(error, f"notes.choices.{name}.errors.{key}")


def _study(value: Any) -> str:
    """A study's name, which begins the names of files."""
    name = text(value, "study")
    try:
        return safe_name(name, "study") if name else ""
    except UserError as error:
        raise ValueError(str(error).rstrip(".")) from error


def parse_scores(metrics: Any) -> dict[str, Scores]:
    """Read `{set: {wer, wer_low, wer_high, ...}}`; sets without a word error rate are left out."""
    scores = {}
    for split, values in mappings(metrics, "metrics").items():
        where = f"metrics.{split}"
        rates = {key: amount(values.get(key), f"{where}.{key}") for key in ("wer", "wer_low", "wer_high", "cer", "rtf")}
        counts = {key: count(values.get(key), f"{where}.{key}") for key in ("words", "utterances", *EDITS)}
        if rates["wer"] is not None:
            scores[split] = Scores(
                rates["wer"], rates["wer_low"], rates["wer_high"], rates["cer"], counts["words"], counts["utterances"]
            )
    return scores


def _column(latency: dict[str, dict[str, Any]], key: str) -> dict[str, float]:
    found = {name: amount(report.get(key), f"latency.{name}.{key}") for name, report in latency.items()}
    return {name: value for name, value in found.items() if value is not None}


def _edits(value: dict[str, Any], name: str) -> Edits:
    """Read `{errors: "0 2 1", words: "5 4 6"}`."""
    errors, words = (text(value.get(key), f"utterances.{name}.{key}").split() for key in ("errors", "words"))
    if not errors or len(errors) > UTTERANCES or not all(map(_SMALL.fullmatch, errors + words)):
        raise ValueError(
            f"utterances.{name} needs `errors` and `words`, whole numbers below a million by utterance, of at most "
            f"{UTTERANCES:,} utterances"
        )
    if len(errors) != len(words):
        raise ValueError(f"utterances.{name} has {len(errors)} errors, but {len(words)} words")
    return Edits(tuple(map(int, errors)), tuple(map(int, words)))


def _width(value: dict[str, Any], name: str) -> Width:
    weight, activation = (_bits(value.get(key), f"bit_map.{name}.{key}") for key in ("weight", "activation"))
    kinds = ("quantizer", "granularity", "placement")
    words = {key: label(value[key], f"bit_map.{name}.{key}") for key in kinds if value.get(key)}
    return Width(weight, activation, **words)


def _bits(value: Any, name: str) -> int:
    bits = count(value, name)
    if bits is not None and not 1 <= bits <= FLOAT:
        raise ValueError(f"{name} is {bits}, not a width of 1 to {FLOAT} bits")
    return bits or FLOAT


def _layer(value: dict[str, Any], name: str) -> Layer:
    parameters = count(value.get("parameters"), f"layers.{name}.parameters")
    return Layer(label(value.get("kind"), f"layers.{name}.kind"), parameters or 0)


def _latency_budgets(value: Any) -> dict[str, float]:
    fields = mapping(value, "budgets.latency_ms")
    limit = amount(fields.get("limit"), "budgets.latency_ms.limit")
    accelerator = label(fields.get("accelerator"), "budgets.latency_ms.accelerator")
    return {} if limit is None else {accelerator: limit}


def _samples(value: Any) -> tuple[tuple[str, str], ...]:
    if value is None:
        return ()
    if not isinstance(value, list):
        raise ValueError(f"samples is {shown(value)}, not a list")
    pairs = [mapping(sample, "samples") for sample in value]
    return tuple((_spoken(pair, "reference"), _spoken(pair, "hypothesis")) for pair in pairs)


def _spoken(sample: dict[str, Any], key: str) -> str:
    spoken = text(sample.get(key), f"samples.{key}")
    return spoken if len(spoken) <= SAMPLE else f"{spoken[:SAMPLE]} ..."
