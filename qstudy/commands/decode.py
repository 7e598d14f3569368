"""`qstudy decode`."""

from pathlib import Path

from qstudy.files import require_other


def decode(study: Path, root: Path = Path("studies"), cache: Path = Path("cache"), trust: Path | None = None) -> None:
    """Decode a test set with every search of a study: recognizers, language models, ways to fuse them, beam widths.

    Weights of language models are tuned on the dev set that the study names. What was decoded from the same files
    already is kept, so the same command goes on after an interruption; run it in several terminals to use more cores.

    Args:
        study: YAML file of the study, e.g. sweeps/int4-commands.yaml.
        root: Folder of all studies.
        cache: Folder of the feature cache.
        trust: A Python file of yours whose classes model files may name; they can run no other code.
    """
    from rich.console import Console
    from rich.table import Table

    from qstudy.named import trusting
    from qstudy.sweep.decoding.search_study import load_search_study
    from qstudy.sweep.decoding.searches import run_searches

    config = load_search_study(study)
    folder = root / config.study
    require_other(folder / "weights", "--root", study)
    with trusting(trust):
        records = run_searches(config, folder, cache / "features")
    table = Table(header_style="bold")
    table.add_column("search", no_wrap=True)
    for heading in ("WER (%)", "RTF", "MB", *(f"ms on {name}" for name in config.accelerator)):
        table.add_column(heading, justify="right")
    for record in records:
        scores = (record.metrics or {})["test"]
        latencies = [(record.latency or {})[name].get("latency_ms") for name in config.accelerator]
        cells = [100 * (scores.get("wer") or 0), scores.get("rtf"), (record.size_bytes or 0) / 1e6, *latencies]
        table.add_row(record.run, *("" if value is None else f"{value:.3g}" for value in cells))
    Console().print(table)
    if missing := len(config.cells) - len(records):
        print(f"{missing} of {len(config.cells)} searches are still running in other processes; run this again later.")
    print(f"Next: qstudy report {folder} --alone --table+ analysis.fusion.kept --figure+ analysis.fusion.by_beam")
