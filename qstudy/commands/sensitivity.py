"""`qstudy sensitivity`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from annotated_types import Ge, Le, MinLen

from qstudy.fields import checked
from qstudy.files import content_hash, require_other, safe_name

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qstudy.sweep.config import StudyConfig
    from qstudy.sweep.screening.sensitivity import Row

Bits = Literal[2, 3, 4, 5, 6, 7, 8, 16]
Widths = Annotated[tuple[Bits, ...], MinLen(1)]
WIDTHS = (8, 6, 4, 3, 2)
Utterances = Annotated[int, Ge(1), Le(1_000_000)]


def sensitivity(
    config: Path, widths: list[int] | None = None, utterances: int | None = None, out: Path | None = None
) -> None:
    """Error rates with one layer at a time in few bits, by rounding alone: what which layer can bear.

    Of a run configuration each layer's weights are rounded (ptq) while all others stay in float; of a study each place
    of its space takes each of its values while all others have their widest, under the study's policy without training.
    The dev set is what is evaluated. The same command goes on after an interruption.

    Args:
        config: YAML file of a run (sweeps/base/digits.yaml) or of a study (sweeps/digits-search.yaml).
        widths: Of a run's layers; by default 8, 6, 4, 3 and 2 bits.
        utterances: Evaluate so many of the dev set, spread over it; by default all.
        out: Folder of sensitivity.csv, sensitivity.json and sensitivity.png; by default runs/sensitivity-NAME-HASH, of
            the file's name and of all that was asked.
    """
    bits = checked(Widths, tuple(dict.fromkeys(WIDTHS if widths is None else widths)), "--widths")
    checked(Utterances | None, utterances, "--utterances")
    from qstudy.sweep.screening.plots import draw_sensitivity
    from qstudy.sweep.screening.sensitivity import measure, write_rows

    study = _study(config, bits)
    asked = content_hash(study.to_dict(), utterances)[:8]  # files of one name may differ
    folder = out or Path("runs") / f"sensitivity-{safe_name(config.stem, 'config')}-{asked}"
    for name in ("sensitivity.csv", "sensitivity.json", "sensitivity.png"):
        require_other(folder / name, "--out", config)
    rows = measure(study, utterances, folder)
    write_rows(rows, folder)
    draw_sensitivity(rows, folder / "sensitivity.png")
    _print(rows)
    print(f"Written: {folder / 'sensitivity.csv'}, {folder / 'sensitivity.png'}")


def _study(config: Path, widths: "Sequence[int]") -> "StudyConfig":
    from qstudy.errors import UserError, naming
    from qstudy.sweep.config import load_study
    from qstudy.sweep.screening.sensitivity import study_of_run
    from qstudy.sweep.space import screened_policy, varied
    from qstudy.training.config import load_config
    from qstudy.yaml_file import load_yaml

    with naming(config):
        if "study" not in load_yaml(config):
            return study_of_run(load_config(config), widths)
    study = load_study(config)
    if not screened_policy(study.space):
        raise UserError(f"{config}: space: give a study in whose space nothing varies but widths (policy.layers).")
    if all(len(place.values) == 1 for place in varied(study.space[0])):
        raise UserError(f"{config}: space: each of its lists has one value; give some of them two or more.")
    return study


def _print(rows: "Sequence[Row]") -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(header_style="bold")
    table.add_column("layers", no_wrap=True)
    for heading in ("value", "dev WER (%)", "added loss", "kB", "kB saved"):
        table.add_column(heading, justify="right")
    for row in rows:
        cells = f"{100 * row.wer:.2f}", f"{row.loss_increase:+.3f}"
        sizes = f"{row.size_bytes / 1e3:,.1f}", f"{row.bytes_saved / 1e3:,.1f}"
        table.add_row(row.place or "all at their widest", row.value, *cells, *sizes)
    Console().print(table)
