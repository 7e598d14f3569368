"""The parts of the analysis: fronts, widths in words, word differences, tables, numbers, labels."""

import csv
import dataclasses
import io
import itertools

import analysis_study as made
import jiwer
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.text import Text

from analysis.bits import describe, label, uniform
from analysis.compare import comparison
from analysis.costs import costs
from analysis.differences import word_differences
from analysis.pareto import best, front, size_front, smallest_lossless
from analysis.parse import parse_run
from analysis.runs_table import runs_table
from analysis.study import Study
from analysis.tables import Cell, Column, Table, to_csv, to_latex, to_markdown
from analysis.text import change, number, percent, size
from analysis.tradeoff import tradeoff
from analysis.widths import representative, series
from analysis.widths_table import widths_table


def study(records=None) -> Study:
    return Study("digits", tuple(parse_run(record) for record in records or made.records()), "test")


def run(widths: dict[str, tuple[int, int]], policy: str = "mixed", **fields):
    bit_map = {
        name: {"weight": weight, "activation": activation} | fields for name, (weight, activation) in widths.items()
    }
    layers = {name: {"kind": kind, "parameters": count} for name, (kind, count) in made.LAYERS.items()}
    return parse_run({"run": "r", "policy": policy, "state": "complete", "bit_map": bit_map, "layers": layers})


points = st.lists(st.tuples(st.integers(0, 8), st.integers(0, 8)), max_size=12)


@given(points)
def test_the_front_is_what_nothing_beats(points):
    def beaten(a, b):
        return b[0] <= a[0] and b[1] <= a[1] and b != a

    kept = [points[index] for index in front(points)]
    assert sorted(kept) == sorted({a for a in points if not any(beaten(a, b) for b in points)})
    assert kept == sorted(kept)


def test_front_best_and_smallest_of_the_study():
    assert [label(one) for one in size_front(study())] == ["W2", "W3", "W4", "W5", "W6"]
    chosen, smallest = best(study()), smallest_lossless(study())
    assert chosen is not None
    assert (chosen.policy, label(chosen)) == ("fake_qat", "W5")  # W6 takes 2.002 ms of 2 ms
    assert smallest is not None
    assert (smallest.policy, label(smallest)) == ("fake_qat", "W3")


@pytest.mark.parametrize(
    ("widths", "short", "text", "same"),
    [
        (dict.fromkeys(made.LAYERS, (32, 32)), "float", "float", None),
        (dict.fromkeys(made.LAYERS, (4, 32)), "W4", "W4", (4, 32)),
        (dict.fromkeys(made.LAYERS, (4, 8)), "W4A8", "W4A8", (4, 8)),
        ({**dict.fromkeys(made.LAYERS, (4, 8)), "predictor.embedding": (4, 32)}, "W4A8", "W4A8", (4, 8)),
        (dict.fromkeys(made.LAYERS, (32, 8)), "A8", "A8", None),
        ({"encoder.lstm.1": (2, 8), "encoder.lstm.2": (4, 8)}, "W3.0A8", "W2–4 (mean 3.0) A8", None),
        ({"encoder.lstm.1": (4, 8), "joiner.output": (32, 32)}, "W4A8 enc", "W4A8 enc", None),
        ({"encoder.lstm.1": (32, 32), "joiner.output": (4, 32)}, "W4 join", "W4 join", None),
        ({"a.0": (4, 8), "a.1": (32, 32), "b": (4, 8)}, "W4A8 part", "W4A8 part", None),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_widths_in_words(widths, short, text, same):
    assert label(run(widths)) == short
    assert describe(run(widths)) == text
    assert uniform(run(widths)) == same


def test_what_is_out_of_the_ordinary_is_told():
    widths = dict.fromkeys(made.LAYERS, (4, 8))
    assert describe(run(widths, quantizer="codebook", granularity="tensor")) == "W4A8, codebook, per tensor"
    assert describe(run(widths, placement="cpu")) == "W4A8, 8 on CPU"
    assert describe(run({})) == "–"


words = st.lists(st.sampled_from(["one", "two", "three"]), max_size=7).map(" ".join)


@given(words, words)
def test_differences_tell_both_texts_and_no_more_edits_than_needed(reference, hypothesis):
    pieces = word_differences(reference, hypothesis)
    assert " ".join(piece.text for piece in pieces if piece.kind != "inserted") == reference
    assert " ".join(piece.text for piece in pieces if piece.kind != "deleted") == hypothesis
    if reference:
        kept = sum(len(piece.text.split()) for piece in pieces if piece.kind == "same")
        output = jiwer.process_words(reference, hypothesis)
        edits = output.substitutions + output.deletions + output.insertions
        changed = len(reference.split()) + len(hypothesis.split()) - 2 * kept  # a substitution counts twice
        assert edits <= changed <= 2 * edits


def test_series_put_equal_widths_side_by_side():
    found = {(one.kind, one.policy): list(one.runs) for one in series(study())}
    assert found["weights alone", "ptq"] == [8, 6, 5, 4, 3, 2]
    assert found["8-bit activations", "fake_qat"] == [6, 4, 3, 2]
    assert ("weights alone", "mixed") not in found


def test_equal_widths_of_weights_and_activations_are_a_series():
    runs = [
        {
            **made.records()[0],
            "run": f"r{width}",
            "baseline": {"wer": 0.01},
            "policy": "ptq",
            "bit_map": {"encoder": {"weight": width, "activation": width}},
        }
        for width in (8, 4, 2)
    ]
    assert [(one.kind, list(one.runs)) for one in series(study(runs))] == [("activations as weights", [8, 4, 2])]


def test_a_searched_trial_that_happens_to_be_uniform_is_no_series():
    lucky = {**made.records()[12], "run": "lucky", "policy": "mixed"}
    assert {one.policy for one in series(study([*made.records(), lucky]))} == {"ptq", "fake_qat"}


def test_of_several_runs_the_middle_one_stands_for_all():
    runs = [dataclasses.replace(one, name=str(index)) for index, one in enumerate(study().trials[:5])]
    rates = sorted(one.scores["test"].wer for one in runs)
    assert representative(runs, "test").scores["test"].wer == rates[2]
    assert representative(runs[:4], "test").scores["test"].wer == sorted(one.scores["test"].wer for one in runs[:4])[1]


def test_the_csv_file_has_raw_values_and_every_run():
    rows = list(csv.DictReader(io.StringIO(to_csv(runs_table(study())))))
    assert len(rows) == 29
    baseline, pruned = rows[0], next(row for row in rows if row["state"] == "pruned")
    assert float(baseline["wer"]) == 0.0132
    assert float(baseline["size_bytes"]) == 4 * made.PARAMETERS + 24000
    assert (pruned["wer"], pruned["reason"].split(":")[0]) == ("", "over budget")
    assert {row["config.training.lr"] for row in rows} == {"0.001", "0.002", ""}
    assert all(row["wer"] == "" or float(row["wer"]) <= float(row["wer_high"]) for row in rows)


def test_compression_and_change_are_against_the_baseline():
    rows = {row["run"]: row for row in csv.DictReader(io.StringIO(to_csv(runs_table(study()))))}
    row, records = rows["trial-0003-ptq"], {record["run"]: record for record in made.records()}
    assert float(row["compression"]) == records["float-0a1b2c3d"]["size_bytes"] / int(row["size_bytes"])
    assert float(row["wer_change"]) == pytest.approx(records["trial-0003-ptq"]["metrics"]["test"]["wer"] / 0.0132 - 1)


def test_markdown_and_latex_escape():
    columns = (Column("a", "a_b"), Column("w", "WER (%)", "r"), Column("hidden", "", printed=False))
    table = Table("t", "T", "50 % & more", columns, ((Cell("x|y_z"), Cell("1.2", 1.2, "[1, 2]", bold=True), Cell("")),))
    assert r"x\|y_z" in to_markdown(table)
    assert "**1.2** [1, 2]" in to_markdown(table)
    latex = to_latex(table)
    assert r"x|y\_z & \textbf{1.2} {\scriptsize [1, 2]} \\" in latex
    assert r"\caption{50 \% \& more}" in latex
    assert r"\begin{tabular}{@{}lr@{}}" in latex


def test_rates_within_the_baselines_interval_are_bold():
    one = study()
    table = widths_table(one, series(one))
    column = [column.key for column in table.columns].index("wer_3")
    highest = one.float_scores.interval[1]
    assert [row[column].bold for row in table.rows] == [row[column].value <= highest for row in table.rows]
    assert {row[column].bold for row in table.rows} == {False, True}


def test_comparison_has_a_column_per_set_and_study():
    first, records = study(), made.records()
    for record in records:
        record["metrics"] = {name: scores for name, scores in record.get("metrics", {}).items() if name == "test"}
    records[0]["metrics"]["noisy"] = records[0]["metrics"]["test"] | {"wer": 0.5}
    second = dataclasses.replace(study(records), name="other")
    table = comparison([first, second])
    assert table is not None
    assert [column.key for column in table.columns] == [
        "policy",
        "bits",
        "digits_compression",
        "digits_test_wer",
        "other_compression",
        "other_test_wer",
        "other_noisy_wer",
    ]
    assert table.rows[0][0].text == "float baseline"
    assert table.rows[0][-1].value == 0.5
    assert comparison([first]) is None


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        (percent(0.01623), "1.62"),
        (percent(0.234), "23.4"),
        (percent(1.163), "116.3"),
        (percent(None), "–"),
        (percent(0.09996), "10.0"),
        (change(0.011, 0.01), "+10"),
        (change(0.009, 0.01), "−10"),
        (change(0.1, 0.0), "–"),
        (change(0.01, 0.01), "0"),
        (number(0.4891), "0.489"),
        (number(1234.5), "1234"),
        (number(12.34), "12.3"),
        (number(0.00017, 2), "0.00017"),
        (size(505 * 1024), "505 KiB"),
        (size(2 * 2**20), "2.00 MiB"),
    ],
)
def test_numbers_for_readers(told, expected):
    assert told == expected


@pytest.mark.parametrize("which", [0, 1], ids=["size", "latency"])
def test_labels_cover_neither_each_other_nor_points(which):
    one = study()
    picture = tradeoff(one, costs(one)[which])
    assert picture is not None
    (axes,) = picture.figure.axes
    picture.figure.canvas.draw()  # only then have annotations their place
    renderer = picture.figure.canvas.get_renderer()
    texts = [text for text in axes.texts if text.get_text().startswith("W")]
    boxes = [Text.get_window_extent(text, renderer) for text in texts]
    assert len(boxes) >= 5
    assert not any(a.overlaps(b) for a, b in itertools.combinations(boxes, 2))
    points = [line for line in axes.lines if line.get_gid() and line.get_transform() == axes.transData]
    spots = [axes.transData.transform(line.get_xydata()[0]) for line in points]
    assert len(spots) >= 25
    assert not any(box.contains(*spot) for box in boxes for spot in spots)
