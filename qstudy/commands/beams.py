"""The command `qstudy beams`: latency of the whole search over beam widths, at several widths of the numbers."""

import json as json_format
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

from annotated_types import MinLen
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from qstudy.bits import BitMap
from qstudy.fields import checked
from qstudy.files import require_other, require_picture
from qstudy.hardware.accelerator import DEFAULT, load_accelerator
from qstudy.hardware.beams import BeamCurves, beam_curves
from qstudy.hardware.search import Beam, Search
from qstudy.hardware.simulator import UNKNOWN
from qstudy.hardware.stream import REFERENCE
from qstudy.named import trusting
from qstudy.workloads import load_model, speech_of, with_language_models, with_widths

Beams = Annotated[tuple[Beam, ...], MinLen(1)]
FORMS = {"FP16": "w16a16", "INT8": "w8a8", "INT4": "w4a4"}


def beams(
    model: Path,
    accelerator: str = DEFAULT,
    lm: Path | None = None,
    source_lm: Path | None = None,
    beams: tuple[int, ...] = (1, 2, 4, 8, 16, 32),
    bits: str | None = None,
    expansions: float | None = None,
    labels_per_hypothesis: float | None = None,
    batches_per_label: float | None = None,
    manifest: Path | None = None,
    json: bool = False,
    plot: Path | None = None,
    trust: Path | None = None,
) -> None:
    """Latency of the whole search over beam widths, in half precision, 8 and 4 bits: encoder, decoder, language models.

    Layers stay where the model's policy placed them, whatever the width.

    Args:
        model: A packed model (.qst), a checkpoint (.ckpt), a run configuration, or a YAML of sizes alone.
        accelerator: A profile's name, or the path of a YAML file.
        lm: A language model that scores every label of every hypothesis: a packed one (.qst), or a YAML of sizes.
        source_lm: The source domain's language model, for density ratio fusion.
        beams: Numbers of hypotheses, which go through each layer in one batch.
        bits: One more column, as in `simulate`: w4a8, or encoder.*=w4a8,*_lm.*=w8a8; the model's own widths otherwise.
        expansions: Time-synchronous search: how often per joint frame its hypotheses go through the joiner, at most one
            more than a frame may have labels; otherwise once per frame and once per label (greedy, alignment-length
            synchronous).
        labels_per_hypothesis: Labels that go through prediction network and language models, for each hypothesis and
            label of the transcript; 1 otherwise.
        batches_per_label: In how many batches these go through them, per label of the transcript; the whole beam in one
            otherwise, which takes the least.
        manifest: Take durations and label counts from it, in the labels of a packed model or a checkpoint, of other
            files in characters; one utterance of 4 s with 48 labels otherwise.
        json: Print one JSON object instead of a table.
        plot: Draw the curves to this file (.png, .svg or .pdf).
        trust: A Python file of yours whose classes model files may name; they can run no other code.
    """
    checked(Beams, list(beams), "beams")
    if plot is not None:
        require_picture(plot)
        others = [Path(name) for name in (accelerator, manifest, lm, source_lm) if name is not None]
        require_other(plot, "--plot", model, *others)
    search = Search(None, expansions, labels_per_hypothesis, batches_per_label)
    machine = load_accelerator(accelerator)
    with trusting(trust):
        speech = speech_of(manifest, model) if manifest else REFERENCE
        sizes = with_language_models(load_model(model), {"external_lm": lm, "source_lm": source_lm})
    curves = beam_curves(sizes, _bit_maps(sizes.bit_map, bits), beams, machine, search, speech)
    if json:
        print(json_format.dumps(asdict(curves), allow_nan=False))
    else:
        _print(curves)
    if plot is not None:
        from qstudy.hardware.plots import write_beam_plot  # matplotlib takes a second to import

        write_beam_plot(curves, plot)


def _bit_maps(own: BitMap, bits: str | None) -> dict[str, BitMap]:
    first = {"own widths": own} if bits is None else {bits: with_widths(own, bits)}
    return first | {name: with_widths(own, widths) for name, widths in FORMS.items()}


def _print(curves: BeamCurves) -> None:
    console, table = Console(), Table(header_style="bold")
    for heading in ("beam", *curves.latency_ms):
        table.add_column(escape(heading), justify="right", no_wrap=True)
    for row, beam in enumerate(curves.beams):
        cells = [column[row] for column in curves.latency_ms.values()]
        table.add_row(str(beam), *(UNKNOWN if cell is None else f"{cell:.2f}" for cell in cells))
    console.print(escape(f"{curves.model} on {curves.accelerator}: user-perceived latency, ms"), style="bold")
    console.print(table)
