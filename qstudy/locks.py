"""Locks that end with the process that holds them, however it dies. A lock file's time is when it was last taken."""

import errno
import fcntl
import logging
import os
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from qstudy.errors import UserError

log = logging.getLogger(__name__)


def try_lock(path: Path, patience_s: float = 0.0) -> IO[str] | None:
    """Take the lock at `path` if it is free; closing the file, or the end of the process, lets it go.

    With `patience_s` it may be held for so long: by somebody who only looks (`is_held`).
    """
    until = time.monotonic() + patience_s
    while (file := _acquire(path, fcntl.LOCK_EX | fcntl.LOCK_NB)) is None and time.monotonic() < until:
        time.sleep(0.02)
    return file


def is_held(path: Path) -> bool:
    """Whether a living process, this one included, holds the lock at `path`; who may only read may ask, too."""
    try:
        descriptor = _existing(path)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


@contextmanager
def locked(path: Path, waiting: str = "") -> Iterator[None]:
    """Hold the lock at `path`, waiting for it; the sentence `waiting` is logged if somebody else holds it."""
    file = try_lock(path)
    if file is None and waiting:
        log.warning(waiting)
    with file or _wait(path) as held:
        os.utime(held.fileno())
        yield


def share(path: Path, owner: object) -> None:
    """Share the lock at `path`, an existing file, as long as `owner` lives: nobody can take it alone meanwhile.

    Raises:
        OSError: there is no such file.
    """
    descriptor = os.open(path, os.O_RDONLY)
    weakref.finalize(owner, os.close, descriptor)
    fcntl.flock(descriptor, fcntl.LOCK_SH)
    with suppress(OSError):  # what belongs to others may be read, but not marked as used
        os.utime(path)


def _wait(path: Path) -> IO[str]:
    file = _acquire(path, fcntl.LOCK_EX)
    if file is None:
        raise AssertionError("a lock that waits is always taken")
    return file


def _acquire(path: Path, operation: int) -> IO[str] | None:
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        file = os.fdopen(_opened(path), "a")
        try:
            fcntl.flock(file, operation)
        except BlockingIOError:
            file.close()
            return None
        if _is_at(file, path):
            return file
        file.close()  # whoever held it has removed it


def _opened(path: Path, flags: int = os.O_WRONLY | os.O_APPEND | os.O_CREAT) -> int:
    """A descriptor of the file; not through a link, which in a stranger's folder may lead anywhere."""
    try:
        return os.open(path, flags | os.O_NOFOLLOW, 0o666)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise UserError(f"{path} is a link, but must be a lock of its own; remove it.") from error
        raise


def _existing(path: Path) -> int:
    """A descriptor of a file that is there; of one that may not be written, to be read, though NFS locks none such."""
    try:
        return _opened(path, os.O_WRONLY)
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise
    return _opened(path, os.O_RDONLY)


def _is_at(file: IO[str], path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False
