"""A PostgreSQL server for tests, from Debian's package or any other that has `initdb`."""

import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

FOUND = shutil.which("initdb") or next(iter(map(str, Path("/usr/lib/postgresql").glob("*/bin/initdb"))), None)


class Server:
    """A PostgreSQL server of our own on loopback; as user `nobody` if we are root, whom it refuses."""

    def __init__(self, folder: Path) -> None:
        user: dict[str, Any] = {"user": "nobody"} if os.geteuid() == 0 else {}
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = str(probe.getsockname()[1])
        if user:
            shutil.chown(folder, "nobody")
        self.folder, self.programs = folder, Path(str(FOUND)).resolve().parent
        self.common: dict[str, Any] = {
            "stdout": subprocess.DEVNULL,
            "stderr": subprocess.DEVNULL,
            "cwd": folder,
            **user,
        }
        create = ["-D", "data", "-U", "tester", "-A", "trust", "--no-sync"]
        subprocess.run([self.programs / "initdb", *create], check=True, **self.common)
        self.start()

    def start(self) -> None:
        where = ["-h", "127.0.0.1", "-p", self.port]
        start = ["-D", "data", *where, "-k", str(self.folder), "-c", "fsync=off"]
        self.process = subprocess.Popen([self.programs / "postgres", *start], **self.common)
        while subprocess.run([self.programs / "pg_isready", "-q", *where]).returncode:
            assert self.process.poll() is None, "the server did not start"
            time.sleep(0.1)

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """At once: the default waits for connections to be closed."""
        self.process.send_signal(how)
        self.process.wait()

    def database(self, name: str) -> str:
        """The URL of a new, empty database."""
        create = [self.programs / "createdb", "-h", "127.0.0.1", "-p", self.port, "-U", "tester", name]
        subprocess.run(create, check=True, **self.common)
        return f"postgresql://tester:secret@127.0.0.1:{self.port}/{name}"
