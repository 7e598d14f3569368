"""A SLURM cluster of one node on loopback, from Debian's packages `slurm-wlm` and `munge`."""

import os
import platform
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

NEEDED = ("munged", "slurmctld", "slurmd", "sbatch", "scancel", "squeue")
MISSING = [name for name in NEEDED if not shutil.which(name)] or (["root"] if os.geteuid() else [])

CONFIGURATION = """
ClusterName=tests
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmdParameters=config_overrides
ReturnToService=2
MinJobAge=300
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 State=UNKNOWN
PartitionName=all Nodes={host} Default=YES State=UP
"""


class Cluster:
    """One node with two cores."""

    def __init__(self, folder: Path) -> None:
        for name in ("munge", "state", "spool"):
            (folder / name).mkdir()
        key = folder / "munge" / "key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o600)
        configuration = folder / "slurm.conf"
        host = platform.node().partition(".")[0]
        configuration.write_text(CONFIGURATION.format(host=host, folder=folder, ports=_free_ports(2)))
        (folder / "cgroup.conf").write_text("CgroupAutomount=no\n")
        self.folder, self.environment = folder, {**os.environ, "SLURM_CONF": str(configuration)}
        names = {"socket": "socket", "key-file": "key", "log-file": "log", "pid-file": "pid", "seed-file": "seed"}
        munge = [f"--{option}={folder / 'munge' / name}" for option, name in names.items()]
        self._servers = [
            self._start("munged", "--foreground", "--force", *munge),
            self._start("slurmctld", "-D", "-i"),
            self._start("slurmd", "-D"),
        ]
        self._wait(lambda: "idle" in self.call("sinfo", "-h", "-o", "%T"))

    def _start(self, *command: str) -> "subprocess.Popen[bytes]":
        with (self.folder / f"{command[0]}.log").open("wb") as log:
            return subprocess.Popen(command, env=self.environment, stdout=log, stderr=log)

    def _wait(self, reached: Callable[[], bool], seconds: float = 60.0) -> None:
        end = time.monotonic() + seconds
        while not reached():
            assert time.monotonic() < end, f"see the logs in {self.folder}"
            time.sleep(0.2)

    def call(self, *command: str, cwd: Path | None = None) -> str:
        """What one of SLURM's commands prints."""
        done = subprocess.run(command, env=self.environment, cwd=cwd, capture_output=True, text=True, check=False)
        return done.stdout

    def stop(self) -> None:
        """With all jobs."""
        self.call("scancel", "--signal=KILL", "--full", "-u", "root")
        for server in reversed(self._servers):
            server.send_signal(signal.SIGTERM)
            server.wait()


def _free_ports(count: int) -> list[int]:
    probes = [socket.socket() for _ in range(count)]
    for probe in probes:
        probe.bind(("127.0.0.1", 0))
    ports = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    return ports
