"""Fasoli et al. 2022: from FP16 to INT4 end to end, language model fusion included; the paper says 3.4x, RTF 0.06."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from benchmarks.paper_claims.models import sizes, widths
from qstudy.bits import resolve
from qstudy.hardware.accelerator import FILLS, Accelerator, Fill, load_accelerator
from qstudy.hardware.search import Search
from qstudy.hardware.simulator import OperatorReport, Report, simulate
from qstudy.hardware.stream import Speech

PAPER_SPEEDUP, PAPER_RTF = 3.4, 0.06
BEAMS = (1, 2, 4, 8, 16, 32, 64)
SPEECH = Speech((5.0,), (65,), tail_ms=0.0)  # a turn of a conversation: 5 s, 13 characters a second
FORMS = {"FP16": 16, "INT8": 8, "INT4": 4}
LANGUAGE_MODELS = ("external_lm", "source_lm")


@dataclass(frozen=True)
class Priced:
    """Our figures for arrays that fill their tiles in one way."""

    beam: int
    """The model's own, to which all but `rtf` refer."""
    rtf: dict[str, dict[int, float]]
    """Form -> beam -> real-time factor."""
    mixed_rtf: float
    """INT4 with 8 bits in the first layer and the outputs."""
    shares: dict[str, dict[str, float]]
    """Form -> part of the model -> share of the time."""
    bounds: dict[str, dict[str, float]]
    """Form -> what takes longest -> share of the time in operators of which that is so."""

    def speedup(self, form: str = "INT4", beam: int | None = None) -> float:
        """FP16 over `form`."""
        beam = self.beam if beam is None else beam
        return self.rtf["FP16"][beam] / self.rtf[form][beam]

    def fixed_rtf(self) -> float:
        """Seconds per second of speech that no width changes and that would make our speed-up the paper's."""
        half, int4 = self.rtf["FP16"][self.beam], self.rtf["INT4"][self.beam]
        return (half - PAPER_SPEEDUP * int4) / (PAPER_SPEEDUP - 1)

    def language_models(self, form: str) -> float:
        """Their share of the time."""
        return sum(self.shares[form][name] for name in LANGUAGE_MODELS)


@dataclass(frozen=True)
class E2EInt4:
    """Our figures."""

    beam: int
    parameters: int
    filled: dict[Fill, Priced]


def price() -> E2EInt4:
    """Price the paper's model on the accelerator like the paper's, whose arrays may overlap their tiles or not."""
    model = sizes("e2e_int4")
    parameters = sum(shape.parameters for shape in model.shapes)
    return E2EInt4(model.search.beam or 1, parameters, {fill: _price(accelerator(fill)) for fill in FILLS})


def accelerator(fill: Fill) -> Accelerator:
    """The profile, with its arrays filled in one way."""
    profile = load_accelerator("int4_multicore")
    return replace(profile, processor=replace(profile.processor, fill=fill))


def _price(device: Accelerator) -> Priced:
    model = sizes("e2e_int4")
    beam = model.search.beam or 1

    def report(weight: int, beam: int) -> Report:
        return simulate(model.workload(widths(model.shapes, weight, weight), Search(beam)), device, SPEECH)

    edges = {name: {"weight": 8, "activation": 8} for name in ("encoder.0", "*.output")}
    mixed = resolve({"*": {"weight": 4, "activation": 4}, **edges}, model.shapes)
    own = {form: report(weight, beam) for form, weight in FORMS.items()}
    return Priced(
        beam=beam,
        rtf={form: {each: report(weight, each).rtf for each in BEAMS} for form, weight in FORMS.items()},
        mixed_rtf=simulate(model.workload(mixed), device, SPEECH).rtf,
        shares={form: _shares(each, lambda operator: operator.layer.split(".")[0]) for form, each in own.items()},
        bounds={form: _shares(each, lambda operator: operator.bound) for form, each in own.items()},
    )


def _shares(report: Report, part_of: Callable[[OperatorReport], str]) -> dict[str, float]:
    """Share of the time by what an operator is part of."""
    shares: dict[str, float] = {}
    for operator in report.operators:
        shares[part_of(operator)] = shares.get(part_of(operator), 0.0) + operator.load / report.rtf
    return shares
