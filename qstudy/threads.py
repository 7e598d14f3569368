"""How compiled loops are spread over threads: torch's own, where they can be had."""

import ctypes
import os
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch
from llvmlite import ir
from numba import typeof, types
from numba._dispatcher import compute_fingerprint
from numba.core import cgutils
from numba.core.dispatcher import Dispatcher
from numba.extending import intrinsic

from qstudy.jit import compiled

Kernel = Callable[..., None]
Item = TypeVar("Item")
Result = TypeVar("Result")


def on_threads(kernel: Kernel, *arguments: Any) -> None:
    """Call `kernel(*arguments, thread, threads)` for every `thread < threads`, the number of torch's threads.

    The kernel takes its share of the items: every so many-th where long and short ones mix, else one piece.

    Torch's own threads do it where they are OpenMP's by GNU's names, as on Linux. Elsewhere, and in a fork, where
    torch's are gone, Python's threads do it: they are slower to wake, and share the processors with torch's, which wait
    for the next product in a loop. On two cores the head's loops of 0.2 to 0.4 ms took 1.4 to 1.7 times as long so.

    Raises:
        RuntimeError: a compiled kernel has raised, on torch's threads; elsewhere its own error is raised.
    """
    threads = torch.get_num_threads()
    have_openmp = threads == 1 or os.getpid() == IMPORTED_IN
    if have_openmp and isinstance(kernel, Dispatcher) and (functions := openmp()):
        run, address = _run(kernel, arguments)
        if run(functions, address, threads, arguments):
            raise RuntimeError(f"{kernel.py_func.__name__} failed on one of {threads} threads")
    else:
        _on_pool(kernel, threads, *arguments)


IMPORTED_IN = os.getpid()
"""Any other process is a fork of this one."""


class OpenMP(NamedTuple):
    """Addresses of functions."""

    parallel: int
    """GOMP_parallel: calls a function on several threads."""
    thread: int
    """omp_get_thread_num: which of them this is."""
    threads: int
    """omp_get_num_threads: how many there are, which may be fewer than were asked for."""


@cache
def openmp() -> OpenMP | None:
    """What torch's threads are made with; None: something else."""
    try:
        torch_itself = ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"))
        functions = torch_itself.GOMP_parallel, torch_itself.omp_get_thread_num, torch_itself.omp_get_num_threads
    except (OSError, AttributeError):
        return None
    return OpenMP(*(ctypes.cast(each, ctypes.c_void_p).value or 0 for each in functions))


Run = Callable[[OpenMP, int, int, tuple[Any, ...]], bool]
_runs: dict[tuple[Any, bytes], tuple[Run, int]] = {}


def _run(kernel: Any, arguments: tuple[Any, ...]) -> tuple[Run, int]:
    """What starts a kernel for arguments of these types, compiled, and the kernel's address."""
    key = kernel, compute_fingerprint(arguments)  # as numba itself asks what types they have, in a microsecond
    if key not in _runs:
        kinds = tuple(typeof(each) for each in arguments)
        whole = (*kinds, types.int64, types.int64)
        kernel.compile(whole)
        made = kernel.overloads[whole]
        address = made.library.get_pointer_to_function(made.fndesc.llvm_func_name)
        assert address
        assert made.signature.return_type == types.none
        own = (typeof(openmp()), types.int64, types.int64, types.Tuple(kinds))
        start: Any = _start
        start.compile(own)
        _runs[key] = start.overloads[own].entry_point, address
    return _runs[key]


@intrinsic
def _call_on_threads(_: Any, openmp: Any, kernel: Any, threads: Any, arguments: Any) -> Any:
    """From within a compiled function: call what lies at an address on several threads; whether one of them failed."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        pointer, integer = ir.IntType(8).as_pointer(), ir.IntType(32)
        failed = cgutils.alloca_once_value(builder, cgutils.false_bit)
        shared = cgutils.alloca_once_value(builder, cgutils.pack_struct(builder, [*values, failed]))
        body = _body(context, builder.module, shared.type, arguments.types)
        kind = ir.FunctionType(ir.VoidType(), [body.type, pointer, integer, integer])
        parallel = builder.inttoptr(builder.extract_value(values[0], 0), kind.as_pointer())
        count = builder.trunc(values[2], integer)
        builder.call(parallel, [body, builder.bitcast(shared, pointer), count, integer(0)])
        return builder.load(failed)

    return types.boolean(openmp, kernel, threads, arguments), generate


def _body(context: Any, module: Any, shared: Any, kinds: tuple[Any, ...]) -> Any:
    """What each thread calls with a pointer to what they share: the arguments of `_call_on_threads`, and its result."""
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), [ir.IntType(8).as_pointer()]), "on_each_thread")
    function.linkage = "internal"
    builder = ir.IRBuilder(function.append_basic_block())
    values = cgutils.unpack_tuple(builder, builder.load(builder.bitcast(function.args[0], shared)))
    openmp, kernel, _, arguments, failed = values
    number = ir.FunctionType(ir.IntType(32), [])
    ask = [builder.inttoptr(builder.extract_value(openmp, n), number.as_pointer()) for n in (1, 2)]
    places = [builder.sext(builder.call(each, []), ir.IntType(64)) for each in ask]
    lent = [_lent(context, builder, builder.extract_value(arguments, n), kind) for n, kind in enumerate(kinds)]
    whole = (*kinds, types.int64, types.int64)
    target = builder.inttoptr(kernel, context.call_conv.get_function_type(types.none, whole).as_pointer())
    status, _ = context.call_conv.call_function(builder, target, types.none, whole, [*lent, *places])
    with builder.if_then(status.is_error):
        builder.store(cgutils.true_bit, failed)
    builder.ret_void()
    return function


def _lent(context: Any, builder: Any, value: Any, kind: Any) -> Any:
    """An argument as a kernel gets it. Of an array no references are counted, for threads would do little else than
    share the count: the caller keeps it alive, and no kernel keeps it."""
    if not isinstance(kind, types.Array):
        return value
    array = cgutils.create_struct_proxy(kind)(context, builder, value)
    array.meminfo = cgutils.get_null_value(array.meminfo.type)
    return array._getvalue()


@compiled()
def _start(openmp: OpenMP, kernel: int, threads: int, arguments: tuple[Any, ...]) -> bool:
    failed: bool = _call_on_threads(openmp, kernel, threads, arguments)  # type: ignore[call-arg]
    return failed


def _on_pool(kernel: Kernel, threads: int, *arguments: Any) -> None:
    """By Python's own threads: numba's either refuse to run in two callers at once or do not survive a fork."""
    pool = _pool(os.getpid(), max(threads - 1, 1), "loops")
    others = [pool.submit(kernel, *arguments, thread, threads) for thread in range(1, threads)]
    kernel(*arguments, 0, threads)
    for other in others:
        other.result()


MOST_CALLERS = 4  # more would wait for Python's lock


def callers(items: int) -> int:
    """How many of Python's threads share so many items; at least one."""
    return max(min(torch.get_num_threads(), MOST_CALLERS, items), 1)


def in_shares(work: Callable[[Sequence[Item]], Result], items: Sequence[Item], count: int) -> list[Result]:
    """What `work` makes of `count` shares of the items, each on a thread of Python's with its part of torch's threads.

    For work of many calls, after each of which torch's threads would meet: the more else the machine does, the longer
    they wait for each other. The caller does the first share, new threads the others: autocast and the mode of
    gradients are for `work` to set.
    """
    if count == 1:
        return [work(items)]
    threads, inference = torch.get_num_threads(), torch.is_inference_mode_enabled()
    do = [
        partial(_with_threads, threads // count + (first < threads % count), inference, work, items[first::count])
        for first in range(count)
    ]
    pool, tasks = _pool(os.getpid(), count - 1, "shares"), list[Future[Result]]()
    try:
        tasks.extend(pool.submit(each) for each in do[1:])
        return [do[0](), *(task.result() for task in tasks)]
    finally:
        for task in tasks:
            task.cancel()
        try:
            wait(tasks)
        finally:
            torch.set_num_threads(threads)  # threads that are yet to come have as many as was said last


def _with_threads(
    count: int, inference: bool, work: Callable[[Sequence[Item]], Result], share: Sequence[Item]
) -> Result:
    """The work, by so many of torch's threads."""
    if torch.get_num_threads() != count:  # asked first: torch's first look at a thread sets the number anew
        torch.set_num_threads(count)
    with torch.inference_mode(inference):
        return work(share)


@cache
def _pool(process: int, threads: int, purpose: str) -> ThreadPoolExecutor:
    """The threads of this process; a forked child gets its own, since threads do not survive a fork."""
    return ThreadPoolExecutor(threads, thread_name_prefix=f"qstudy {purpose}")
