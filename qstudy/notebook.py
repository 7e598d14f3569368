"""What a notebook does with models and files: `load`, `transcribe`, `simulate`. `import qstudy` offers them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, TypeVar, overload

from qstudy.errors import UserError
from qstudy.hardware.accelerator import DEFAULT, load_accelerator
from qstudy.hardware.model_shapes import Sizes
from qstudy.hardware.search import Search
from qstudy.hardware.simulator import Report
from qstudy.hardware.simulator import simulate as price
from qstudy.hardware.stream import REFERENCE, Speech
from qstudy.named import trusting
from qstudy.workloads import load_model, with_language_models, with_widths

if TYPE_CHECKING:  # the command line finds these functions by the names of its own, and answers without torch
    from torch import Tensor, nn

    from qstudy.quant.packed.model import PackedModel
    from qstudy.recognize.recognizer import Recognizer

Model = TypeVar("Model", bound="nn.Module")
File = str | Path


@overload
def load(path: File, *, trust: File | None = None) -> Recognizer: ...


@overload
def load(path: File, into: Model, trust: File | None = None) -> Model: ...


def load(path: File, into: Model | None = None, trust: File | None = None) -> Recognizer | Model:
    """A recognizer from a file of ours, or any model from what `pack` made of it.

    Args:
        path: a packed model (.qst), or a run's checkpoint (.ckpt).
        into: a freshly built float model, for a file that is no recognizer: it becomes the packed one, in place. None:
            the file describes a recognizer, which is built.
        trust: a Python file of yours whose classes the model file may name; no other code is run for it than this file
            and what it imports.

    Raises:
        UserError: the file is missing or damaged, or of another model than `into`.

    Example:
        >>> recognizer = qstudy.load("sweeps/base/commands.qst")
        >>> recognizer.features.sample_rate
        16000
    """
    from qstudy.quant.quantize import load_into
    from qstudy.training.load import load_recognizer

    with trusting(None if trust is None else Path(trust)):
        return load_recognizer(Path(path)) if into is None else load_into(into, path)


def transcribe(model: Recognizer | File, audio: Tensor | File, trust: File | None = None) -> str:
    """The text of an utterance.

    Args:
        model: from `load`, or what it takes.
        audio: a wav or flac file of any sample rate, or samples (N,) float32 in [-1, 1] at the model's.
        trust: as for `load`.

    Raises:
        UserError: a file is missing or damaged, or these are no samples.

    Example:
        >>> qstudy.transcribe("sweeps/base/commands.qst", torch.zeros(16000))
        ''
    """
    import torch

    from qstudy.data.audio import read_audio
    from qstudy.recognize.recognizer import Recognizer

    recognizer = model if isinstance(model, Recognizer) else load(model, trust=trust)
    if isinstance(audio, str | Path):
        audio = torch.from_numpy(read_audio(Path(audio), recognizer.features.sample_rate))
    _require_samples(audio)
    return recognizer.transcribe(audio)


def _require_samples(audio: object) -> None:
    import torch

    if not isinstance(audio, torch.Tensor):
        raise UserError(f"audio: {type(audio).__name__} is neither a file nor a tensor of samples; torch.from_numpy?")
    if audio.dim() != 1 or not audio.is_floating_point():
        raise UserError(
            f"audio: {audio.dtype} of shape {tuple(audio.shape)}; give one channel, (N,), as floats in [-1, 1]: 16-bit "
            "integers divided by 32768."
        )
    if not audio.isfinite().all():
        raise UserError("audio: a sample is not finite; mend what reads or makes them.")


def simulate(
    model: nn.Module | PackedModel | File,
    accelerator: File = DEFAULT,
    bits: str | None = None,
    beam: int | None = None,
    speech: Speech = REFERENCE,
    lm: File | None = None,
    source_lm: File | None = None,
) -> Report:
    """Latency, traffic and energy of a model on a described accelerator.

    Args:
        model: from `quantize` (calibrated or not) or from `pack`; or a file: a packed model, a checkpoint, a run
            configuration, a YAML of sizes.
        accelerator: a profile's name, or a YAML file.
        bits: widths instead of the model's own: w4a8 for all layers, or encoder.*=w4a8,joiner.*=w8a8 for those alone.
        beam: hypotheses that the decoder carries; the model's own or 1.
        speech: the utterances.
        lm: a file of a language model that scores every label of every hypothesis.
        source_lm: a file of the source domain's, for density ratio fusion.

    Returns:
        The report; totals are None where no rate is set for some layer (`quantize(..., rates=...)`).

    Raises:
        UserError: a file is missing or damaged, or nothing on the device computes in the widths of a layer.

    Example:
        >>> report = qstudy.simulate("sweeps/base/commands.qst", "mobile_npu", bits="w4a8")
        >>> 0 < report.latency_ms < 100
        True
    """
    sizes = load_model(Path(model)) if isinstance(model, str | Path) else _sizes(model)
    scorers = {"external_lm": lm, "source_lm": source_lm}
    sizes = with_language_models(sizes, {name: Path(path) for name, path in scorers.items() if path is not None})
    widths = sizes.bit_map if bits is None else with_widths(sizes.bit_map, bits)
    return price(sizes.workload(widths, Search(beam)), load_accelerator(str(accelerator)), speech)


def _sizes(model: nn.Module | PackedModel) -> Sizes:
    from qstudy.quant.packed.model import PackedModel
    from qstudy.quant.quantize import policy_of
    from qstudy.quant.state import layer_shapes

    if isinstance(model, PackedModel):
        return Sizes(type(model).__name__, tuple(model.shapes), model.bit_map)
    shapes = layer_shapes(model)
    return Sizes(type(model).__name__, tuple(shapes), policy_of(model).bit_map(shapes))
