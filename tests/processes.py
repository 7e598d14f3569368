"""Processes as Linux tells of them: what descends from one, and where each works."""

import os
from pathlib import Path


def family(pid: int) -> list[int]:
    """The process and all that descend from it, unless a parent between them has ended."""
    parents, found = {each: parent(each) for each in everything()}, [pid]
    for each in found:
        found += [child for child, of in parents.items() if of == each]
    return found


def everything() -> list[int]:
    """All processes of the machine."""
    return [int(each.name) for each in Path("/proc").glob("[0-9]*")]


def parent(pid: int) -> int:
    """0: it has ended."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def command(pid: int) -> str:
    """What it was started with; empty: it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    except OSError:
        return ""


def works_in(pid: int, folder: Path) -> bool:
    """Whether a process, another one than this, has its working folder there."""
    try:
        return Path(f"/proc/{pid}/cwd").resolve() == folder.resolve() and pid != os.getpid()
    except OSError:
        return False
