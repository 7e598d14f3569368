"""Weights & Biases beside a run: a mirror of its record that may fail without costing anything."""

import os
import secrets
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from qstudy.files import read_json, write_json
from qstudy.training.record import headline

PROJECT = "qstudy"
FLUSH_S = "1"  # what a killed run loses at most; W&B's default is 15
FINISH_S = 60.0  # an upload that hangs longer is left to `wandb sync`
ID_FILE = "wandb.json"


class Tracker:
    """One run in W&B; every method is harmless when W&B is absent, away or broken.

    Offline by default. Online if the environment variable WANDB_MODE says `online` and the user is logged in. The runs
    of a study lie together in `studies/NAME/wandb`, so that `wandb leet` shows them side by side.
    """

    def __init__(
        self, folder: Path, study: str | None, name: str, config: dict[str, Any], enabled: bool = True
    ) -> None:
        """Start the run in W&B.

        Args:
            folder: of the run: `studies/NAME/runs/RUN`, or any folder if there is no study.
            study: W&B's group; None: none.
            name: of the run.
            config: the resolved run configuration.
            enabled: False: do nothing at all.
        """
        self._run: Any = None
        if enabled:
            self._guard("start", lambda: self._start(folder, study, name, config))

    def log(self, values: dict[str, float], step: int) -> None:
        """Log metrics of an optimizer step. A resumed run is a second W&B folder of the same run, from its step on."""
        if self._run is not None:
            self._guard("log", lambda: self._run.log(values, step=step))

    def finish(self, record: dict[str, Any], model: Path) -> None:
        """Add what came out (summary, tables, the packed model) and close the run.

        Args:
            record: the run's record.
            model: the packed model, which becomes an artifact.
        """
        if self._run is not None:
            self._guard("finish", lambda: self._finish(record, model))
            self._run = None

    def __enter__(self) -> "Tracker":
        """Track what happens in a `with` block: a run that an error or Ctrl-C ends is closed as crashed."""
        return self

    def __exit__(self, *_: object) -> None:
        if self._run is not None:
            self._guard("close", lambda: self._run.finish(exit_code=1))
            self._run = None

    def _start(self, folder: Path, study: str | None, name: str, config: dict[str, Any]) -> None:
        os.environ.setdefault("WANDB_X_TRANSACTION_LOG_FLUSH_INTERVAL", FLUSH_S)
        import wandb  # here: the package is optional, and takes half a second

        mode = _mode(wandb)
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            group=study,
            name=name,
            id=_identity(folder),
            config=config,
            dir=folder.resolve().parents[1] if study else folder.resolve(),
            mode=mode,
            resume="allow" if mode == "online" else None,
            settings=wandb.Settings(
                console="off",  # two programs that rewrite the terminal's last line are one too many
                silent=True,
                reinit="create_new",
                finish_timeout=FINISH_S,
                x_save_requirements=False,
                disable_git=True,
            ),
        )

    def _finish(self, record: dict[str, Any], model: Path) -> None:
        import wandb

        layers: list[Any] = [[name, *bits.values()] for name, bits in record["bit_map"].items()]
        names = list(next(iter(record["bit_map"].values()), {}))
        samples: list[Any] = [[sample["reference"], sample["hypothesis"]] for sample in record.get("samples", [])]
        self._run.log(
            {
                "layers": wandb.Table(columns=["layer", *names], data=layers),
                "transcripts": wandb.Table(columns=["reference", "hypothesis"], data=samples),
            }
        )
        for name, scores in record.get("metrics", {}).items():
            self._run.summary[f"{name}_wer"] = scores["wer"]
        self._run.summary.update(headline(record))
        artifact = wandb.Artifact(f"model-{self._run.id}", type="model", metadata=headline(record))
        artifact.add_file(str(model), policy="immutable")  # by reference: no second copy in the user's home
        self._run.log_artifact(artifact)
        self._run.finish()

    def _guard(self, doing: str, act: Callable[[], None]) -> None:
        """Do something with W&B; if it fails in any way, say so once and go on without it."""
        try:
            act()
        except Exception as error:  # whatever W&B raises, the run is worth more
            self._run = None
            print(f"W&B could not {doing} ({_sentence(error)}); the run goes on without it.", file=sys.stderr)
            _forget_service()


def _mode(wandb: Any) -> Any:
    """`offline`, unless the user asks otherwise by WANDB_MODE; `online` needs a login and a server that answers."""
    mode = os.environ.get("WANDB_MODE", "offline")
    if mode == "online":
        try:
            _ = wandb.Api().api_key  # asks the server, and never the user
        except Exception as error:  # not logged in, no network, server away: all of them mean offline
            print(f"W&B cannot be online ({_sentence(error)}); runs are tracked offline.", file=sys.stderr)
            os.environ["WANDB_MODE"] = mode = "offline"  # later runs of this process need not wait for it again
    return mode


def _forget_service() -> None:
    """Let go of W&B's service process, which may be dead: the next run starts another one."""
    if "wandb" in sys.modules:
        with suppress(Exception):
            sys.modules["wandb"].teardown()


def _sentence(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")


def _identity(folder: Path) -> str:
    """The run's W&B id, kept in its folder: a resumed run is the same run to W&B."""
    path = folder / ID_FILE
    if not path.exists():
        write_json(path, {"id": secrets.token_hex(4)})
    return str(read_json(path)["id"])
