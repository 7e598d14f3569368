"""Locks: one at a time, many who share, and files that may be removed by whoever holds them."""

import gc
import threading
from pathlib import Path

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


def test_a_link_is_no_lock(tmp_path: Path) -> None:
    (tmp_path / "lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UserError, match="is a link"):
        try_lock(tmp_path / "lock")
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
