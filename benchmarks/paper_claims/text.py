"""The report in Markdown: `template.md` with the figures filled in."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from benchmarks.paper_claims.aat import AAT
from benchmarks.paper_claims.e2e_int4 import FORMS, PAPER_RTF, PAPER_SPEEDUP, E2EInt4, Priced, accelerator
from benchmarks.paper_claims.s8bqat import S8BQAT
from benchmarks.paper_claims.search import WIDEST, Searched
from qstudy.hardware.accelerator import FILLS, Fill
from qstudy.hardware.systolic import array_cycles

TEMPLATE = Path(__file__).with_name("template.md")


def markdown(int4: E2EInt4, searched: list[Searched], sub8: list[S8BQAT], aware: list[AAT]) -> str:
    """The whole page."""
    figures = {**_e2e_int4(int4), **_search(searched), **_s8bqat(sub8), **_aat(aware)}
    return TEMPLATE.read_text(encoding="utf-8").format(**figures)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _e2e_int4(r: E2EInt4) -> dict[str, str]:
    columns = [r.filled[fill] for fill in FILLS]
    rows = [
        [form, *(cell for p in columns for cell in (f"{p.rtf[form][r.beam]:.3f}", f"{p.speedup(form):.1f}x"))]
        for form in FORMS
    ]
    mixed = [(p.mixed_rtf, p.rtf["FP16"][r.beam] / p.mixed_rtf) for p in columns]
    rows.append(["INT4, first layer and outputs INT8", *(c for rtf, up in mixed for c in (f"{rtf:.3f}", f"{up:.1f}x"))])
    rows.append(["*the paper, INT4*", *(f"*{PAPER_RTF}*", f"*{PAPER_SPEEDUP}x*") * len(FILLS)])
    head = [f"beam {r.beam}", *(cell for fill in FILLS for cell in (f"RTF, {fill}", "over FP16"))]
    figures = {
        "int4_table": _table(head, rows),
        "int4_beam": f"{r.beam}",
        "int4_parameters": f"{r.parameters / 1e6:.0f}",
        "paper_rtf": f"{PAPER_RTF}",
        "paper_speedup": f"{PAPER_SPEEDUP}",
        "paper_fp16": f"{PAPER_RTF * PAPER_SPEEDUP:.2f}",
    }
    return figures | {f"{fill}_{name}": text for fill in FILLS for name, text in _filled(r.filled[fill], fill).items()}


def _filled(p: Priced, fill: Fill) -> dict[str, str]:
    half, int4, fixed = p.rtf["FP16"][p.beam], p.rtf["INT4"][p.beam], p.fixed_rtf()
    array = accelerator(fill).processor
    one, two = (
        array_cycles(p.beam, n * array.rows, 1, array.rows, array.columns, array.dataflow, fill) for n in (1, 2)
    )
    return {
        "tile": f"{two - one}",
        "fp16": f"{half:.3f}",
        "int4": f"{int4:.3f}",
        "speedup": f"{p.speedup():.1f}",
        "faster": f"{PAPER_RTF / int4:.1f}",
        "fp16_faster": f"{PAPER_RTF * PAPER_SPEEDUP / half:.1f}",
        "lm": f"{p.language_models('FP16'):.0%}",
        "compute": f"{p.bounds['FP16']['compute']:.1%}",
        "dram": f"{p.bounds['FP16']['bandwidth']:.0%}",
        "dram_int4": f"{p.bounds['INT4']['bandwidth']:.0%}",
        "fixed": f"{fixed:.3f}",
        "would": f"{int4 + fixed:.3f}",
        "step": f"{1000 * fixed / 63:.2f}",
    }


def _search(results: list[Searched]) -> dict[str, str]:
    head = ["beam", *(f"{r.title}, on {r.curves.accelerator}" for r in results)]
    rows = [[str(beam), *(_latencies(r, row) for r in results)] for row, beam in enumerate(results[0].curves.beams)]
    equal = [[f"{r.title}, on {r.curves.accelerator}", *(_beam(beam) for beam in r.equal.values())] for r in results]
    apart, together = results[-2:]
    millions = together.parameters / 1e6
    return {
        "search_apart": f"{apart.speedup():.1f}",
        "search_together": f"{together.speedup():.1f}",
        "search_parameters": f"{millions:.1f}",
        "search_fp16": f"{2 * millions:.1f}",
        "search_int4": f"{millions / 2:.1f}",
        "search_table": _table(head, rows),
        "search_equal": _table(["", *results[0].equal], equal),
    }


def _latencies(result: Searched, row: int) -> str:
    found = [column[row] for column in result.curves.latency_ms.values()]
    return " / ".join("unknown" if ms is None else f"{ms:.0f}" if ms >= 10 else f"{ms:.2f}" for ms in found)


def _beam(beam: int) -> str:
    return f"{beam} and more" if beam == WIDEST else f"{beam}"


def _s8bqat(results: list[S8BQAT]) -> dict[str, str]:
    bits = list(results[0].saving)
    named = [(f"{r.model} on {r.accelerator}", r) for r in results]
    saved = [[name, f"{r.latency_ms:.1f} ms", *(f"{r.saving[b]:.0%}" for b in bits)] for name, r in named]
    larger = [[name, *(_larger(r, b) for b in bits)] for name, r in named]
    grown = {entry.bits: entry for entry in results[0].larger}[5]
    return {
        "sub8_saving": _table(["", "8 bits", *(f"{b} bits" for b in bits)], saved),
        "sub8_larger": _table(["", *(f"{b} bits" for b in bits)], larger),
        "sub8_grown": f"{grown.parameters:.2f}",
        "sub8_footprint": f"{grown.footprint:.2f}",
    }


def _larger(result: S8BQAT, bits: int) -> str:
    found = {entry.bits: entry for entry in result.larger}.get(bits)
    return f"{found.parameters:.2f}x in {found.footprint:.2f}x" if found else "none"


def _aat(results: list[AAT]) -> dict[str, str]:
    placements = list(results[0].saving)
    named = [(f"{r.model} on {r.accelerator}", r) for r in results]
    saved = [[name, f"{r.handover_us:.0f} µs", *(f"{r.saving[p]:.1%}" for p in placements)] for name, r in named]
    claimed = [[name, *(_claimed(r, p) for p in placements)] for name, r in named]
    small, large = results
    return {
        "aat_saving": _table(["", "hand-over", *placements], saved),
        "aat_claimed": _table(["", *placements], claimed),
        "aat_small": f"{small.saving[placements[0]]:.1%}",
        "aat_large": f"{large.saving[placements[0]]:.0%}",
        "aat_layer": f"{large.saving[placements[1]]:.1%}",
    }


def _claimed(result: AAT, placement: str) -> str:
    found = result.claimed_at_us(placement)
    return f"{found[0]:.0f} to {found[1]:.0f} µs" if found else "never"
