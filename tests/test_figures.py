"""The figures: what they show, that nothing covers anything, and that one palette holds for all."""

import itertools
import re
from pathlib import Path

import analysis_study as made
import numpy as np
import pandas as pd
import pytest
from matplotlib.image import imread
from matplotlib.text import Text

from analysis.figures import overlaid, pictures
from analysis.figures.axes import cost_scale, error_scale
from analysis.figures.interactive import columns
from analysis.figures.points import costs, points
from analysis.figures.style import Picture, handle, marks
from analysis.measures import front
from analysis.study import Study, load_studies

NAMES = ("wer_by_width", "wer_vs_size", "wer_vs_latency", "bit_allocation")


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """The made-up study."""
    return load_studies(made.write(tmp_path_factory.mktemp("study"), made.records()))[0]


def picture(study: Study, name: str) -> Picture:
    """The study's picture of that name."""
    return next(one for one in pictures(study) if one.name == name)


def test_every_figure_shows_something(study: Study, tmp_path: Path):
    shown = pictures(study)
    assert tuple(one.name for one in shown) == NAMES
    for one in shown:
        for name, content in one.drawn().items():
            (tmp_path / name).write_bytes(content)
        image = imread(tmp_path / f"{one.name}.png")
        assert image.shape[1] > 1000
        assert 0.02 < np.mean(image[..., :3].min(axis=2) < 0.9) < 0.9


def test_equal_figures_are_equal_bytes(study: Study):
    first, again = (picture(study, "wer_vs_size").drawn() for _ in range(2))
    assert first == again


@pytest.mark.parametrize("which", [0, 1], ids=["size", "latency"])
def test_labels_cover_neither_each_other_nor_points(study: Study, which: int):
    figure = picture(study, costs(study)[which].name).figure
    (axes,) = figure.axes
    figure.draw_without_rendering()  # only then have annotations their place
    texts = [text for text in axes.texts if text.get_text().startswith("W")]
    boxes = [Text.get_window_extent(text) for text in texts]
    assert len(boxes) == points(study, costs(study)[which]).trials.front.sum() >= 3
    assert not any(a.overlaps(b) for a, b in itertools.combinations(boxes, 2))
    offsets = [collection.get_offsets() for collection in axes.collections if len(collection.get_offsets()) > 0]
    spots = axes.transData.transform(np.vstack(offsets))
    assert len(spots) >= 25
    assert not any(box.contains(*spot) for box in boxes for spot in spots)


@pytest.mark.parametrize("name", NAMES[:3])
def test_legends_end_within_the_figure(tmp_path: Path, name: str):
    records = made.records()
    many = [
        record | {"policy": f"a_policy_of_mine_{index}", "run": f"{index}-{record['run']}"}
        for index in range(12)
        for record in records[2:8]
    ]
    (study,) = load_studies(made.write(tmp_path / "study", [*records, *many]))
    figure = picture(study, name).figure
    figure.draw_without_rendering()
    box = figure.legends[0].get_window_extent()
    assert 0 <= box.x0 < box.x1 <= figure.bbox.x1
    assert figure.axes[0].get_window_extent().y1 < box.y0


def test_the_front_is_chosen_on_dev_and_drawn_on_test(tmp_path: Path):
    records = made.records()
    lucky = next(record for record in records if record["run"] == "trial-0006-ptq")  # the smallest of all
    lucky["metrics"] = {
        "dev": lucky["metrics"]["dev"] | {"wer": 0.97},
        "test": lucky["metrics"]["test"] | {"wer": 1e-4},
    }
    (study,) = load_studies(made.write(tmp_path / "study", records))
    shown = points(study, costs(study)[0])
    assert shown.trials.set_index("run").loc["trial-0006-ptq", "wer"] == pytest.approx(0.01)
    assert len(shown.front) > 1


def test_crowds_are_pixels_and_have_whiskers_on_the_front_alone(tmp_path: Path):
    records = made.records()
    crowd = [record | {"run": f"{record['run']}-{copy}", "seed": copy} for copy in range(9) for record in records[1:27]]
    for number, record in enumerate(crowd):  # settings of their own
        crowd[number] = record | {"config": record["config"] | {"number": number}}
    (study,) = load_studies(made.write(tmp_path / "study", [records[0], *crowd]))
    shown = picture(study, "wer_vs_size")
    svg = shown.drawn()["wer_vs_size.svg"]
    assert b"<image" in svg
    assert len(svg) < 400_000
    assert "Whiskers: 95 % bootstrap interval over utterances of runs on the front." in shown.caption


def test_marks_tell_policies_and_variants_apart():
    looks = marks(["ptq max", "fake_qat", "ptq mse", "mine", "float", "yours"])
    assert list(looks) == ["float", "ptq max", "ptq mse", "fake_qat", "mine", "yours"]
    assert len({(look.color, look.marker) for look in looks.values()}) == 6
    assert marks(["fake_qat"])["fake_qat"] == looks["fake_qat"]
    many = [f"int4_e2e {'x' * 40} option={number}" for number in range(9)]
    assert len({(look.color, look.marker) for look in marks(many).values()}) == 9
    assert len({handle(name, mark).get_label() for name, mark in marks(many).items()}) == 9, "and their names do"


def test_a_scale_has_round_ticks_and_ends_before_what_is_far():
    scale = cost_scale([0.5, 0.7, 1.9], [7.5])
    assert 1.9 < scale.limits[1] < 3
    assert scale.ticks == pytest.approx([0.5, 0.7, 1.0, 1.5, 2.0])
    assert cost_scale([3.0, 7.0], [7.5]).limits[1] > 7.5
    rates = pd.DataFrame({"wer": [0.0, 0.4, 90.0], "low": [0.0, 0.1, np.nan], "high": [0.3, 0.8, np.nan]})
    assert error_scale(rates).kind == "symlog"
    assert error_scale(rates).ticks[:2] == pytest.approx([0.0, 0.2])
    assert error_scale(rates[1:]).kind == "log"
    assert error_scale(rates[:1] * 0).limits[0] < 0


def test_float_models_beyond_the_axis_stand_at_its_end_with_their_size(study: Study):
    (axes,) = picture(study, "wer_vs_size").figure.axes
    end = axes.get_xlim()[1]
    assert end < study.references.size_bytes.iloc[0] / 2**20
    assert points(study, costs(study)[0]).baseline.cost.tolist() == [end]
    assert "7.55 MiB →" in [text.get_text() for text in axes.texts]


def test_each_float_model_beyond_the_axis_has_its_own_size(tmp_path: Path):
    more = made.baseline() | {"run": "float-other", "size_bytes": 2 * made.baseline()["size_bytes"]}
    later = [one | {"baseline": {"id": "float-other"}} for one in made.records()[1:] if one["policy"] == "mixed"]
    records = [made.baseline(), more, *(one for one in made.records()[1:] if one["policy"] != "mixed"), *later]
    (axes,) = picture(made.study(tmp_path, records), "wer_vs_size").figure.axes
    assert {"7.55 MiB →", "15.1 MiB →"} <= {text.get_text() for text in axes.texts}


def test_a_caption_explains_baselines_once(study: Study, tmp_path: Path):
    records = made.records()
    second = records[0] | {"run": "float-2", "config": {"model": {"hidden": 7}}}
    several = made.study(tmp_path, [records[0] | {"config": {"model": {"hidden": 8}}}, second, *records[1:4]])
    assert len(several.references) == 2
    said = "Star, dotted line and band: each float baseline and its interval."
    assert picture(several, "wer_vs_size").caption.count("dotted line") == 1
    assert said in picture(several, "wer_vs_size").caption
    assert said.replace("each", "the") in picture(study, "wer_vs_size").caption


def test_the_allocation_shows_the_widths_of_every_layer_on_a_front(study: Study):
    (axes,) = picture(study, "bit_allocation").figure.axes
    texts = [text.get_text() for text in axes.texts]
    runs = {name for cost in costs(study) for name in points(study, cost).front.run}
    cells = [text for text in texts if re.fullmatch(r"float|\d+(/\d+)?", text)]
    assert len(cells) == len(runs) * len(made.LAYERS)
    heads = [text.get_text().split()[0] for text in axes.get_xticklabels()]
    assert heads == list(made.LAYERS)


def test_the_page_knows_every_run_of_the_study(study: Study):
    found = columns(study, study.runs)
    assert found["run"] == study.runs.run.tolist()
    bits = [found["weight_bits"]["values"][place] for place in found["weight_bits"]["at"]]
    assert set(bits) == {"float", "mixed", "8", "6", "5", "4", "3", "2"}
    assert {name for name in found if name.startswith("cost_")} == {"cost_0", "cost_1"}


def test_fronts_over_several_accelerators_are_pictures_of_their_own(tmp_path: Path) -> None:
    """Though each is the first one of some study, whose figures call it so."""
    studies = []
    for name, accelerators in (("a", ["edge_nna"]), ("b", ["cpu", "edge_nna"]), ("c", ["cpu"])):
        records = [one | {"study": name, "budgets": None} for one in made.records()[:6]]
        records = [one | {"latency": dict.fromkeys(accelerators, one["latency"]["edge_nna"])} for one in records]
        studies.append((name, made.study(tmp_path / name, records)))
    names = [picture.name for picture in overlaid(studies)]
    assert len(names) == len(set(names)) == 3


def test_fronts_of_two_studies_are_drawn_together(tmp_path: Path) -> None:
    """One picture per cost that both have, each front a staircase of its own; hypervolume by one corner for both."""
    records = made.records()
    worse = [
        record
        | {"study": "worse", "metrics": {n: s | {"wer": min(2 * s["wer"], 1)} for n, s in record["metrics"].items()}}
        if record.get("metrics")
        else record | {"study": "worse"}
        for record in records
    ]
    first, second = made.study(tmp_path / "a", records), made.study(tmp_path / "b", worse)
    found = overlaid([("digits", first), ("worse", second)])
    assert [picture.name for picture in found] == ["fronts_wer_vs_size", "fronts_wer_vs_latency"]
    assert overlaid([("digits", first)]) == []
    axes = found[0].figure.axes[0]
    stairs = [line for line in axes.lines if line.get_marker() == "None"]
    assert len(stairs) == 2
    for line, study in zip(stairs, (first, second), strict=True):
        best = front(study.settings)
        assert sorted(set(line.get_ydata())) == pytest.approx(sorted(set(100 * best.wer)))
    shares = [float(word.rstrip(".,")) for word in found[0].caption.split() if re.fullmatch(r"0\.\d{3}[.,]?", word)]
    assert len(shares) == 2
    assert shares[0] > shares[1] > 0, "who makes twice the errors dominates less"
