"""A study of policies: variants told apart, runs compared utterance by utterance, claims, choices, several studies."""

import copy
import subprocess
import sys
from pathlib import Path
from typing import Any

import analysis_study as made
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_analysis_report import Resources

from analysis.claims import FAILS, HOLDS, OPEN, findings, summaries
from analysis.difference import difference
from analysis.parse import parse_run
from analysis.quantizers import quantizers_table
from analysis.records import Run
from analysis.report import report
from analysis.study import Study, load_study
from analysis.style import marks
from analysis.variants import with_variants
from analysis.widths import rows
from analysis.widths_table import costs_table

ROOT = Path(__file__).parents[1]
WORDS = 5  # of every utterance
UTTERANCES = 200


def run(policy: dict[str, Any], width: int, share: float, activation: int = 8, **fields: Any) -> dict[str, Any]:
    """A record whose utterances have an error each, up to this share of them."""
    wrong = round(share * UTTERANCES)
    rate = wrong / (WORDS * UTTERANCES)
    scores = {"wer": rate, "wer_low": 0.8 * rate, "wer_high": 1.2 * rate}
    edits = {"errors": " ".join(["1"] * wrong + ["0"] * (UTTERANCES - wrong)), "words": " ".join(["5"] * UTTERANCES)}
    bits = {"weight": width, "activation": activation}
    return {
        "run": f"{'-'.join(map(str, policy.values()))}-{width}-{activation}",
        "policy": policy["name"],
        "state": "complete",
        "study": "made",
        "trial": width,
        "steps": 0 if policy["name"] == "ptq" else 200,
        "config": {"policy": policy | {"layers": {"*": bits}}},
        "bit_map": {"encoder.lstm": bits, "joiner": bits},
        "metrics": {"test": scores, "dev": scores},
        "utterances": {"test": edits},
        "training_model_wer": rate,
        "size_bytes": 1000 * width,
        "step_ms": {"median": 12.0},
        "baseline": {"id": "float"},
    } | fields


MAX = {"name": "ptq", "weight_range": "max", "activation_range": "max"}
GPTQ = {"name": "ptq", "weight_range": "mse", "rounding": "gptq"}
FAKE = {"name": "fake_qat"}


def study(records: list[dict[str, Any]]) -> Study:
    return Study("made", tuple(with_variants([parse_run(record) for record in records])), "test")


def policies() -> list[dict[str, Any]]:
    """A baseline with 10 % wrong, rounding that breaks at 4 bits, training that does not, and a worse one."""
    floats = {"name": "float"}
    return [
        run(floats, 32, 0.10, 32, baseline=None),
        run(floats, 32, 0.09, 32, run="control"),
        *(run(MAX, width, share) for width, share in ((8, 0.1), (4, 0.4), (3, 0.9))),
        *(run(GPTQ, width, share) for width, share in ((8, 0.1), (4, 0.2), (3, 0.5))),
        *(run(FAKE, width, share) for width, share in ((8, 0.11), (4, 0.12), (3, 0.9))),
        *(
            run({"name": "native_int"}, width, share, training_model_wer=share / WORDS + 0.002)
            for width, share in ((8, 0.3), (4, 0.6), (3, 0.2))
        ),
    ]


def test_variants_of_a_policy_are_told_apart_by_what_varies():
    percentile = {"name": "ptq", "weight_range": "percentile", "percentile": 99.9}
    runs = with_variants([parse_run(run(policy, 4, 0.1)) for policy in (MAX, GPTQ, percentile, FAKE)])
    assert [one.method for one in runs] == ["ptq max", "ptq mse gptq", "ptq percentile percentile=99.9", "fake_qat"]
    looks = marks(one.method for one in runs)
    assert list(looks)[-1] == "fake_qat"
    assert len({(look.color, look.marker) for look in looks.values()}) == 4


counts = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6), st.integers(1, 6)), min_size=1, max_size=30)


@given(counts)
def test_the_difference_of_two_runs_is_that_of_their_errors(drawn: list[tuple[int, int, int]]):
    def made_run(which: int) -> Run:
        errors = [one[which] for one in drawn]
        rate = sum(errors) / sum(one[2] for one in drawn)
        edits = {"errors": " ".join(map(str, errors)), "words": " ".join(str(one[2]) for one in drawn)}
        record = {"run": "r", "policy": "ptq", "state": "complete", "metrics": {"test": {"wer": rate}}}
        return parse_run(record | {"utterances": {"test": edits}})

    first, second = made_run(0), made_run(1)
    there, back = difference(first, second, "test"), difference(second, first, "test")
    assert (there.value, there.low, there.high) == (-back.value, pytest.approx(-back.high), pytest.approx(-back.low))
    same = difference(first, first, "test")
    assert (same.value, same.low, same.high) == (0, 0, 0)


def test_the_interval_covers_the_true_difference():
    dice = np.random.default_rng(1)
    covered = 0
    for _ in range(200):
        hard = dice.random(100) < 0.3  # for both runs
        errors = [(hard * (dice.random(100) < p)).astype(int) for p in (0.5, 0.8)]
        runs = []
        for one in errors:
            edits = {"errors": " ".join(map(str, one)), "words": " ".join(["4"] * 100)}
            record = {"run": "r", "policy": "ptq", "state": "complete", "utterances": {"test": edits}}
            runs.append(parse_run(record | {"metrics": {"test": {"wer": one.sum() / 400}}}))
        gap = difference(*runs, "test")
        covered += gap.low <= 0.3 * (0.5 - 0.8) / 4 <= gap.high
    assert 0.9 <= covered / 200 <= 0.99


def test_without_errors_by_utterance_intervals_have_to_lie_apart():
    far, near = run(MAX, 4, 0.4), run(MAX, 8, 0.1)
    del far["utterances"]
    gap = difference(parse_run(far), parse_run(near), "test")
    assert (gap.value, gap.low, gap.high) == tuple(map(pytest.approx, (0.06, 0.064 - 0.024, 0.096 - 0.016)))
    assert gap.higher


@pytest.mark.parametrize("edits", [{"errors": "1 2", "words": "3"}, {"errors": "1 x", "words": "3 3"}, {"words": "3"}])
def test_broken_errors_by_utterance_are_named(edits: dict[str, str]):
    with pytest.raises(ValueError, match=r"utterances\.test"):
        parse_run(run(MAX, 4, 0.1, utterances={"test": edits}))


def test_claims_hold_fail_or_stay_open():
    found = {
        (one.claim.split(":")[0], one.method.split(",")[0]): one.verdict
        for one in findings(study(policies()))
        if "float control" not in one.claim
    }
    assert found["8 bits", "ptq max"] == found["8 bits", "fake_qat"] == HOLDS
    assert found["8 bits", "native_int"] == FAILS
    assert (found["4 bits", "fake_qat"], found["4 bits", "native_int"]) == (HOLDS, FAILS)
    assert (found["3 bits", "fake_qat"], found["3 bits", "native_int"]) == (OPEN, HOLDS)
    assert ("4 bits", "ptq mse gptq") not in found  # not trained
    assert (found["all widths", "fake_qat"], found["all widths", "native_int"]) == (HOLDS, FAILS)
    lines = {one.claim: one.lines for one in summaries([("made", study(policies()))])}
    assert lines["4 bits: lower WER than ptq max"] == [
        "made: holds for 1 of 2 methods and does not hold for 1 of 2 methods (native_int, 8-bit activations)"
    ]


def test_rows_begin_with_float_and_end_with_the_encoder_alone():
    part = run({"name": "encoder_only"}, 4, 0.1)
    rest = copy.deepcopy(part) | {"run": "other"}
    part["bit_map"]["joiner"] = {"weight": 32, "activation": 32}
    rest["bit_map"] = {"encoder.lstm": {"weight": 4, "activation": 8}, "joiner": {"weight": 8, "activation": 8}}
    one = study([*policies(), part, rest])
    found = [(row.policy, row.kind) for row in rows(one)]
    assert found[:3] == [("float baseline", "float"), ("float control", "float"), ("ptq max", "8-bit activations")]
    assert found[-2:] == [("encoder_only", "encoder; rest in float"), ("encoder_only", "encoder; rest at 8 bits")]
    table = costs_table(one, rows(one))
    column = [column.key for column in table.columns].index("size_mib_4")
    assert [row[column].interval for row in table.rows if row[1].text == "fake_qat"] == ["12.0 ms"]


def test_what_a_policy_chose_is_a_table():
    choices = {
        "encoder.weights.0": {"quantizer": "sawb", "errors": {"max": 0.02, "sawb": 0.0121}},
        "encoder.hidden": {"quantizer": "fixed", "errors": {}},
    }
    records = policies()
    assert quantizers_table(study(records)) is None
    records[-1]["notes"] = {"choices": choices}
    table = quantizers_table(study(records))
    assert table is not None
    assert [(row[1].text, row[1].interval) for row in table.rows] == [("sawb", "0.012"), ("fixed", "")]
    assert [cell.value for cell in table.rows[0][2:]] == [0.02, 0.0121]


def test_two_studies_share_a_page_that_can_be_rebuilt_from_itself(tmp_path: Path):
    for name in ("policies-one", "policies-two"):
        made.write(tmp_path / name, [record | {"study": name} for record in policies()])
    out, again = tmp_path / "out", tmp_path / "again"
    report(tmp_path / "policies-one", out, also=tmp_path / "policies-two")
    files = {path.name for path in out.iterdir()}
    assert {"one_wer_by_width.csv", "two_wer_by_width.png", "one_runs.tex", "claims.md", "comparison.csv"} <= files
    page = Resources()
    page.feed((out / "index.html").read_text())
    assert page.open == []
    assert len(page.ids) == len(set(page.ids))
    assert {link for link in page.links if not link.startswith(("#", "data:"))} <= files
    assert {link[1:] for link in page.links if link.startswith("#study")} <= set(page.ids)
    assert load_study(tmp_path / "policies-two").name == "policies-two"
    done = subprocess.run([sys.executable, "-m", "analysis.report", str(out), "--out", str(again)], cwd=ROOT)
    assert done.returncode == 0
    for path in out.iterdir():
        assert (again / path.name).read_bytes() == path.read_bytes(), path.name
