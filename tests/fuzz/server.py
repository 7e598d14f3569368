"""Runs commands one by one, each in a forked child of a process that has imported everything.

A child has a limit of time and of memory, its own folder, and an audit hook that notes code which no input may start
and refuses to change files elsewhere: who fuzzes as root would lose more than a run.
"""

import errno
import importlib
import json
import os
import resource
import select
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

os.environ.pop("QSTUDY_STORAGE", None)  # the user's own database: studies of no sense would stay in it
ROOT = Path(__file__).parents[2]
CANARY = "fuzz_canary"  # in the name of every file that only injected code would make
MODULES = ("fuzz_evil", "this", "antigravity")  # imported by injected names alone
SHELLS = ("os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.startfile", "pty.spawn")
ENVIRONMENT = {
    "PYTHONPATH": str(ROOT),
    "OMP_NUM_THREADS": "1",  # threads do not survive a fork
    "OPENBLAS_NUM_THREADS": "1",
    "NO_COLOR": "1",
    "COLUMNS": "200",
    "WANDB_MODE": "disabled",
}
CHANGES = (
    "os.rename",
    "os.remove",
    "os.rmdir",
    "os.mkdir",
    "os.link",
    "os.symlink",
    "os.truncate",
    "os.chmod",
    "shutil.rmtree",
    "shutil.move",
)
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
WRITABLE = (str(Path.home() / ".cache"), str(Path.home() / ".config"), "/dev/shm")
SPACE = 4 << 30  # bytes of address space beyond what the imports took
SHOWN = 20_000  # characters of output that are kept

IMPORTS = (
    "qstudy.commands.report",
    "qstudy.commands.evaluate",
    "qstudy.commands.export",
    "qstudy.commands.simulate",
    "qstudy.hardware.plots",
    "qstudy.commands.train",
    "qstudy.commands.transcribe",
    "qstudy.data.feature_set",
    "qstudy.training.load",
    "qstudy.sweep.study",
    "qstudy.training.baseline",
    "qstudy.training.checkpoint",
    "qstudy.training.run",
    # What these import when they run; here once for all cases, which have seconds each.
    "qstudy.training.fit",
    "lightning.pytorch.trainer",
    "qstudy.cli",
    "alembic.command",
    "jiwer",
    "soundfile",
    "matplotlib.backends.backend_pdf",
    "matplotlib.backends.backend_svg",
    "fontTools.subset",
)


@dataclass(frozen=True)
class Outcome:
    """What a command did."""

    code: int
    """Exit code; negative: the signal that ended it."""
    out: str
    err: str
    seconds: float
    grown_bytes: int
    """Resident memory at its peak, beyond what the imports took."""
    ran: list[str]
    """Code that no input may start."""
    timed_out: bool


class Server:
    """The process that forks; a context manager."""

    def __init__(self, folder: Path, limit_s: float = 20.0, imports: Sequence[str] = IMPORTS) -> None:
        """Commands find `imports` imported, and may change files below `folder` alone."""
        self.folder, self.limit_s, self.imports = folder, limit_s, imports

    def __enter__(self) -> "Server":
        command = [sys.executable, "-m", "tests.fuzz.server", *self.imports]
        environment = {**os.environ, **ENVIRONMENT, "TMPDIR": str(self.folder)}
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(command, cwd=ROOT, env=environment, text=True, stdin=pipe, stdout=pipe)
        return self

    def __exit__(self, *_: object) -> None:
        self._process.stdin.close()  # type: ignore[union-attr]
        self._process.wait()

    def run(
        self, argv: Sequence[str], folder: Path, entry: str = "qstudy.cli:main", limit_s: float | None = None
    ) -> Outcome:
        """Call `entry` (`module:function`) with `argv` in `folder`; its output goes to files beside the folder."""
        request: dict[str, Any] = {"argv": list(argv), "folder": str(folder), "base": str(self.folder)}
        request |= {"entry": entry, "limit_s": limit_s or self.limit_s}
        print(json.dumps(request), file=self._process.stdin, flush=True)
        return Outcome(**json.loads(self._process.stdout.readline()))  # type: ignore[union-attr]


def plan_only(argv: list[str]) -> None:
    """`qstudy` without what a sweep does after its plan stands."""
    study = importlib.import_module("qstudy.sweep.study")
    for name in ("prepare", "work", "run_pool"):
        assert hasattr(study, name)
        setattr(study, name, lambda *_, **__: None)
    importlib.import_module("qstudy.cli").main(argv)


def _serve() -> None:
    for module in sys.argv[1:]:
        importlib.import_module(module)
    for line in sys.stdin:
        print(json.dumps(asdict(_forked(**json.loads(line)))), flush=True)


def _forked(argv: list[str], folder: str, entry: str, limit_s: float, base: str) -> Outcome:
    begin, resident = time.monotonic(), _resident()
    logs = {name: Path(f"{folder}.{name}") for name in ("out", "err", "ran")}
    child = os.fork()
    if not child:
        _child(argv, folder, entry, logs, base)
    ready, _, _ = select.select([watched := os.pidfd_open(child)], [], [], limit_s)
    os.close(watched)
    if not ready:
        os.kill(child, signal.SIGUSR1)  # faulthandler tells where it hangs
        time.sleep(0.3)
    _kill_group(child)
    _, status, used = os.wait4(child, 0)
    texts = {name: path.read_text("utf-8", "replace")[-SHOWN:] for name, path in logs.items()}
    return Outcome(
        code=os.waitstatus_to_exitcode(status),
        out=texts["out"],
        err=texts["err"],
        ran=texts["ran"].splitlines(),
        seconds=time.monotonic() - begin,
        grown_bytes=max(0, used.ru_maxrss * 1024 - resident),
        timed_out=not ready,
    )


def _kill_group(child: int) -> None:
    """End what hangs, and whatever a command left behind."""
    try:
        os.killpg(child, signal.SIGKILL)
    except ProcessLookupError:  # it has not come so far as to have a group, or is gone
        os.kill(child, signal.SIGKILL)


def _child(argv: list[str], folder: str, entry: str, logs: dict[str, Path], base: str) -> None:
    """Never returns."""
    import faulthandler
    import traceback

    code = 1
    try:
        os.setsid()
        os.chdir(folder)
        for stream, path in ((0, Path(os.devnull)), (1, logs["out"]), (2, logs["err"])):
            os.dup2(os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC), stream)
        faulthandler.register(signal.SIGUSR1)
        faulthandler.enable()
        space = _address_space() + SPACE
        resource.setrlimit(resource.RLIMIT_AS, (space, space))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        module, _, function = entry.partition(":")
        call = getattr(importlib.import_module(module), function)
        sys.argv = ["qstudy", *argv]
        sys.addaudithook(_audit(os.open(logs["ran"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC), base))
        call(argv)
        code = 0
    except SystemExit as exit_:
        code = exit_.code if isinstance(exit_.code, int) else 1 if exit_.code else 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code & 0xFF)


def _audit(log: int, base: str) -> Any:
    def note(event: str, arguments: tuple[Any, ...]) -> None:
        os.write(log, f"{event} {arguments!r:.200}\n".encode("utf-8", "replace"))

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "import":
            if arguments[0] in MODULES:
                note(event, arguments)
        elif event in SHELLS or (event == "subprocess.Popen" and CANARY in str(arguments)):
            note(event, arguments)
            raise PermissionError(f"{event} is not for fuzzers")
        elif (event == "open" and (arguments[2] or 0) & WRITING) or event in CHANGES:
            changed = arguments[:2] if event in ("os.rename", "os.link", "shutil.move") else arguments[:1]
            if not all(_writable(path, base) for path in changed):
                raise PermissionError(errno.EPERM, "not for fuzzers", str(changed[-1]))

    return hook


def _writable(path: Any, base: str) -> bool:
    """Whether a path may be changed: it is one of ours, a cache, or no path at all but an open file."""
    if isinstance(path, int) or path is None:
        return True
    real = os.path.realpath(os.fsdecode(path))
    return real.startswith((base, *WRITABLE)) or "__pycache__" in real or real == os.devnull


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def _address_space() -> int:
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


if __name__ == "__main__":
    _serve()
