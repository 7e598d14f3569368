"""One way to choose a part in YAML: `{name: fake_qat, option: value}`; a dotted name is a class in the user's file."""

import importlib
import inspect
import os
import sys
from collections.abc import Callable, Mapping
from typing import Any

from qstudy.errors import UserError


def build(config: Mapping[str, Any], known: Mapping[str, Callable[..., Any]], what: str, *given: Any) -> Any:
    """Call the part that `config["name"]` names with the other entries as its options.

    Args:
        config: e.g. `{"name": "lstm", "hidden": 256}`.
        known: short names; any other name must be an import path such as `my_policy.MyPolicy`.
        what: the field that the config stands in, for error messages.
        given: positional arguments of the part that do not come from the configuration.

    Raises:
        UserError: no or unknown name, unknown or missing option.
    """
    options = dict(config)
    name = options.pop("name", None)
    part = known.get(name) if isinstance(name, str) else None
    if part is None:
        part = _imported(name, known, what)
    signature = inspect.signature(part)
    try:
        signature.bind(*given, **options)
    except TypeError as error:
        fields = [p for p in signature.parameters if p not in ("self", "args")][len(given) :]
        raise UserError(f"{what}: {name!r}: {error}; its options are {', '.join(fields)}.") from error
    return part(*given, **options)


def _imported(name: Any, known: Mapping[str, Any], what: str) -> Callable[..., Any]:
    choices = f"give one of {', '.join(known)}, or the import path of a class (file.Class)"
    if not isinstance(name, str) or "." not in name:
        raise UserError(f"{what}: {name!r} is not known; {choices}.")
    module, _, attribute = name.rpartition(".")
    if os.getcwd() not in sys.path:  # noqa: PTH109  (sys.path holds strings)
        sys.path.append(os.getcwd())  # noqa: PTH109  (last: what lies there must not stand in for what others need)
    try:
        part: Callable[..., Any] = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise UserError(f"{what}: {name!r} cannot be imported ({error}); {choices}.") from error
    return part
