"""Locks: one at a time, many who share, and files that may be removed by whoever holds them."""

import gc
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from qstudy.errors import UserError
from qstudy.locks import is_held, locked, share, try_lock


class Owner:
    pass


def test_shared_as_long_as_the_owners_live(tmp_path: Path) -> None:
    path = tmp_path / "used"
    path.touch()
    owners = [Owner(), Owner()]
    for owner in owners:
        share(path, owner)
    assert try_lock(path) is None
    owners.pop()
    gc.collect()
    assert is_held(path)
    del owner, owners
    gc.collect()
    assert not is_held(path)


def test_who_waited_for_a_removed_lock_makes_a_new_one(tmp_path: Path) -> None:
    path, taken = tmp_path / "lock", threading.Event()

    def wait() -> None:
        with locked(path):
            taken.set()
            assert is_held(path)

    holder = try_lock(path)
    assert holder is not None
    waiting = threading.Thread(target=wait)
    waiting.start()
    assert not taken.wait(0.1)
    path.unlink()
    holder.close()
    waiting.join(60)
    assert taken.is_set()
    assert path.exists()


def test_who_may_only_read_may_ask() -> None:
    """Of caches that belong to others; and asking makes no file."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "lock"
        assert not is_held(path)
        assert not path.exists()
        holder = try_lock(path)
        assert holder is not None
        path.chmod(0o444)
        Path(folder).chmod(0o555)
        with _nobody():
            assert is_held(path)
        holder.close()
        with _nobody():
            assert not is_held(path)
            with pytest.raises(PermissionError):
                try_lock(path)


@contextmanager
def _nobody() -> Iterator[None]:
    """As a user without rights, where the tests run as root, who may do everything."""
    own = os.geteuid()
    if own == 0:
        os.seteuid(65534)
    yield
    os.seteuid(own)


def test_a_link_is_no_lock(tmp_path: Path) -> None:
    (tmp_path / "lock").symlink_to(tmp_path / "elsewhere")
    for asked in (try_lock, is_held):
        with pytest.raises(UserError, match="is a link"):
            asked(tmp_path / "lock")
    assert not (tmp_path / "elsewhere").exists()


def test_waiting_is_told_once(tmp_path: Path, caplog) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "lock"
    with locked(path, "Somebody else is at it."):
        assert not caplog.text
        waiting = threading.Thread(target=lambda: locked(path, "Somebody else is at it.").__enter__())
        waiting.start()
        waiting.join(0.2)
        assert caplog.text.count("Somebody else is at it.") == 1
    waiting.join(60)
    assert not waiting.is_alive()
