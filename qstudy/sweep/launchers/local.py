"""Workers as processes of this machine, each with its share of the cores, and a GPU of its own where there are any."""

import os

import torch

from qstudy.sweep.capacity import cores, fitting_workers
from qstudy.sweep.launchers.base import Job, Launcher
from qstudy.sweep.launchers.process import Process

GPUS_VARIABLE = "CUDA_VISIBLE_DEVICES"


class ThisMachine(Launcher):
    """The machine that the sweep was started on."""

    def workers(self, asked: int | None, one_machine: bool) -> int:
        """By default one per GPU; at most as many as the memory bears. One alone is this process."""
        gpus = len(visible_gpus())
        count = fitting_workers(asked or max(gpus, 1), gpus)
        return count if count > 1 else 0

    def start(self, job: Job) -> Process:
        """Start a process with its share of the cores."""
        gpus = visible_gpus()
        own = {GPUS_VARIABLE: gpus[job.number % len(gpus)]} if gpus and job.of > 1 else {}
        return Process(job, cores() // job.of, own)


def visible_gpus() -> list[str]:
    """The GPUs of this machine that the environment lets us see, as CUDA_VISIBLE_DEVICES names them."""
    named = os.environ.get(GPUS_VARIABLE)
    count = torch.cuda.device_count()  # asks the driver, and leaves the GPUs to the workers
    return [name.strip() for name in named.split(",")][:count] if named else [str(index) for index in range(count)]
