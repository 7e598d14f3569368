"""The report on the papers' claims: the models load, and the committed figures are those that the simulator gives."""

import json
from pathlib import Path

import pytest

from benchmarks.paper_claims import e2e_int4
from benchmarks.paper_claims.models import scaled, sizes
from qstudy.cli import main

ROOT = Path(__file__).parent.parent
REPORT = ROOT / "reports" / "simulator"


def test_committed_figures_are_up_to_date() -> None:
    committed = json.loads((REPORT / "claims.json").read_text())["e2e_int4"]
    found = e2e_int4.price()
    for fill, priced in committed["filled"].items():
        for form, by_beam in priced["rtf"].items():
            assert found.filled[fill].rtf[form] == pytest.approx({int(beam): rtf for beam, rtf in by_beam.items()})


def test_the_printed_command_gives_the_committed_search(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    (command,) = [line for line in (REPORT / "README.md").read_text().splitlines() if line.startswith("qstudy beams")]
    main([*command.split()[1:], "--json"])
    printed = json.loads(capsys.readouterr().out)["latency_ms"]
    searched = json.loads((REPORT / "claims.json").read_text())["search"]
    committed = searched[-1]["curves"]["latency_ms"]
    assert committed == {form: pytest.approx(printed[form]) for form in ("FP16", "INT8", "INT4")}
    page = (ROOT / "docs" / "latency.md").read_text()
    assert command in page.splitlines()
    for row, beam in ((0, 1), (3, 8), (5, 32)):
        cells = [str(beam), *(f"{printed[form][row]:.2f}" for form in committed)]
        assert f"| {' | '.join(cells)} |" in page
    apart = searched[-2]["curves"]["latency_ms"]
    left, whole = apart["FP16"][-1] / apart["INT4"][-1], printed["FP16"][-1] / printed["INT4"][-1]
    assert f"leave {left:.1f}x of {whole:.0f}x" in page


def test_parameters_of_the_models() -> None:
    millions = {
        name: sum(s.parameters for s in sizes(name).shapes) / 1e6 for name in ("e2e_int4", "on_device", "small")
    }
    assert millions == pytest.approx({"e2e_int4": 162, "on_device": 58, "small": 1.97}, rel=0.01)
    encoder_and_decoder = [s for s in sizes("e2e_int4").shapes if "_lm" not in s.name]
    assert sum(s.parameters for s in encoder_and_decoder) / 1e6 == pytest.approx(57, rel=0.02)  # Saon et al. 2021: 57 M


def test_scaled_models_keep_inputs_and_labels() -> None:
    shapes = sizes("small").shapes
    twice = scaled(shapes, 2.0)
    assert twice[0].matrices == ((2048, 120), (2048, 512))
    assert twice[-1].matrices == ((29, 256),)
    assert scaled(shapes, 1.0) == shapes
