"""One way to choose a part in YAML: `{name: fake_qat, option: value}`; a dotted name is a class in the user's file.

Code runs because the user named it: in a configuration of his, or with `--trust my_file.py`. A name that stands in a
model file is looked up, never imported.
"""

import importlib
import importlib.util
import inspect
import os
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from types import ModuleType
from typing import Any, get_type_hints

from qstudy.errors import UserError, meant
from qstudy.fields import checked

LONGEST_NAME = 200  # characters of an import path in a model file
_model_file: ContextVar[Path | None] = ContextVar("_model_file", default=None)  # what asks for parts at the moment
_trusted: ContextVar[Path | None] = ContextVar("_trusted", default=None)
_named_by_user: set[str] = set()  # import paths in the configurations that this process runs


def build(
    config: Mapping[str, Any], known: Mapping[str, Callable[..., Any]], what: str, *given: Any, kind: type = object
) -> Any:
    """Call the part that `config["name"]` names with the other entries as its options.

    Args:
        config: e.g. `{"name": "lstm", "hidden": 256}`.
        known: short names; any other name must be an import path such as `my_policy.MyPolicy`.
        what: the field that the config stands in, for error messages.
        given: positional arguments of the part that do not come from the configuration.
        kind: what the user's own class must derive from; nothing else is called. What it annotates must be set.

    Raises:
        UserError: no or unknown name, another class, unknown or missing option, one of another type than the part
            declares, or an attribute that the part does not set.
    """
    options = dict(config)
    name = options.pop("name", None)
    part = find(name, known, what, kind)
    signature = inspect.signature(part)
    try:
        signature.bind(*given, **options)
    except TypeError as error:
        fields = [p for p in signature.parameters if p not in ("self", "args")][len(given) :]
        unexpected = "unexpected keyword argument" in str(error)
        unknown = next((option for option in options if unexpected and option not in fields), None)
        said = f"{error}" if unknown is None else f"it has no option {unknown!r}{meant(unknown, fields)}"
        offered = f"its options are {', '.join(fields)}" if fields else "it takes none"
        raise UserError(f"{what}: {name!r}: {said}; {offered}.") from error
    hints = _hints(part)
    for option, value in options.items():
        if option in hints:
            checked(hints[option], value, f"{what}.{option}")
    try:
        made = part(*given, **options)
    except UserError:
        raise
    except (Exception, SystemExit) as error:
        if name in known:
            raise
        raise UserError(f"{what}: {name!r} cannot be made ({_described(error)}).") from error
    for field in inspect.get_annotations(kind):
        if not hasattr(made, field):
            raise UserError(f"{what}: {name!r} does not set {field}, as each {kind.__name__} must.")
    return made


def find(name: Any, known: Mapping[str, Callable[..., Any]], what: str, kind: type = object) -> Callable[..., Any]:
    """The part of this name: a known one, or the user's own class; arguments and errors as `build`."""
    if isinstance(name, str) and name in known:
        return known[name]
    part = imported(name, known, what)
    if not (isinstance(part, type) and issubclass(part, kind)):
        raise UserError(f"{what}: {name!r} is not a class that derives from {kind.__module__}.{kind.__qualname__}.")
    return part


@contextmanager
def asked_by(model_file: Path) -> Iterator[None]:
    """Within, names come from a model file, which may have any author: none of them is imported unless trusted."""
    token = _model_file.set(model_file)
    try:
        yield
    finally:
        _model_file.reset(token)


@contextmanager
def trusting(file: Path | None) -> Iterator[None]:
    """Within, model files may name the classes of this Python file: the user said so.

    Raises:
        UserError: there is no such file.
    """
    if file is not None and not (file.suffix == ".py" and file.is_file()):
        raise UserError(f"trust: {file} is not a Python file; give the one with your classes, e.g. my_policy.py.")
    token = _trusted.set(file and file.resolve())
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


def imported(name: Any, known: Iterable[str], what: str) -> Callable[..., Any]:
    """What an import path names, whatever it is.

    Args:
        name: from the user's configuration, or from a model file.
        known: short names, for error messages.
        what: the field, likewise.

    Raises:
        UserError: it is none, cannot be imported, or only a model file asks for it.
    """
    short = ", ".join(known)
    choices = f"give one of {short}, or an import path (file.Class)" if short else "give an import path (file.name)"
    if not isinstance(name, str) or "." not in name:
        raise UserError(f"{what}: {name!r} is not known{meant(name, known)}; {choices}.")
    module, _, attribute = name.rpartition(".")
    trusted = _trusted_file(name, module, what)
    try:
        found = _import_file(module, trusted) if trusted else _import_module(module)
        part: Callable[..., Any] = getattr(found, attribute)
        inspect.signature(part)
    except UserError:
        raise
    except (Exception, SystemExit) as error:  # the user's own code may raise anything
        raise UserError(f"{what}: {name!r} cannot be imported ({_described(error)}); {choices}.") from error
    return part


def _described(error: BaseException) -> str:
    """What the user's code raised and where, on one line."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "importlib" not in frame.filename]
    place = f"{frames[-1].filename}:{frames[-1].lineno}: " if frames and frames[-1].filename != __file__ else ""
    said = " ".join(str(error).split())[:300]
    return f"{place}{type(error).__name__}: {said}".removeprefix("ModuleNotFoundError: ").removesuffix(": ")


def _import_module(module: str) -> ModuleType:
    """The user's module, which may lie in the working folder."""
    if os.getcwd() not in sys.path:  # noqa: PTH109  (sys.path holds strings)
        sys.path.append(os.getcwd())  # noqa: PTH109  (last: what lies there must not stand in for what others need)
    return importlib.import_module(module)


def _import_file(module: str, file: Path) -> ModuleType:
    """This very file as a module; it may import others that lie beside it.

    Raises:
        UserError: another module has its name, such as one of Python's own.
    """
    there = sys.modules.get(module)
    if there is not None and Path(there.__file__ or "").resolve() == file:
        return there
    specification = importlib.util.spec_from_file_location(module, file)
    if there is not None or specification is None or specification.loader is None:
        raise UserError(f"trust: {module!r} is already the name of another module; rename {file}.")
    if str(file.parent) not in sys.path:
        sys.path.append(str(file.parent))  # last, as above
    sys.modules[module] = found = importlib.util.module_from_spec(specification)
    try:
        specification.loader.exec_module(found)
    except BaseException:
        del sys.modules[module]
        raise
    return found


def _trusted_file(name: str, module: str, what: str) -> Path | None:
    """The one file that may answer to a name in a model file; None: the user's own configuration names it.

    Raises:
        UserError: only a model file asks for it, or it is not the name of a class.
    """
    asking = _model_file.get()
    if asking is None:
        _named_by_user.add(name)
    if asking is None or name in _named_by_user:
        return None
    if len(name) > LONGEST_NAME or not all(part.replace("-", "_").isidentifier() for part in name.split(".")):
        # shortened, and not to be copied
        raise UserError(f"{asking}: {what}: {name[:60]!r} is not the name of a class; export it again.")
    parts, trusted = tuple(module.split(".")), _trusted.get()
    if trusted is not None and trusted.with_suffix("").parts[-len(parts) :] == parts:
        return trusted
    raise UserError(
        f"{asking} asks for the code {name!r} as its {what}; code is not run because a model file names it. If it is "
        f"yours, give --trust {'/'.join(parts)}.py, or name a class of that file in your configuration."
    )


def trust_option(names: Iterable[str]) -> str:
    """` --trust FILE` with the user's file of the first of these parts that is his own; nothing if there is none."""
    own = next((name.rpartition(".")[0] for name in names if "." in name), None)
    if own is None:
        return ""
    file = Path(getattr(sys.modules.get(own), "__file__", None) or f"{own.replace('.', '/')}.py")
    return f" --trust {file.relative_to(Path.cwd()) if file.is_relative_to(Path.cwd()) else file}"
