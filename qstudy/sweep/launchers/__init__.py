"""Launchers: where a study's workers run. One file each; a user's own is named by its import path."""

from collections.abc import Callable

from qstudy.named import build
from qstudy.sweep.launchers.base import Launcher
from qstudy.sweep.launchers.local import ThisMachine
from qstudy.sweep.launchers.ray import RayCluster

LAUNCHERS: dict[str, Callable[..., Launcher]] = {"local": ThisMachine, "ray": RayCluster}


def build_launcher(name: str, address: str | None) -> Launcher:
    """The launcher of this name, or the user's own class by its import path.

    Raises:
        UserError: there is none, or it takes no address.
    """
    options = {} if address is None else {"address": address}
    launcher: Launcher = build({"name": name, **options}, LAUNCHERS, "launcher", kind=Launcher)
    return launcher
