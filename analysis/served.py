"""A table of models trained in one way and served in another: the same weights on an accelerator's operators.

The question is that of Shakiah et al. 2022 (arXiv 2305.07778): what does the accelerator's arithmetic cost a model that
has never met it, and how much of that does training under it win back?

    qstudy report studies/accelerator_aware --table analysis.served.served

A model is served elsewhere by a run of `finetune.steps: 0` that starts from its file. What a run was trained as is told
by the name of the folder that it starts from, or by its own policy if it was trained.
"""

import re
from pathlib import PurePosixPath
from typing import Any

import pandas as pd

from analysis.differences import Difference, between, columns
from analysis.records import parsed
from analysis.study import Study
from analysis.tables.table import GAP, RATE, Column, Table, gap, rate, with_rates
from analysis.text import DASH, number
from analysis.verdicts import not_worse, verdicts

FORMATS = ("rounding", "nonlinearity", "entries", "gate_fraction", "cell_fraction", "cell_bits", "linear_fraction")
COLUMNS = (
    Column("trained", "Trained as"),
    Column("served", "Served as"),
    Column("on", "Cells on"),
    rate("wer", "WER (%) [95 %]"),
    gap("Δ to what was trained for it (points)"),
    Column("verdict", "Not worse?"),
    Column("latency_ms", "Latency (ms)", "r", number, missing=DASH),
)


def served(study: Study) -> Table | None:
    """A row per setting, by how it is served; None: all are served as they were trained."""
    found = study.settings[study.settings.policy != "float"]
    if found.empty or not (found.steps == 0).any():
        return None
    told = pd.DataFrame(
        [_told(record, steps) for record, steps in zip(found.record, found.steps, strict=True)], found.index
    )
    found = found.join(told).sort_values(["served", "trained"], kind="stable").reset_index(drop=True)
    gaps = {place: told for place in found.index if (told := _gap(study, found, place)) is not None}
    words = verdicts([not_worse(one) for one in gaps.values()])
    frame = with_rates(found).join(columns(gaps))
    frame["verdict"] = pd.Series(dict(zip(gaps, map(str, words), strict=True)), dtype=object)
    caption = (
        f"Models by how they were trained and how they are served, on {study.described_split}. Served elsewhere: the "
        "trained weights under the other operators, calibrated, not trained. Δ: minus the model that was trained under "
        f"the operators that serve it, with the 95 % interval of a paired bootstrap over {study.resampled}; not worse: "
        "by less than a tenth of its rate, with Holm's correction. Cells on: where LSTM cells and other operators that "
        f"are prone to errors run. Latency: simulated on {next(iter(study.accelerators), 'no accelerator')}."
    )
    names = list(dict.fromkeys([*(column.key for column in COLUMNS), "run", *GAP, *RATE]))
    return Table("served", "Trained in one way, served in another", caption, frame[names], COLUMNS)


def _told(record: bytes, steps: float) -> dict[str, str]:
    config: dict[str, Any] = parsed(record).get("config") or {}
    policy: dict[str, Any] = config.get("policy") or {}
    formats = " ".join(f"{name}={policy[name]}" for name in FORMATS if name in policy)
    own = f"{policy.get('name')} {formats}".strip()
    aware = policy.get("name") == "accelerator_aware"
    return {"served": own, "trained": own if steps else _start(config), "on": "accelerator" if aware else "CPU"}


def _start(config: dict[str, Any]) -> str:
    """`native_int` of `studies/NAME/runs/trial-0003-native_int/model.qst`."""
    folder = PurePosixPath(str(config.get("start") or "float")).parent.name
    return re.sub(r"^trial-\d+-", "", folder) or "float"


def _gap(study: Study, found: pd.DataFrame, place: int) -> Difference | None:
    """The setting minus the one that was trained as it is served."""
    one = found.loc[place]
    alike = (found.served == one.served) & (found.bits == one.bits) & (found.parameters == one.parameters)
    own = found[alike & (found.steps > 0)]
    return None if own.empty or one.steps > 0 else between(study, one, own.iloc[0])
