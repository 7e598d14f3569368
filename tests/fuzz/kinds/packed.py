"""Packed models: damaged bytes, and headers and tensors of another writer whose hashes are right."""

import hashlib
import json
import struct
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import safetensors.numpy

from qstudy.files import content_hash

from ..case import Attempt
from ..mutate import Change, bytes_changed, mutated
from ..originals import Originals

Tensors = dict[str, np.ndarray]
FILE = "model.qst"
UNPRICED = ("tensor", "header model", "header features", "header tokenizer", "header arithmetic", "header settings")
"""What a latency does not depend on; who prices a model need not read it."""
PREFER = ("model", "features", "tokenizer", "bit_map", "shapes", "arithmetic", "settings")


def make(random: Random, originals: Originals, folder: Path) -> Attempt:
    """Transcribe, evaluate or simulate with a model that is not whole."""
    name = random.choice(list(originals.models))
    content = originals.models[name]
    make_one = random.choice([_bytes, _header, _header, _header, _tensors, _tensors, _hashes, _text])
    changed, what, invalid = make_one(random, content)
    (folder / FILE).write_bytes(changed)
    argv = command(random, originals, FILE)
    invalid &= changed != content and not (argv[0] == "simulate" and what.startswith(UNPRICED))
    return Attempt(argv, f"{what} ({name})", invalid, named=FILE)


def command(random: Random, originals: Originals, model: str) -> list[str]:
    """Something that reads a model."""
    sound, manifest = str(random.choice(originals.sounds)), str(originals.corpus / "test.jsonl")
    return random.choice(
        [
            ["transcribe", model, sound],
            ["transcribe", model, sound],
            ["transcribe", model, sound, "--stream"],
            ["evaluate", model, "--manifest", manifest, "--json"],
            ["simulate", model, "--json"],
            ["simulate", model],
        ]
    )


def read(content: bytes) -> tuple[dict[str, Any], Tensors]:
    """Header and tensors of a packed model."""
    length = struct.unpack("<Q", content[:8])[0]
    return json.loads(json.loads(content[8 : 8 + length])["__metadata__"]["qstudy"]), safetensors.numpy.load(content)


def written(header: Any, tensors: Tensors) -> bytes:
    """A packed model whose hashes are right, whatever it holds."""
    if isinstance(header, dict):
        digest = hashlib.sha256()
        for name, tensor in sorted(tensors.items()):
            digest.update(name.encode() + tensor.tobytes())
        header = {key: value for key, value in header.items() if key != "header_sha256"}
        header = {**header, "sha256": digest.hexdigest()}
        header["header_sha256"] = content_hash(header)
    return safetensors.numpy.save(tensors, {"qstudy": json.dumps(header)})


def _bytes(random: Random, content: bytes) -> tuple[bytes, str, bool]:
    changed, what = bytes_changed(random, content)
    return changed, what, True


def _text(random: Random, content: bytes) -> tuple[bytes, str, bool]:
    """Headers that are hard to parse."""
    _, tensors = read(content)
    deep = ["[" * 100_000, '{"a":' * 50_000, "1" * 5000]
    text = random.choice([*deep, "", "[]", "null", "{}", "NaN", '"x"', '{"format": 1}'])
    return safetensors.numpy.save(tensors, {"qstudy": text}), f"header {text[:10]}", True


def _hashes(random: Random, content: bytes) -> tuple[bytes, str, bool]:
    """One changed value without new hashes, or hashes that are missing."""
    header, tensors = read(content)
    which = random.choice(["sha256", "header_sha256", "format", "both hashes"])
    how = random.choice(["removed", "changed"])
    for key in ("sha256", "header_sha256") if which == "both hashes" else (which,):
        header.pop(key) if how == "removed" else header.update({key: random.choice([0, None, "x", [], "0" * 64])})
    return safetensors.numpy.save(tensors, {"qstudy": json.dumps(header)}), f"{which} {how}", True


def _header(random: Random, content: bytes) -> tuple[bytes, str, bool]:
    header, tensors = read(content)
    header, change = mutated(random, header, PREFER)
    return written(header, tensors), f"header {change}", _nonsense(change)


def _nonsense(change: Change) -> bool:
    """Whether no reader may accept a header with this change."""
    top, last = change.path[0], change.path[-1]
    if top in ("sha256", "header_sha256") or top == "policy":  # written anew; for people to read
        return False
    if top not in PREFER or len(change.path) == 1:
        return top in (*PREFER, "format") and top != "settings" and change.how != "unknown"
    if change.how == "removed":
        return last in ("name", "kind", "alphabet") or (top == "bit_map" and len(change.path) == 2)
    if change.how == "number":
        return last not in _FREE or not isinstance(change.new, int) or not 0 <= change.new < 10**6
    return change.how in ("type", "name", "unknown")


_FREE = (
    "dropout",
    "running_mean",
    "reduction",
    "tail_ms",
    "low_hz",
    "preemphasis",
    "every_ms",
    "per_label",
    "share",
    "frames",
    "context",
    "heads",
    "lookups",
    "group",
    "accumulator",
    "hop_ms",
    "window_ms",
)


def _tensors(random: Random, content: bytes) -> tuple[bytes, str, bool]:
    """Tensors of another number, type, shape or with values that are no numbers."""
    header, tensors = read(content)
    name = random.choice(sorted(tensors))
    tensor, kind = tensors[name], name.rpartition(".")[2]
    floats = tensor.dtype == np.float32
    ways = ["dropped", "added", "renamed", "shorter", "longer", "type", "shape", "empty", "scalar"]
    how = random.choice(ways + ["not a number"] * 4 * floats)
    match how:
        case "dropped":
            del tensors[name]
        case "added":
            prefix = random.choice([name.rpartition(".")[0], "zzz", "encoder", name])
            suffix = random.choice(["zzz", "bias", "7.codes", "0.float", "activation"])
            tensors[f"{prefix}.{suffix}"] = np.ones(3, np.float32)
        case "renamed":
            tensors[random.choice(["zzz", name + ".x", ""])] = tensors.pop(name)
        case "shorter":
            tensors[name] = tensor[:-1] if tensor.ndim else tensor[None][:0]
        case "longer":
            tensors[name] = np.concatenate([np.atleast_1d(tensor)] * 2)
        case "type":
            tensors[name] = tensor.astype(random.choice([np.float64, np.int32, np.int8, np.float16, np.bool_]))
        case "shape":
            tensors[name] = tensor[None]
        case "empty":
            tensors[name] = np.zeros(random.choice([(0,), (0, 5), (1, 0)]), tensor.dtype)
        case "scalar":
            tensors[name] = np.zeros((), tensor.dtype)
        case "not a number":
            value = random.choice([np.nan, np.inf, -np.inf])
            tensors[name] = tensor.copy()
            tensors[name].reshape(-1)[random.randrange(max(tensor.size, 1)) :][:1] = value
            how += f" ({value})"
    return written(header, tensors), f"tensor {how}: {kind}", True
