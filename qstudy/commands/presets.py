"""The command `qstudy presets`: the models that come with the program, and what each of them costs."""

import json as json_format
from dataclasses import asdict, dataclass

from rich.console import Console
from rich.table import Table

from qstudy.bits import BitPatterns
from qstudy.presets import load_preset, preset_names
from qstudy.settings import FeatureSettings, ModelConfig

FLOAT32: BitPatterns = {}
W4A8: BitPatterns = {"*": {"weight": 4, "activation": 8}}
HEADINGS = ("preset", "what it is", "parameters", "MMACs/s", "float32 MB", "reads MB/s", "W4A8 MB", "reads MB/s")
NOTE = (
    "MB: packed weights. Per second of audio, in an utterance of 4 s with 48 labels: multiply-accumulates, and weights "
    "that are read if none stay on chip between runs. Of amnet, half of the frames take the cheap branch."
)


@dataclass(frozen=True)
class Cost:
    """What weights of some widths cost."""

    size_bytes: int
    """Of the packed model."""
    read_bytes_per_s: float
    """Of weights per second of audio, if none stay on chip between runs."""


@dataclass(frozen=True)
class PricedPreset:
    """A preset, and what it costs per second of audio."""

    name: str
    about: str
    parameters: int
    macs_per_s: float
    """Multiply-accumulates."""
    float32: Cost
    w4a8: Cost


def presets(json: bool = False, markdown: bool = False) -> None:
    """Models to train by their names (`qstudy train --model.preset NAME`): parameters, computing, bytes.

    Args:
        json: Print one JSON object per line instead of a table.
        markdown: Print the table as Markdown.
    """
    priced = [price(name) for name in preset_names()]
    if json:
        for each in priced:
            print(json_format.dumps(asdict(each), allow_nan=False))
    elif markdown:
        print(markdown_table(priced))
    else:
        _print(priced)


def price(name: str) -> PricedPreset:
    """What a preset costs; nothing of its size is allocated.

    Raises:
        UserError: there is none of this name.
    """
    from qstudy.data.tokenizer import CharTokenizer
    from qstudy.hardware.memory import weights_read_per_second
    from qstudy.hardware.size import size_bytes
    from qstudy.hardware.stream import REFERENCE, runs_per_second
    from qstudy.hardware.table import Columns, widths
    from qstudy.hardware.workload import workload
    from qstudy.model import RNNT
    from qstudy.model.shapes_only import shapes_only
    from qstudy.quant.policies import build_policy

    preset = load_preset(name)
    with shapes_only():
        model = RNNT(ModelConfig(preset=name), FeatureSettings(), preset.labels or CharTokenizer().size)
    shapes = model.shapes()

    def cost(layers: BitPatterns) -> Cost:
        bit_map = build_policy({"name": "native_int", "layers": layers}).bit_map(shapes)
        read = weights_read_per_second(Columns(operators), widths(operators, [bit_map]), rates)
        return Cost(size_bytes(shapes, bit_map), float(read[0]))

    operators = workload(shapes, {}).operators
    rates = runs_per_second(operators, REFERENCE)
    macs = sum(rate * operator.macs for rate, operator in zip(rates.tolist(), operators, strict=True))
    parameters = sum(shape.parameters for shape in shapes)
    return PricedPreset(name, preset.about, parameters, macs, cost(FLOAT32), cost(W4A8))


def markdown_table(priced: list[PricedPreset]) -> str:
    """Presets as a Markdown table."""
    ruler = ["---", "---", *["---:"] * (len(HEADINGS) - 2)]
    rows = [HEADINGS, ruler, *map(_cells, priced)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _cells(priced: PricedPreset) -> list[str]:
    """One for each of `HEADINGS`."""
    costs = [f"{number / 1e6:.2f}" for cost in (priced.float32, priced.w4a8) for number in asdict(cost).values()]
    name = f"`{priced.name}`"
    return [name, priced.about, f"{priced.parameters:,}", f"{priced.macs_per_s / 1e6:.1f}", *costs]


def _print(priced: list[PricedPreset]) -> None:
    console, table = Console(), Table(header_style="bold")
    for heading in (HEADINGS[0], *HEADINGS[2:]):
        table.add_column(heading, justify="left" if heading == "preset" else "right", no_wrap=True)
    for each in priced:
        console.print(f"[bold]{each.name}[/bold]: {each.about}")
        _, _, *numbers = _cells(each)
        table.add_row(each.name, *numbers)
    console.print(table)
    console.print(f"[dim]{NOTE}[/dim]")
