"""Fasoli et al. 2022: from FP16 to INT4 end to end, language model fusion included; the paper says 3.4x, RTF 0.06."""

from dataclasses import dataclass

from benchmarks.paper_claims.models import sizes, widths
from qstudy.bits import resolve
from qstudy.hardware.accelerator import load_accelerator
from qstudy.hardware.simulator import Report, simulate
from qstudy.hardware.stream import Speech

PAPER_SPEEDUP, PAPER_RTF = 3.4, 0.06
BEAMS = (1, 2, 4, 8, 16, 32, 64)
SPEECH = Speech((5.0,), (65,), tail_ms=0.0)  # a turn of a conversation: 5 s, 13 characters a second
FORMS = {"FP16": 16, "INT8": 8, "INT4": 4}


@dataclass(frozen=True)
class E2EInt4:
    """Our figures."""

    beam: int
    parameters: int
    rtf: dict[str, dict[int, float]]
    """Form -> beam -> real-time factor."""
    mixed_rtf: float
    """INT4 with 8 bits in the first layer and the outputs, at the model's own beam."""
    shares: dict[str, dict[str, float]]
    """Form -> part of the model -> share of the time, at the model's own beam."""

    def speedup(self, form: str = "INT4", beam: int | None = None) -> float:
        """FP16 over `form`."""
        beam = self.beam if beam is None else beam
        return self.rtf["FP16"][beam] / self.rtf[form][beam]

    def fixed_rtf(self) -> float:
        """Seconds per second of speech that no width changes and that would make our speed-up the paper's."""
        half, int4 = self.rtf["FP16"][self.beam], self.rtf["INT4"][self.beam]
        return (half - PAPER_SPEEDUP * int4) / (PAPER_SPEEDUP - 1)


def price() -> E2EInt4:
    """Price the paper's model on the accelerator like the paper's."""
    model, accelerator = sizes("e2e_int4"), load_accelerator("int4_multicore")

    def report(weight: int, beam: int) -> Report:
        return simulate(model.workload(widths(model.shapes, weight, weight), beam), accelerator, SPEECH)

    edges = {name: {"weight": 8, "activation": 8} for name in ("encoder.0", "*.output")}
    mixed = resolve({"*": {"weight": 4, "activation": 4}, **edges}, model.shapes)
    return E2EInt4(
        beam=model.beam,
        parameters=sum(shape.parameters for shape in model.shapes),
        rtf={form: {beam: report(weight, beam).rtf for beam in BEAMS} for form, weight in FORMS.items()},
        mixed_rtf=simulate(model.workload(mixed), accelerator, SPEECH).rtf,
        shares={form: _shares(report(weight, model.beam)) for form, weight in FORMS.items()},
    )


def _shares(report: Report) -> dict[str, float]:
    """Share of the time by the first word of the layers' names."""
    shares: dict[str, float] = {}
    for operator in report.operators:
        part = operator.layer.split(".")[0]
        shares[part] = shares.get(part, 0.0) + operator.load / report.rtf
    return shares
