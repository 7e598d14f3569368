"""`qstudy reprice`."""

from pathlib import Path


def reprice(folder: Path, trust: Path | None = None) -> None:
    """Simulate finished runs anew, without training them: after a new version, or with a changed accelerator.

    Records get today's latencies and placement; all else in them stays.

    Args:
        folder: A run, a folder of runs, or a study.
        trust: A Python file of yours whose classes the runs may name; no other code is run for them.
    """
    from tqdm import tqdm

    from qstudy.named import trusting
    from qstudy.training import reprice as again

    runs, moved = again.runs_below(folder), 0
    for run in tqdm(runs, desc="runs", unit="run", leave=False, disable=None):
        with trusting(trust):
            was, now = (again.latencies(record) for record in again.reprice(run))
        moved += was != now
        for name in (each for each in now if was.get(each) != now[each]):
            tqdm.write(f"{run}: {name}: {_ms(was.get(name))} -> {_ms(now[name])}")
    print(f"{moved} of {len(runs)} runs have another latency now.")


def _ms(latency: float | None) -> str:
    return "unknown" if latency is None else f"{latency:.2f} ms"
