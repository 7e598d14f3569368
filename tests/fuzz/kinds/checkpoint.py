"""Checkpoints: configurations that name code, pickles that run some, other tensors, damaged archives."""

import io
import os
import pickle
import zipfile
from pathlib import Path
from random import Random
from typing import Any

import torch

from ..case import Attempt
from ..fields import nonsense
from ..mutate import bytes_changed, mutated, put
from ..originals import Originals
from ..values import values
from . import packed

FILE = "last.ckpt"
COMMAND = "touch fuzz_canary"
CALLS: list[tuple[Any, ...]] = [
    (os.system, COMMAND),
    (exec, "open('fuzz_canary', 'w').close()"),
    (eval, "__import__('os').system('touch fuzz_canary')"),
    (open, "fuzz_canary", "w"),
    (__import__, "fuzz_evil"),
]
TABLE = values("checkpoint")


class Reduced:
    """Runs something when it is unpickled, if the reader lets it."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self._reduced = function, arguments

    def __reduce__(self) -> Any:
        return self._reduced


def make(random: Random, originals: Originals, folder: Path) -> Attempt:
    """Read a checkpoint that someone made up."""
    (folder / "fuzz_evil.py").write_text("open('fuzz_canary', 'w').close()\n")
    (folder / "mine.py").write_text("class E:\n    pass\n")
    name = random.choice(list(originals.checkpoints))
    path = originals.checkpoints[name]
    ways = [_code, _code, _config, _config, _state, _state, _entries, _bytes, _archive, _pickled]
    content, what, invalid = random.choice(ways)(random, path)
    (folder / FILE).write_bytes(content)
    argv = random.choice([packed.command(random, originals, FILE), ["export", FILE, "--out", "out.qst"]])
    trust = ["--trust", "mine.py"] * (random.random() < 0.2)  # which vouches for no other file
    return Attempt([*argv, *trust], f"{what} ({name})", invalid, named=FILE)


def saved(checkpoint: Any) -> bytes:
    """The bytes of a checkpoint."""
    buffer = io.BytesIO()
    torch.save(checkpoint, buffer)
    return buffer.getvalue()


def loaded(path: Path) -> dict[str, Any]:
    """What it holds."""
    return dict(torch.load(path, map_location="cpu", weights_only=True))


def _code(random: Random, path: Path) -> tuple[bytes, str, bool]:
    """Code named where a part's name belongs."""
    place, code = tuple(random.choice(TABLE["places"]).split(".")), random.choice(TABLE["code"])
    checkpoint = loaded(path)
    if place[0] == "tokenizer":  # the trained one; the configuration's is not used again
        checkpoint["qstudy"]["tokenizer"] = code
    else:
        checkpoint = put(checkpoint, ("qstudy", "config", *place), code)
    used = place != ("data", "make")  # is not made again
    return saved(checkpoint), f"{'.'.join(place)}: {code.get('name', 'class_path')}", used


def _config(random: Random, path: Path) -> tuple[bytes, str, bool]:
    checkpoint = loaded(path)
    config, change = mutated(random, checkpoint["qstudy"]["config"], ("model", "policy", "features", "tokenizer"))
    checkpoint["qstudy"]["config"] = config
    used = change.path[0] != "tokenizer"  # the trained one lies beside the configuration
    return saved(checkpoint), f"config {change}", used and nonsense(change)


def _entries(random: Random, path: Path) -> tuple[bytes, str, bool]:
    """Other entries of the file: ours and Lightning's."""
    checkpoint = loaded(path)
    if random.random() < 0.5:
        checkpoint["qstudy"], change = mutated(random, checkpoint["qstudy"], ("tokenizer",))
        return saved(checkpoint), f"entry {change}", False
    key = random.choice(["qstudy", "state_dict", "global_step"])
    new = random.choice([None, [], {}, "x", -1, float("nan"), 10**30, {"tokenizer": 3}, torch.ones(3), [{}]])
    checkpoint[key] = new
    return saved(checkpoint), f"{key}: {new!r:.20}", key != "global_step" or isinstance(new, str | list | dict)


def _state(random: Random, path: Path) -> tuple[bytes, str, bool]:
    checkpoint = loaded(path)
    state = checkpoint["state_dict"]
    name = random.choice(sorted(key for key in state if key.startswith("model.")))
    tensor = state[name]
    ways = ["dropped", "added", "shape", "empty", "type", "no tensor"]
    how = random.choice(ways + ["not a number"] * 4 * tensor.is_floating_point())
    match how:
        case "dropped":
            del state[name]
        case "added":
            state[f"{name}.zzz"] = torch.ones(2)
        case "shape":
            state[name] = torch.cat([tensor.reshape(-1), tensor.reshape(-1)])
        case "empty":
            state[name] = tensor.new_empty(0)
        case "type":
            state[name] = tensor.to(torch.complex64)
        case "no tensor":
            state[name] = random.choice([None, 3, "x", [1.0]])
        case "not a number":
            value = random.choice([float("nan"), float("inf"), float("-inf")])
            state[name] = tensor.clone()
            state[name].view(-1)[:1] = value
            how += f" ({value})"
    structure = how in ("dropped", "added", "shape", "empty", "no tensor")
    weights = structure or name.rpartition(".")[2].startswith(("weight", "bias"))
    return saved(checkpoint), f"tensor {how}: {name.rpartition('.')[2]}", weights


def _bytes(random: Random, path: Path) -> tuple[bytes, str, bool]:
    content, what = bytes_changed(random, path.read_bytes())
    return content, what, what in ("bytes noise", "bytes empty")  # an archive has room between its members


def _archive(random: Random, path: Path) -> tuple[bytes, str, bool]:
    """A sound archive with a member missing, empty, damaged or huge."""
    how = random.choice(["missing", "empty", "damaged", "huge", "other"])
    buffer = io.BytesIO()
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as new:
        chosen = random.choice([name for name in old.namelist() if "/data" in name])
        for name in old.namelist():
            content = old.read(name)
            if name == chosen:
                if how == "missing":
                    continue
                content = _member(random, how, content)
            new.writestr(name, content)
    what = "data.pkl" if chosen.endswith("pkl") else "tensor"
    return buffer.getvalue(), f"member {how}: {what}", how in ("missing", "empty")


def _member(random: Random, how: str, content: bytes) -> bytes:
    match how:
        case "damaged":
            return bytes_changed(random, content or b"x")[0]
        case "huge":
            return bytes(200 << 20)
        case "other":
            return b"\x80\x02cos\nsystem\n."
    return b""


def _pickled(random: Random, path: Path) -> tuple[bytes, str, bool]:
    """Objects that run code when they are unpickled, in an archive or in a bare pickle."""
    evil = Reduced(*random.choice(CALLS))
    checkpoint = loaded(path)
    key = random.choice(["qstudy", "global_step", "hyper_parameters", "state_dict"])
    checkpoint[key] = evil
    content: Any = random.choice([checkpoint, evil, [evil]])
    bare = random.random() < 0.4
    return pickle.dumps(content) if bare else saved(content), f"pickle {'bare' if bare else key}", True
