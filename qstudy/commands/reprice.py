"""`qstudy reprice`."""

from pathlib import Path

RECORDS = "records.jsonl"
"""Of a report."""


def reprice(folder: Path, trust: Path | None = None) -> None:
    """Simulate finished runs anew, without training them: after a new version, or with a changed accelerator.

    Records get today's latencies and placement; all else in them stays.

    Args:
        folder: A run, a folder of runs, a study, or a report (its records; `qstudy report` then builds it anew).
        trust: A Python file of yours whose classes model files may name; they can run no other code.
    """
    from tqdm import tqdm

    from qstudy.named import trusting
    from qstudy.training import reprice as again

    stay = others = 0
    with trusting(trust):
        if (records := folder / RECORDS).is_file():
            priced = again.reprice_report(records)
            stay = sum(not again.can_price(record) for record, _ in priced)
        else:
            runs, others = again.runs_below(folder)
            bar = tqdm(runs, desc="runs", unit="run", leave=False, disable=None)
            priced = [again.reprice(run) for run in bar]
            lone = (
                record for run, (record, _) in zip(runs, priced, strict=True) if not (run / again.MODEL_FILE).is_file()
            )
            stay = sum(not again.can_price(record) for record in lone)
    moved = 0
    for record, after in priced:
        was, now = again.latencies(record), again.latencies(after)
        moved += was != now
        for name in (each for each in now if was.get(each) != now[each]):
            tqdm.write(f"{record.run}: {name}: {_ms(was.get(name))} -> {_ms(now[name])}")
    print(f"{moved} of {len(priced)} runs have a different latency now.")
    if stay:
        print(f"{stay} stay as they are: without their models, the cost of a search is unknown.")
    if others:
        print(f"{others} left out, of language models: what they cost is part of a search's record (`qstudy decode`).")


def _ms(latency: float | None) -> str:
    return "unknown" if latency is None else f"{latency:.2f} ms"
