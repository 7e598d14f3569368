"""Workers on a Ray cluster: each holds a GPU, or a group of cores of one node, in an actor that holds its process.

The nodes need qstudy and, at the same path, the folder that the sweep was started in: corpus, caches, float baselines
and run folders are shared through it, as by several machines without Ray.
"""

import logging
import math
import os
import platform
import signal
import socket
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, NamedTuple

from tqdm import tqdm

from qstudy.errors import UserError
from qstudy.sweep.capacity import cores
from qstudy.sweep.launchers.base import End, Job, Launcher, Worker
from qstudy.sweep.launchers.process import Process

LOST = -1
MOST_LETTERS = 200  # of what Ray says of a loss: it says a lot
STORE_BYTES = 80 * 2**20  # the least that Ray takes: nothing of a study is kept in its object store
QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0"}  # trainings are no background jobs (Ray's: 15)
CONNECT_S = 10.0
TELL_S = 10.0  # who waits longer for a place is told of
OURS = ("localhost", "127.0.0.1", "::1")
ON_LOOPBACK = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
"""Ray's own switch: 0 makes it listen on loopback alone, as on the systems of that name; else on all addresses."""


class Place(NamedTuple):
    """What a node has for workers."""

    cpus: int
    gpus: int


class Share(NamedTuple):
    """What a worker holds of a node."""

    cpus: int
    gpus: float


class RayWorker(Worker):
    """A worker whose process an actor holds, on whatever node has place for it."""

    def __init__(self, ray: Any, job: Job, share: Share) -> None:
        self._ray, self._job, self._share = ray, job, share
        self._told_at = time.monotonic() + TELL_S
        place = {"num_cpus": share.cpus, "num_gpus": share.gpus, "max_concurrency": 2}  # to be let go while it waits
        self._actor = ray.remote(Process).options(**place).remote(job, share.cpus)
        self._place = self._actor.__ray_ready__.remote()
        self._end = self._actor.wait.remote()

    def ended(self) -> End | None:
        """How it ended; None: it works, or Ray has no place for it yet, which is told once."""
        if not self._ray.wait([self._end], timeout=0)[0]:
            if time.monotonic() > self._told_at:
                self._told_at = math.inf
                self._tell_if_waiting()
            return None
        try:
            end: End = self._ray.get(self._end)
        except self._ray.exceptions.RayError as error:
            return End(LOST, f"lost by Ray: {str(error).strip().splitlines()[-1].strip()[:MOST_LETTERS]}")
        return end

    def _tell_if_waiting(self) -> None:
        if self.waits():
            needs = f"CPUs: {self._share.cpus}, GPUs: {self._share.gpus:g}"
            tqdm.write(f"Worker {self._job.number} waits for a place on one node of the Ray cluster ({needs}).")

    def waits(self) -> bool:
        """Whether Ray has no place for it yet: a node that was lost leaves fewer than there are workers."""
        return not self._ray.wait([self._place], timeout=0)[0]

    def release(self) -> None:
        """Let its process end in good order."""
        self._actor.release.remote()

    def kill(self) -> None:
        """End the actor, and its process with it."""
        self._ray.kill(self._actor)


class RayCluster(Launcher):
    """A Ray cluster, or a Ray of our own on this machine, which nobody else reaches."""

    def __init__(self, address: str | None = None) -> None:
        """Args: `address`, HOST:PORT of a running cluster; None: start one here, on loopback, for as long as we run."""
        self._address = address
        self._ray: Any = None
        self._free: dict[str, Place] = {}

    def __enter__(self) -> "RayCluster":
        """Join the cluster, or start one."""
        for name, value in QUIET.items():
            os.environ.setdefault(name, value)
        if self._address is None or self._address.rpartition(":")[0].strip("[]") in OURS:
            os.environ.setdefault(ON_LOOPBACK, "0")
        try:
            import ray
        except ModuleNotFoundError as error:
            raise UserError("launcher: Ray is not installed; install it with pip install 'qstudy[ray]'.") from error
        if self._address:
            _require_listener(self._address)
        own: dict[str, Any] = {"num_cpus": cores(), "object_store_memory": STORE_BYTES, "include_dashboard": False}
        stopped_by = signal.getsignal(signal.SIGTERM)  # Ray sets a handler of its own
        try:
            ray.init(self._address or "local", logging_level=logging.ERROR, **({} if self._address else own))
        except (ConnectionError, ValueError, RuntimeError, ray.exceptions.RayError) as error:
            raise _unusable(self._address or "this machine", str(error).strip().splitlines()[0]) from error
        signal.signal(signal.SIGTERM, stopped_by)
        self._ray = ray
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave the cluster; one of our own ends."""
        self._ray.shutdown()

    def workers(self, asked: int | None, one_machine: bool) -> int:
        """By default one per free GPU, or else one per node with free cores; at most one per such core."""
        nodes = self._nodes()
        others = {node["NodeManagerHostname"] for node in nodes} - {platform.node()}
        if one_machine and others:
            raise UserError(
                f"storage: the cluster has other machines ({', '.join(sorted(others))}), which a file on this one does "
                "not serve; give --storage postgresql://... or QSTUDY_STORAGE."
            )
        if not nodes:
            raise UserError("launcher: the Ray cluster has no CPUs; add a node.")
        self._free = free_places(nodes, self._available())
        free = self._free.values()
        cpus, gpus = sum(place.cpus for place in free), sum(place.gpus for place in free if place.cpus)
        count = min(asked or gpus or sum(place.cpus > 0 for place in free), cpus)
        if asked and count < asked:
            print(f"The Ray cluster has place for {count} of {asked} workers: going on with {count}.")
        return count

    def start(self, job: Job) -> RayWorker:
        """Ask Ray for a place and start a worker there."""
        nodes = [self._free.get(node["NodeID"], place_of(node["Resources"])) for node in self._nodes()]
        return RayWorker(self._ray, job, share(nodes, job.of))

    def _nodes(self) -> list[dict[str, Any]]:
        """Those that compute: a head may have no CPUs, and where some have GPUs no worker does without."""
        nodes = [node for node in self._ray.nodes() if node["Alive"] and place_of(node["Resources"]).cpus]
        return [node for node in nodes if place_of(node["Resources"]).gpus] or nodes

    def _available(self) -> dict[str, dict[str, float]]:
        """Node -> what nobody holds of it; in public Ray tells the cluster's sums alone."""
        from ray._private.state import available_resources_per_node

        found: dict[str, dict[str, float]] = available_resources_per_node()
        return found


def _require_listener(address: str) -> None:
    """Raise UserError if nobody listens there: Ray itself tries again for minutes."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), CONNECT_S).close()
    except (OSError, ValueError) as error:
        raise _unusable(address, str(error)) from error


def _unusable(address: str, said: str) -> UserError:
    return UserError(f"address: no Ray cluster can be used at {address}: {said.rstrip('.')}; give its HOST:PORT.")


def place_of(resources: Mapping[str, float]) -> Place:
    """The cores and GPUs among a node's resources."""
    return Place(int(resources.get("CPU", 0)), int(resources.get("GPU", 0)))


def free_places(nodes: Sequence[Mapping[str, Any]], available: Mapping[str, Mapping[str, float]]) -> dict[str, Place]:
    """What a sweep may ask each node for, so that it need not wait for others.

    Args:
        nodes: as Ray tells of them, all with GPUs or all without.
        available: node -> its resources that nobody holds.

    Returns:
        Node -> its free cores and GPUs; if no node has a place, what each had if its workers held a core each: those
        that wait, wait for little.
    """
    whole = {node["NodeID"]: place_of(node["Resources"]) for node in nodes}
    free = {name: place_of(available.get(name, {})) for name in whole}
    usable = {name: free[name] if free[name].gpus or not whole[name].gpus else Place(0, 0) for name in whole}
    if any(place.cpus for place in usable.values()):
        return usable
    return {name: Place(min(place.cpus, max(place.gpus, 1)), place.gpus) for name, place in whole.items()}


def share(nodes: Sequence[tuple[int, int]], workers: int) -> Share:
    """What each of some workers may hold so that all have a place: as many cores of one node as possible.

    Args:
        nodes: cores and GPUs of each. Where some have GPUs no worker does without; more workers than GPUs share them.
        workers: how many, at most one per core of those nodes.
    """
    has_gpus = any(own for _, own in nodes)

    def places(size: int, per_gpu: int) -> int:
        return sum(min(cpus // size, own * per_gpu) if has_gpus else cpus // size for cpus, own in nodes)

    per_gpu = next((count for count in range(1, workers) if places(1, count) >= workers), workers)
    sizes = range(max((cpus for cpus, _ in nodes), default=1), 1, -1)
    group = next((size for size in sizes if places(size, per_gpu) >= workers), 1)
    return Share(group, 1 / per_gpu if has_gpus else 0)
