"""What is set before torch is imported: glibc's allocator, waiting threads, oneDNN's memory, Python's garbage."""

import atexit
import ctypes
import gc
import os
import sys

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4  # glibc's malloc.h
SETTINGS = (
    (M_MMAP_MAX, 0),  # large blocks come from the heap, not from fresh pages of the kernel
    (M_TRIM_THRESHOLD, 2**31 - 1),  # what is freed stays with the process
    (M_TOP_PAD, 256 << 20),  # the heap grows by 256 MiB at a time
)
SPINS = "1000"  # turns of the waiting loop (a few microseconds) before a thread sleeps
PRIMITIVES = "4096"
OBJECTS = 20_000  # new ones, net, before Python looks for reference cycles among them


def tune() -> None:
    """Set all; call it before torch is imported."""
    tune_allocator()
    tune_threads()
    tune_onednn()
    tune_collector()
    tune_exit()


def tune_allocator() -> bool:
    """Keep freed memory in the process instead of returning it to the kernel.

    By default glibc maps every block above 32 MiB anew and unmaps it when it is freed, so that each training step pays
    a page fault per 4 KiB of every large tensor: more than the arithmetic itself on a few CPU cores. The price is that
    resident memory stays at its peak until the process ends.

    Returns:
        Whether the setting was made; False where the C library is not glibc (musl, macOS, Windows).
    """
    if sys.platform != "linux":
        return False
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "gnu_get_libc_version"):
        return False
    return all(libc.mallopt(parameter, value) == 1 for parameter, value in SETTINGS)


def tune_threads() -> None:
    """Let waiting threads sleep soon, unless the user's environment says otherwise.

    GNU OpenMP spins for milliseconds by default. On a machine that runs anything else, the spinning thread then takes
    the core from the one that it waits for: an LSTM step became ten times slower beside one busy process, and no faster
    on an idle machine.
    """
    os.environ.setdefault("GOMP_SPINCOUNT", SPINS)


def tune_onednn() -> None:
    """Let oneDNN remember more of what it compiled, unless the user's environment says otherwise.

    In bfloat16 it compiles code for every size of a product, half a millisecond or more each, and forgets all but the
    last 1024. A training's batches have dozens of lengths, and each length some hundred products.
    """
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", PRIMITIVES)


def tune_collector() -> None:
    """Let Python look for reference cycles once in 20,000 new objects, not in 700.

    Importing torch and Lightning makes half a million objects, none of them garbage: Python looked through them for a
    quarter of the five seconds that it took. What a training step leaves behind has no cycles that hold a tensor.
    """
    gc.set_threshold(OBJECTS)


def tune_exit() -> None:
    """Let Python look for no reference cycles once it ends.

    It would visit half a million objects of torch and Lightning several times, before the kernel takes them all anyway:
    one or two seconds after a command's last word.
    """
    atexit.register(gc.freeze)
