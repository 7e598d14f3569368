"""Checkpoints that describe themselves: what they say, and what is read from them."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from qstudy.data.manifest import identity
from qstudy.data.tokenizer import Tokenizer, tokenizer_from_dict
from qstudy.errors import UserError, naming
from qstudy.fields import checked, with_order
from qstudy.model import RNNT
from qstudy.model.shapes_only import shapes_only
from qstudy.named import asked_by
from qstudy.quant.packed.model import PackedModel, pack_model
from qstudy.quant.policies import QuantPolicy, build_policy
from qstudy.quant.policies.switchable import Switchable
from qstudy.quant.state import free_buffers
from qstudy.recognize.recognizer import Recognizer, describe
from qstudy.training.checkpoint_file import read_checkpoint
from qstudy.training.config import RunConfig, config_from_dict, to_dict, without_neutral

CHECKPOINT_FILE = "last.ckpt"
KEY = "qstudy"  # our entry in Lightning's checkpoint
KIND = "kind"  # in it: of what else than a recognizer the checkpoint is
DATA = "data.train"  # in it: what the training manifest held


def description(config: RunConfig, tokenizer: Tokenizer) -> dict[str, Any]:
    """What a transducer's checkpoint says of itself."""
    return {
        "config": to_dict(config),
        "tokenizer": tokenizer.to_dict(),
        "start": config.start_identity,
        DATA: identity(Path(config.data.train)),
    }


def steps_done(path: Path, config: RunConfig) -> int:
    """Steps that a run's checkpoint has behind it.

    Raises:
        UserError: it is damaged, or of a run that another configuration made.
    """
    checkpoint, saved = _read(path)
    schedules = sorted(config.schedules)
    now, then = (without_neutral(to_dict(each), schedules) for each in (config, saved))
    now |= {"start": config.start_identity, DATA: identity(Path(config.data.train))}
    then |= {"start": checkpoint[KEY].get("start", saved.start), DATA: checkpoint[KEY].get(DATA)}
    fields = ("features", "tokenizer", "model", "augment", "policy", "start", "seed", *schedules, DATA)
    require_same(path, {field: now[field] for field in fields}, then)
    return int(checkpoint["global_step"])


def require_same(path: Path, now: Mapping[str, Any], then: Mapping[str, Any]) -> None:
    """Raise UserError unless a checkpoint is of a run in which these were the same; they are named."""
    if changed := [field for field in now if with_order(now[field]) != with_order(then.get(field))]:
        raise UserError(
            f"{path} is of a run with another {', '.join(changed)}; remove {path.parent} or choose another folder."
        )


def require_no_checkpoint(folder: Path) -> None:
    """Raise UserError if a run that does not train would leave its model beside another run's checkpoint."""
    if (folder / CHECKPOINT_FILE).exists():
        raise UserError(f"{folder} holds another run ({CHECKPOINT_FILE}); choose another folder, or remove it.")


def recognizer_from_checkpoint(path: Path) -> Recognizer:
    """The training model as it stood at a checkpoint."""
    model, _, config, tokenizer = load_checkpoint(path)
    return Recognizer(model, config.features, tokenizer)


def pack_checkpoint(path: Path, allocation: Mapping[str, Any] | None = None) -> PackedModel:
    """What the device would get from a checkpoint.

    Args:
        path: the checkpoint.
        allocation: of one of the policy `switchable`, the policy whose widths it is to have; None: the widest.

    Raises:
        UserError: the checkpoint is damaged, of another policy, or was not trained in these widths.
    """
    model, policy, config, tokenizer = load_checkpoint(path)
    if allocation is not None and not isinstance(policy, Switchable):
        raise UserError(f"{path}: its widths are those of its training; only those of `switchable` can be chosen.")
    return pack_at(model, policy, allocation, config, tokenizer)


def pack_at(
    model: RNNT, policy: QuantPolicy, allocation: Mapping[str, Any] | None, config: RunConfig, tokenizer: Tokenizer
) -> PackedModel:
    """What the device would get of a loaded checkpoint; `allocation` as `pack_checkpoint`, whose policy it then is."""
    shapes = model.shapes()
    bit_map = (policy if allocation is None else build_policy(allocation)).bit_map(shapes)
    policy.switch_(model, bit_map)
    header = describe(config.model, config.features, tokenizer, dict(allocation or config.policy))
    return pack_model(model, bit_map, shapes, header)


def tokenizer_from_checkpoint(path: Path) -> Tokenizer:
    """The labels of a recognizer's checkpoint."""
    checkpoint, _ = _read(path)
    with naming(path):
        return tokenizer_from_dict(checkpoint[KEY].get("tokenizer"))


def read_description(path: Path) -> dict[str, Any]:
    """What any checkpoint says of itself.

    Raises:
        UserError: the file is missing, damaged, or not ours.
    """
    with naming(path):
        about: dict[str, Any] = checked(dict[str, Any], read_checkpoint(path).get(KEY), KEY)
    return about


def load_checkpoint(path: Path) -> tuple[RNNT, QuantPolicy, RunConfig, Tokenizer]:
    """Read a run's checkpoint; only tensors and plain values are unpickled.

    Raises:
        UserError: the file is missing, damaged, or no checkpoint of a run.
    """
    checkpoint, config = _read(path)
    with asked_by(path), naming(path):
        tokenizer = tokenizer_from_dict(checkpoint[KEY].get("tokenizer"))
        build = partial(RNNT, config.model, config.features, tokenizer.size)
        _require_fit(build, checkpoint["state_dict"])
        model = build()
        policy = build_policy(config.policy)
        policy.total_steps = config.schedule.steps
        policy.prepare(model)
        _fill(model, checkpoint["state_dict"])
        model.eval()
        policy.project_(model, checkpoint["global_step"])
    return model, policy, config, tokenizer


def _require_fit(build: Callable[[], RNNT], state: Mapping[str, Tensor]) -> None:
    """
    Raises:
        UserError: the weights are of another model than the configuration; nothing of its size was allocated.
    """
    with shapes_only():
        expected = {f"model.{name}": (value.shape, value.dtype) for name, value in build().state_dict().items()}
    for name, kind in expected.items():
        if name not in state or (state[name].shape, state[name].dtype) != kind:
            raise UserError(f"its weight {name} is not that of the model that it describes; train again.")


def _fill(model: RNNT, state: dict[str, Any]) -> None:
    """
    Raises:
        UserError: tensors are missing, too many, of another size or not finite.
    """
    prefix = "model."
    own = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
    free = free_buffers(model)
    numbers = [name for name, value in own.items() if value.is_floating_point() and name not in free]
    if broken := [name for name in numbers if not own[name].isfinite().all()]:
        raise UserError(f"{broken[0]} holds a number that is not finite; train again with a lower learning rate.")
    try:
        model.load_state_dict(own)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"its weights are not those of the model that it describes ({reason}); train again.") from error


def _read(path: Path) -> tuple[dict[str, Any], RunConfig]:
    """A run's checkpoint and its configuration."""
    checkpoint = read_checkpoint(path)
    with naming(path):
        about = checked(dict[str, Any], checkpoint.get(KEY), KEY)
        if KIND in about:
            raise UserError(f"this is a checkpoint of a {about[KIND]}, not of a recognizer; name another.")
        step, state = checkpoint.get("global_step"), checkpoint.get("state_dict")
        if not (isinstance(step, int) and isinstance(state, dict)):
            raise UserError("its step or its weights are missing; train again.")
        if not all(isinstance(name, str) and isinstance(value, Tensor) for name, value in state.items()):
            raise UserError("its weights contain entries that are not tensors; train again.")
        return checkpoint, config_from_dict(checked(dict[str, Any], about.get("config"), f"{KEY}.config"))
