"""A run in Weights & Biases, from its start to its end."""

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import WandbLogger

from qstudy.secrets import hide
from qstudy.training.record import Record
from qstudy.training.tracking import Entry

PROJECT = "qstudy"
FLUSH_S = "1"  # what a killed run loses at most; W&B's default is 15
FINISH_S = 60.0  # an upload that hangs longer is left to `wandb sync`


class Tracker(WandbLogger):
    """Lightning's W&B logger for a run that has started; every method is harmless when W&B is away or breaks.

    Offline by default. Online if the environment variable WANDB_MODE says `online` and the user is logged in.
    """

    def __init__(self, run: Any) -> None:
        """Args: a run of W&B's."""
        super().__init__(experiment=run, save_dir=run.dir, project=run.project, id=run.id)

    @property
    def experiment(self) -> Any:
        """The run in W&B; None once it was closed or lost (Lightning's own logger would begin another)."""
        return self._experiment

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log metrics of an optimizer step. A resumed run is a second W&B folder of the same run, from its step on."""
        values = {name: value for name, value in metrics.items() if name != "epoch"}  # ours has none to speak of
        self._guard("log", lambda run: run.log(values, step=step))

    def finish(self, record: Record, model: Path | None = None) -> None:
        """Add what came out (summary, artifacts) and close the run.

        Args:
            record: the run's record.
            model: the packed model, which becomes an artifact.
        """
        self._guard("finish", lambda run: _finish(run, record, model))
        self._experiment = None

    def log_scatter(
        self, key: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], axes: tuple[str, str], step: int
    ) -> None:
        """Log a table and the scatter plot of two of its columns; a later one of the same key takes its place."""

        def log(run: Any) -> None:
            import wandb

            table = wandb.Table(columns=list(columns), data=[list(row) for row in rows])
            run.log({key: wandb.plot.scatter(table, *axes, title=" against ".join(reversed(axes)))}, step=step)

        self._guard("log", log)

    def close(self) -> None:
        """Close the run."""
        self._guard("close", lambda run: run.finish())
        self._experiment = None

    def __enter__(self) -> "Tracker":
        """Track what happens in a `with` block: a run that an error or Ctrl-C ends is closed as crashed."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, *_: object) -> None:
        def close(run: Any) -> None:
            if isinstance(error, Exception):
                run.summary["reason"] = hide(_sentence(error))
            run.finish(exit_code=1)

        self._guard("close", close)
        self._experiment = None

    def _guard(self, doing: str, act: Callable[[Any], None]) -> None:
        """Do something with the run, if there is one; if that fails in any way, say so once and go on without it."""
        if self._experiment is None:
            return
        try:
            act(self._experiment)
        except Exception as error:  # whatever W&B raises, the run is worth more
            self._experiment = None
            _go_on_without(doing, error)


def started(entry: Entry) -> Tracker | None:
    """A run that has started; None if W&B cannot (which is said)."""
    try:
        return Tracker(_new_run(entry))
    except Exception as error:  # whatever W&B raises, the run is worth more
        _go_on_without("start", error)
        return None


def _new_run(entry: Entry) -> Any:
    os.environ.setdefault("WANDB_X_TRANSACTION_LOG_FLUSH_INTERVAL", FLUSH_S)
    import wandb  # here: the package is optional, and takes half a second

    mode = _mode(wandb)
    return wandb.init(
        project=os.environ.get("WANDB_PROJECT", PROJECT),
        group=entry.study,
        name=entry.name,
        id=entry.identity,
        job_type=entry.job,
        tags=[tag for tag in entry.tags if tag],
        config=dict(entry.config),
        dir=entry.place,
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


def _finish(run: Any, record: Record, model: Path | None) -> None:
    metrics = record.metrics or {}
    if record.trial is not None and "dev" in metrics:  # the curve ends where the trial does, evaluated before or not
        run.log({"dev_wer": metrics["dev"]["wer"]}, step=record.steps or 0)
    for name, scores in metrics.items():
        run.summary[f"{name}_wer"] = scores["wer"]
    run.summary.update({**record.headline, "state": record.state})
    if record.reason:
        run.summary["reason"] = record.reason
    if model is not None:
        _add_artifacts(run, record, model)
    run.finish()


def _add_artifacts(run: Any, record: Record, model: Path) -> None:
    """The packed model; and the tables of layers and transcripts, which as logged values would be charts of their
    numbers of columns."""
    import wandb

    artifact = wandb.Artifact(f"model-{run.id}", type="model", metadata=record.headline)
    artifact.add_file(str(model), policy="immutable")  # by reference: no second copy in the user's home
    run.log_artifact(artifact)
    bit_map, samples = record.bit_map or {}, record.samples or []
    names = list(next(iter(bit_map.values()), {}))
    layers: list[Any] = [[name, *bits.values()] for name, bits in bit_map.items()]
    texts: list[Any] = [[sample["reference"], sample["hypothesis"]] for sample in samples]
    tables = wandb.Artifact(f"tables-{run.id}", type="tables")
    tables.add(wandb.Table(columns=["layer", *names], data=layers), "layers")
    tables.add(wandb.Table(columns=["reference", "hypothesis"], data=texts), "transcripts")
    run.log_artifact(tables)


def _go_on_without(doing: str, error: Exception) -> None:
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
