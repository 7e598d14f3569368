"""`python -m benchmarks.paper_claims [--out DIR]`: price three papers' latency claims, write `reports/simulator`."""

import argparse
from dataclasses import asdict
from pathlib import Path

from tqdm import tqdm

from benchmarks.paper_claims import aat, e2e_int4, plots, s8bqat, search, text
from qstudy.files import write_json, write_text


def main() -> None:
    """Price, draw, write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.paper_claims", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("reports/simulator"), help="folder of the report")
    out = parser.parse_args().out
    with tqdm(total=4, desc="pricing", disable=None) as progress:
        int4 = e2e_int4.price()
        progress.update()
        searched = search.price()
        progress.update()
        sub8 = s8bqat.price()
        progress.update()
        aware = aat.price()
        progress.update()
    plots.e2e_int4(int4, out / "e2e_int4.png")
    plots.search(searched, out / "search.png")
    plots.s8bqat(sub8, out / "s8bqat.png")
    plots.aat(aware, out / "aat.png")
    lists = {"search": searched, "s8bqat": sub8, "aat": aware}
    figures = {"e2e_int4": asdict(int4)}
    figures |= {name: [asdict(each) for each in found] for name, found in lists.items()}
    write_json(out / "claims.json", figures)
    write_text(out / "README.md", text.markdown(int4, searched, sub8, aware))
    print(f"Written: {out / 'README.md'}")


if __name__ == "__main__":
    main()
