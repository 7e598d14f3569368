"""`qstudy branches`: on which frames an amortized encoder computes in full, and how far behind that puts a device."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from annotated_types import Ge, Le

from qstudy.hardware.accelerator import DEFAULT, Accelerator, load_accelerator

if TYPE_CHECKING:
    import numpy as np

    from qstudy.hardware.backlog import Backlog
    from qstudy.hardware.workload import Workload
    from qstudy.recognize.recognizer import Recognizer

Decibel = Annotated[float, Ge(0), Le(200)]
NEPER_DB = 4.342944819  # of a power: what one unit of a natural logarithm is


@dataclass(frozen=True)
class Heard:
    """One utterance, and what the encoder spent on it."""

    path: Path
    text: str
    mel: "np.ndarray"
    """Log-mel energies (F, D)."""
    full: "np.ndarray"
    """Which frames took the full branch (T, layers) bool."""
    silent: "np.ndarray"
    """Which of these frames are quiet (T,) bool."""
    stack: int
    """Feature frames in each of them."""
    backlog: "Backlog"


def branches(
    model: Path,
    audio: list[Path],
    out: Path = Path("branches.png"),
    accelerator: str = DEFAULT,
    silence: Decibel = 30.0,
    trust: Path | None = None,
) -> None:
    """Show on which frames an amortized encoder takes its full branch, over the spectrogram of the first sound.

    Args:
        model: A packed model (.qst) or a checkpoint (.ckpt) with an amortized encoder.
        audio: Sound files, any sample rate.
        out: The picture, as PNG, PDF or SVG.
        accelerator: Profile by which the backlog is simulated: a name or a YAML file.
        silence: A frame this many decibels below the loudest of its utterance counts as silent.
        trust: A Python file of yours whose classes model files may name; they can run no other code.

    Raises:
        UserError: the encoder has no branches, or a file cannot be read.
    """
    import numpy as np

    from qstudy.errors import UserError
    from qstudy.files import require_other, require_picture
    from qstudy.named import trusting
    from qstudy.training.load import load_recognizer
    from qstudy.workloads import load_workload

    require_picture(out, "--out")
    require_other(out, "--out", model, *audio, Path(accelerator), *([trust] if trust else []))
    with trusting(trust):
        recognizer, workload = load_recognizer(model), load_workload(model)
    if recognizer.model.encoder.branching is None:
        raise UserError(f"{model}: its encoder has no branches; give a model whose encoder is `amortized`.")
    device = load_accelerator(accelerator)
    heard = [_hear(path, recognizer, workload, device, silence) for path in audio]
    _draw(heard[0], recognizer.features.hop_ms, device.name, out)
    full, silent = (np.concatenate([getattr(each, part) for each in heard]) for part in ("full", "silent"))
    for name, chosen in (("speech", ~silent), ("silence", silent)):
        shares = ", ".join(f"{100 * share:.0f} %" for share in full[chosen].mean(0)) if chosen.any() else "no frame"
        print(f"{name}: {chosen.sum()} frames; in full, by layer: {shares}")
    worst = max(heard, key=lambda each: each.backlog.worst_ms)
    latency = float(np.median([each.backlog.latency_ms for each in heard]))
    print(
        f"{device.name}: median latency {latency:.2f} ms; worst backlog {worst.backlog.worst_ms:.2f} ms ({worst.path})"
    )
    print(f"Written: {out}")


def _hear(path: Path, recognizer: "Recognizer", workload: "Workload", device: Accelerator, silence: float) -> Heard:
    import numpy as np
    import torch

    from qstudy.data.audio import read_audio
    from qstudy.data.features import extract
    from qstudy.errors import UserError
    from qstudy.hardware.backlog import backlog

    samples = torch.from_numpy(read_audio(path, recognizer.features.sample_rate))
    mel = extract(recognizer.filterbank, samples)
    encoder = recognizer.model.encoder
    labels = recognizer.listen(samples)[0].labels
    taken = encoder.taken(mel)
    choices = [frames for layers, frames in taken.items() if layers.endswith(".full.*")]
    if not choices:
        raise UserError(
            f"None of the encoder's branches is called `full` ({', '.join(taken)}); name those of its layers so."
        )
    full = np.stack(choices, 1)
    stack = encoder.chunk_frames // encoder.reduction
    energy = mel.numpy()[: len(full) * stack].max(1).reshape(len(full), stack).mean(1)
    duration_s, tail_ms = len(samples) / recognizer.features.sample_rate, recognizer.features.tail_ms
    behind = backlog(workload, device, taken, duration_s, len(labels), tail_ms)
    quiet = energy < energy.max(initial=-np.inf) - silence / NEPER_DB
    return Heard(path, recognizer.tokenizer.decode(labels), mel.numpy(), full, quiet, stack, behind)


def _draw(heard: Heard, hop_ms: float, device: str, out: Path) -> None:
    """The spectrogram, the layers' choices below it, and the backlog."""
    from matplotlib.figure import Figure

    from qstudy.files import replacing

    end, layers = len(heard.mel) * hop_ms / 1000, heard.full.shape[1]
    figure = Figure(figsize=(6.6, 3.6 + 0.2 * layers), layout="constrained")
    sound, chosen, behind = figure.subplots(3, sharex=True, height_ratios=[4, layers, 2])
    sound.imshow(heard.mel.T, origin="lower", aspect="auto", extent=(0, end, 0, heard.mel.shape[1]), cmap="magma")
    sound.set(ylabel="Mel bin", title=f"“{heard.text}”")
    covered = len(heard.full) * heard.stack * hop_ms / 1000
    look = {"cmap": "Greys", "vmin": 0, "vmax": 1.4, "interpolation": "nearest"}
    chosen.imshow(heard.full.T, aspect="auto", extent=(0, covered, layers - 0.5, -0.5), **look)
    chosen.set(ylabel="Layer", yticks=range(layers))
    behind.step(heard.backlog.times_s, 1e3 * heard.backlog.delays_s, where="post", color="#d55e00", lw=1)
    behind.set(xlabel="Seconds", ylabel="Backlog (ms)", xlim=(0, end))
    behind.set_ylim(bottom=0)
    figure.text(0.99, 0.01, f"dark: full branch; backlog on {device}", ha="right", fontsize=7)
    out.parent.mkdir(parents=True, exist_ok=True)
    with replacing(out) as temporary:
        figure.savefig(temporary, format=out.suffix.removeprefix("."), dpi=150)
