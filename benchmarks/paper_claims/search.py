"""The whole search of a recognizer with two language models over beam widths, in half precision, 8 and 4 bits."""

from dataclasses import dataclass

from benchmarks.paper_claims import e2e_int4
from benchmarks.paper_claims.models import sizes
from qstudy.bits import resolve
from qstudy.hardware.accelerator import FILLS, Accelerator, load_accelerator
from qstudy.hardware.beams import BeamCurves, beam_curves
from qstudy.hardware.model_shapes import Sizes
from qstudy.hardware.search import GREEDY, Search
from qstudy.hardware.stream import REFERENCE, Speech

BEAMS = (1, 2, 4, 8, 16, 32)
WIDEST = 4096


@dataclass(frozen=True)
class Searched:
    """Our figures for one model on one device."""

    title: str
    parameters: int
    """Those of the language models included."""
    curves: BeamCurves
    equal: dict[str, int]
    """INT8, INT4 -> the widest beam, of powers of two up to `WIDEST`, that is no slower than one hypothesis in FP16."""

    def speedup(self) -> float:
        """FP16 over INT4, at the widest beam of the curves."""
        half, int4 = self.curves.latency_ms["FP16"][-1], self.curves.latency_ms["INT4"][-1]
        assert half is not None
        assert int4 is not None
        return half / int4


def price() -> list[Searched]:
    """The model of Fasoli et al. with both ways to fill an array, and this project's small one."""
    paper = [
        _price(f"the paper's model, {fill} tiles", sizes("e2e_int4"), e2e_int4.accelerator(fill), e2e_int4.SPEECH)
        for fill in FILLS
    ]
    scorer = sizes("lm")
    small = sizes("small").fused_with(scorer, "external_lm").fused_with(scorer, "source_lm")
    npu, title = load_accelerator("mobile_npu"), "small with language models"
    apart = _price(f"{title}, cells on the CPU", small, npu, REFERENCE, "products")
    spread = _price(f"{title}, in 3 batches a label", small, npu, REFERENCE, search=Search(batches_per_label=3))
    return [*paper, spread, apart, _price(title, small, npu, REFERENCE)]


def _price(
    title: str,
    model: Sizes,
    device: Accelerator,
    speech: Speech,
    placement: str = "accelerator",
    search: Search = GREEDY,
) -> Searched:
    maps = {
        form: resolve({"*": {"weight": bits, "activation": bits, "placement": placement}}, model.shapes)
        for form, bits in e2e_int4.FORMS.items()
    }
    doubled = tuple(2**n for n in range(WIDEST.bit_length()))
    far = beam_curves(model, maps, doubled, device, search, speech)
    most = far.latency_ms["FP16"][0]
    assert most is not None

    def widest(form: str) -> int:
        priced = zip(doubled, far.latency_ms[form], strict=True)
        return max(beam for beam, ms in priced if ms is not None and ms <= most)

    curves = beam_curves(model, maps, BEAMS, device, search, speech)
    parameters = sum(shape.parameters for shape in model.shapes)
    return Searched(title, parameters, curves, {form: widest(form) for form in ("INT8", "INT4")})
