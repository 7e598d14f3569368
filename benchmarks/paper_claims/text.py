"""The report in Markdown: `template.md` with the figures filled in."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from benchmarks.paper_claims.aat import AAT
from benchmarks.paper_claims.e2e_int4 import PAPER_RTF, PAPER_SPEEDUP, E2EInt4
from benchmarks.paper_claims.s8bqat import S8BQAT

TEMPLATE = Path(__file__).with_name("template.md")


def markdown(int4: E2EInt4, sub8: list[S8BQAT], aware: list[AAT]) -> str:
    """The whole page."""
    return TEMPLATE.read_text(encoding="utf-8").format(**_e2e_int4(int4), **_s8bqat(sub8), **_aat(aware))


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _e2e_int4(r: E2EInt4) -> dict[str, str]:
    half, int4 = r.rtf["FP16"][r.beam], r.rtf["INT4"][r.beam]
    rows = [[form, f"{rtf[r.beam]:.3f}", f"{r.speedup(form):.1f}x"] for form, rtf in r.rtf.items()]
    rows.append(["INT4, first layer and outputs INT8", f"{r.mixed_rtf:.3f}", f"{half / r.mixed_rtf:.1f}x"])
    rows.append(["*the paper, INT4*", f"*{PAPER_RTF}*", f"*{PAPER_SPEEDUP}x*"])
    fixed = r.fixed_rtf()
    return {
        "int4_table": _table([f"beam {r.beam}", "RTF", "over FP16"], rows),
        "int4_parameters": f"{r.parameters / 1e6:.0f}",
        "int4_fp16": f"{half:.2f}",
        "int4_speedup": f"{r.speedup():.1f}",
        "int4_faster": f"{PAPER_RTF / int4:.1f}",
        "int4_lm": f"{r.shares['FP16']['external_lm'] + r.shares['FP16']['source_lm']:.0%}",
        "int4_fixed": f"{fixed:.3f}",
        "int4_would": f"{int4 + fixed:.3f}",
        "int4_step": f"{1000 * fixed / 63:.2f}",
        "paper_rtf": f"{PAPER_RTF}",
        "paper_speedup": f"{PAPER_SPEEDUP}",
        "paper_fp16": f"{PAPER_RTF * PAPER_SPEEDUP:.2f}",
    }


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
