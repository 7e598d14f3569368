"""One way to choose a part in YAML: `{name: fake_qat, option: value}`; a dotted name is a class in the user's file.

Code runs because the user named it: in a configuration of his, or with `--trust my_file.py`. A name that stands in a
model file is looked up, never imported.
"""

import importlib
import inspect
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any, get_type_hints

from qstudy.errors import UserError
from qstudy.typed import checked

_model_file: ContextVar[Path | None] = ContextVar("_model_file", default=None)  # what asks for parts at the moment
_trusted: ContextVar[tuple[Path, ...]] = ContextVar("_trusted", default=())
_named_by_user: set[str] = set()  # import paths in the configurations that this process runs


def build(config: Mapping[str, Any], known: Mapping[str, Callable[..., Any]], what: str, *given: Any) -> Any:
    """Call the part that `config["name"]` names with the other entries as its options.

    Args:
        config: e.g. `{"name": "lstm", "hidden": 256}`.
        known: short names; any other name must be an import path such as `my_policy.MyPolicy`.
        what: the field that the config stands in, for error messages.
        given: positional arguments of the part that do not come from the configuration.

    Raises:
        UserError: no or unknown name, unknown or missing option, or one of another type than the part declares.
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
    hints = _hints(part)
    for option, value in options.items():
        if option in hints:
            checked(hints[option], value, f"{what}.{option}")
    return part(*given, **options)


@contextmanager
def asked_by(model_file: Path) -> Iterator[None]:
    """Within, names come from a model file, which may have any author: none of them is imported unless it is trusted."""
    token = _model_file.set(model_file)
    try:
        yield
    finally:
        _model_file.reset(token)


@contextmanager
def trusting(files: Sequence[Path] | None) -> Iterator[None]:
    """Within, model files may name the classes of these Python files: the user said so."""
    token = _trusted.set(tuple(file.resolve() for file in files or ()))
    try:
        yield
    finally:
        _trusted.reset(token)


def _hints(part: Callable[..., Any]) -> dict[str, Any]:
    """The types of a part's parameters, as far as they can be told."""
    try:
        return get_type_hints(part.__init__ if inspect.isclass(part) else part, include_extras=True)
    except Exception:  # the user's own annotations may be anything
        return {}


def _imported(name: Any, known: Mapping[str, Any], what: str) -> Callable[..., Any]:
    choices = f"give one of {', '.join(known)}, or the import path of a class (file.Class)"
    if not isinstance(name, str) or "." not in name:
        raise UserError(f"{what}: {name!r} is not known; {choices}.")
    module, _, attribute = name.rpartition(".")
    folder = _folder(name, module, what)
    if folder not in sys.path:
        sys.path.insert(0, folder)
    try:
        part: Callable[..., Any] = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise UserError(f"{what}: {name!r} cannot be imported ({error}); {choices}.") from error
    return part


def _folder(name: str, module: str, what: str) -> str:
    """Where the user's module is looked for.

    Raises:
        UserError: only a model file asks for it.
    """
    asking = _model_file.get()
    if asking is None:
        _named_by_user.add(name)
    if asking is None or name in _named_by_user:
        return os.getcwd()  # noqa: PTH109  (sys.path holds strings)
    parts = tuple(module.split("."))
    for file in _trusted.get():
        path = file.with_suffix("").parts
        if path[-len(parts) :] == parts:
            return str(Path(*path[: -len(parts)]))
    raise UserError(
        f"{asking} asks for the code {name!r} as its {what}; code is not run because a model file names it. If it is "
        f"yours, say --trust {'/'.join(parts)}.py to evaluate, export, simulate or transcribe."
    )
