"""How a run ends: its model is packed, saved and scored, and its record written."""

from pathlib import Path
from typing import Any

from qstudy.model import RNNT
from qstudy.recognize.recognizer import describe, pack
from qstudy.training.assets import Assets
from qstudy.training.config import RunConfig, to_dict
from qstudy.training.environment import environment
from qstudy.training.evaluation import evaluate
from qstudy.training.price import Price, describe_price
from qstudy.training.record import MODEL_FILE, Record, write_record


def conclude(model: RNNT, config: RunConfig, cost: Price, assets: Assets, folder: Path, **entries: Any) -> Record:
    """Pack a model, save and score it, and write the record.

    Args:
        model: on the CPU, in evaluation mode, its slots as they are to be packed.
        config: the run.
        cost: what it was known to cost.
        assets: the sets that it is scored on.
        folder: receives `model.qst` and `record.json`.
        entries: of the record, beside those that follow from the above.
    """
    packed = pack(model, cost.bit_map, describe(config.model, config.features, assets.tokenizer, config.policy))
    packed.save(folder / MODEL_FILE)
    record = Record(
        state="complete",
        policy=config.policy["name"],
        config=to_dict(config),
        **{**describe_price(cost), "size_bytes": packed.size_bytes},
        **evaluate(model, packed, assets),
        file_bytes=(folder / MODEL_FILE).stat().st_size,
        seed=config.seed,
        **environment(),
        **entries,
    )
    return write_record(folder, record)
