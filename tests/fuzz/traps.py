"""Commands that do what no command may: the server and the verdicts are tried on them."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from qstudy.errors import UserError


def fine(argv: list[str]) -> None:
    """End well."""
    print("hello", *argv)


def refuses(argv: list[str]) -> None:
    """Refuse as the command line does."""
    print("qstudy: model.qst: hidden: 3 is not 4; export it again.", file=sys.stderr)
    sys.exit(2)


def raises(argv: list[str]) -> None:
    """Let an error through."""
    raise UserError("nobody caught this")


def hangs(argv: list[str]) -> None:
    """Never end, and leave a child that does not either."""
    subprocess.Popen(["sleep", "60"])
    time.sleep(60)


def crashes(argv: list[str]) -> None:
    """Die of what a wrong pointer does."""
    os.kill(os.getpid(), signal.SIGSEGV)


def shell(argv: list[str]) -> None:
    """Run a shell command."""
    os.system("touch fuzz_canary")


def process(argv: list[str]) -> None:
    """Start a program."""
    subprocess.run(["touch", "fuzz_canary"], check=True)


def module(argv: list[str]) -> None:
    """Import what lies in the current folder."""
    Path("fuzz_evil.py").write_text("")
    sys.path.insert(0, "")
    __import__("fuzz_evil")


def makes(argv: list[str]) -> None:
    """Make a file that only injected code makes."""
    Path("fuzz_canary").touch()


def strays(argv: list[str]) -> None:
    """Write beside its folder."""
    Path("../stray").touch()


def escapes(argv: list[str]) -> None:
    """Write far away."""
    Path(argv[0]).write_text("x")
