"""Finished runs at today's prices: a simulator or a profile has changed, what was trained has not."""

from dataclasses import replace
from pathlib import Path

from qstudy.errors import UserError, naming
from qstudy.named import asked_by
from qstudy.quant.policies import build_policy
from qstudy.training.config import config_from_dict
from qstudy.training.load import load_recognizer
from qstudy.training.price import describe_price, price_layers
from qstudy.training.record import MODEL_FILE, RECORD_FILE, Record, read_record, write_record


def runs_below(folder: Path) -> list[Path]:
    """The folders of finished runs: this one, those in it, or a study's.

    Raises:
        UserError: there are none.
    """
    places = [folder, *sorted(folder.glob("*")), *sorted(folder.glob("runs/*"))]
    found = [place for place in places if (place / RECORD_FILE).is_file() and (place / MODEL_FILE).is_file()]
    if not found:
        raise UserError(f"{folder} holds no finished run ({RECORD_FILE} and {MODEL_FILE}); name another folder.")
    return found


def reprice(run: Path) -> tuple[Record, Record]:
    """Simulate a finished run's model anew, as its configuration says, and write what came out into its record.

    Args:
        run: the folder of the run, with its packed model.

    Returns:
        The record before and after: bit map (where layers are placed), layers and latencies are new. The backlog of an
        amortized encoder is of real utterances, and stays.

    Raises:
        UserError: record or model are damaged, or name what does not exist (any more).
    """
    before = read_record(run / RECORD_FILE)
    with naming(run / RECORD_FILE):
        if before.config is None:
            raise UserError("config: the record holds none; the run has to be made again.")
        config = config_from_dict(before.config)
    with asked_by(run / RECORD_FILE), naming(run / RECORD_FILE):
        shapes = load_recognizer(run / MODEL_FILE).model.shapes()
        entries = describe_price(price_layers(shapes, build_policy(config.policy).bit_map(shapes), config))
    after = replace(before, **{name: entries[name] for name in ("bit_map", "layers", "latency")})
    return before, after if after == before else write_record(run, after)


def latencies(record: Record) -> dict[str, float | None]:
    """Accelerator -> milliseconds; None: unknown."""
    return {name: totals.get("latency_ms") for name, totals in (record.latency or {}).items()}
