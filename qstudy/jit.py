"""How loops written in Python are compiled with numba and kept on disk."""

from collections.abc import Callable
from functools import partial
from hashlib import sha256
from pathlib import Path
from types import ModuleType
from typing import Any

from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic


def compiled(
    fastmath: set[str] | bool = False, uses: tuple[ModuleType, ...] = ()
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Compile the decorated function at its first call; it runs without Python's lock and is kept on disk.

    Args:
        fastmath: always passed on, because numba lets a function that says nothing inherit its caller's.
        uses: modules whose code goes into the function. What is on disk counts no more when one of them changes;
            numba itself looks at the function's own file only.
    """

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        try:
            dispatcher = njit(nogil=True, cache=True, fastmath=fastmath, error_model="numpy")(function)
            _keep_apart(dispatcher, uses)
            return dispatcher
        except (RuntimeError, OSError):  # no folder can be written: neither beside the file, nor the user's cache
            return njit(nogil=True, fastmath=fastmath, error_model="numpy")(function)

    return decorate


def address_of(dispatcher: Any, arguments: int) -> int:
    """Where `call` finds what `compiled` makes of a function of so many int64 that returns an int64.

    A large function is compiled once so, instead of once more into each that calls it, which takes seconds.
    """
    dispatcher.compile((types.int64,) * arguments)
    result = dispatcher.overloads[(types.int64,) * arguments]
    address: int = result.library.get_pointer_to_function(result.fndesc.llvm_cfunc_wrapper_name)
    return address


@intrinsic
def call(_: Any, address: Any, arguments: Any) -> Any:
    """From within a compiled function: call what lies at an address with a tuple of int64; returns an int64."""

    def generate(_: Any, builder: Any, signature: Any, values: Any) -> Any:
        numbers = [builder.extract_value(values[1], n) for n in range(len(signature.args[1]))]
        kind = ir.FunctionType(numbers[0].type, [each.type for each in numbers])
        return builder.call(builder.inttoptr(values[0], kind.as_pointer()), numbers)

    return types.int64(types.int64, arguments), generate


def _keep_apart(dispatcher: Any, modules: tuple[ModuleType, ...]) -> None:
    """Let numba read from disk what was made of these modules and for this machine alone.

    The times and sizes of the modules' files are part of what numba compares before it reads. What they say of this
    machine goes into the key instead: code for several machines lies side by side then, where another stamp would have
    the next process throw it away.
    """
    cache, machine = dispatcher._cache, tuple(vars(module).get("MACHINE") for module in modules)
    file, own = cache._cache_file, cache._index_key
    file._source_stamp = ("named by key", file._source_stamp, *(_stamp(module) for module in modules))
    cache._index_key = lambda signature, codegen: (*own(signature, codegen), machine)
    file.save = partial(_save, file)


def _save(file: Any, key: Any, data: Any) -> None:
    """Write the code of one signature under a name of its own, then the index.

    Numba takes the next number for a name: two processes at once would give two signatures the same.
    """
    name = f"{Path(file._index_name).stem}.{sha256(repr(key).encode()).hexdigest()[:16]}.nbc"
    file._save_data(name, data)
    file._save_index({**file._load_index(), key: name})


def _stamp(module: ModuleType) -> tuple[float, int]:
    """Time and size of a module's file."""
    state = Path(str(module.__file__)).stat()
    return state.st_mtime, state.st_size
