"""What each layer's widths alone do to a recognizer: one place of a space at a time, all others at their widest."""

import csv
import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from tqdm import tqdm

from qstudy.bits import FLOAT
from qstudy.files import write_json, write_text
from qstudy.sweep.config import Screening, StudyConfig
from qstudy.sweep.screening.allocations import Allocations
from qstudy.sweep.screening.screen import judge_of
from qstudy.training.config import RunConfig, to_dict
from qstudy.training.price import price


@dataclass(frozen=True)
class Row:
    """One place at one of its values."""

    place: str
    """Layers and field: `encoder.lstm.0 weight`; empty: all places at their widest."""
    value: str
    wer: float
    """On the dev set, a fraction."""
    loss: float
    """RNN-T loss per label, in nats."""
    loss_increase: float
    """Over all places at their widest."""
    size_bytes: int
    bytes_saved: int
    """Likewise."""


def study_of_run(config: RunConfig, widths: Sequence[int]) -> StudyConfig:
    """A run's layers as a space: each has these widths of weights or stays in float, under the policy `ptq`."""
    layers = [shape.name for shape in price(config).shapes if shape.quantizable and shape.matrices]
    policy = {"name": "ptq", "layers": {layer: {"weight": [FLOAT, *widths], "activation": FLOAT} for layer in layers}}
    base = {**to_dict(config), "policy": {"name": "ptq"}}  # whatever widths the run itself has
    return StudyConfig("sensitivity", base, space=({"policy": policy},), trials=1)


def measure(config: StudyConfig, utterances: int | None, folder: Path) -> list[Row]:
    """Evaluate every place of a study's space at each of its values, without training.

    Args:
        config: of which widths alone vary.
        utterances: of the dev set that are evaluated, spread over it; None: all.
        folder: keeps the scores, so that an interrupted measurement goes on.
    """
    allocations = Allocations(config)
    judge = judge_of(config, Screening(by="rounding", utterances=utterances), allocations, folder)
    members = list(allocations.star())
    rows: list[Row] = []
    for member in tqdm(members, desc="sensitivity", unit="allocation", disable=None):
        score = judge.score(allocations.named(member), allocations.bit_map(member))
        changed = [index for index, (a, b) in enumerate(zip(member, members[0], strict=True)) if a != b]
        place, value = allocations.told(member, changed[0]) if changed else ("", "")
        size = int(allocations.costs(member)["size_bytes"])
        first = rows[0] if rows else None
        worse, saved = (score.loss - first.loss, first.size_bytes - size) if first else (0.0, 0)
        rows.append(Row(place, value, *score, worse, size, saved))
    return rows


def write_rows(rows: Sequence[Row], folder: Path) -> None:
    """Write `sensitivity.csv` and `sensitivity.json`."""
    text = io.StringIO()
    table = csv.DictWriter(text, list(asdict(rows[0])), lineterminator="\n")
    table.writeheader()
    table.writerows(map(asdict, rows))
    write_text(folder / "sensitivity.csv", text.getvalue())
    write_json(folder / "sensitivity.json", [asdict(row) for row in rows])
