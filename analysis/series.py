"""Settings that quantize every layer alike, in one series per method and kind; and the rows of tables by bit width."""

import pandas as pd

from analysis.study import Study, middle
from analysis.variants import order
from qstudy.bits import FLOAT

ALONE = "weights alone"
SAME = "activations as weights"
FIXED = "-bit activations"
PART = "encoder"


def series(study: Study) -> pd.DataFrame:
    """The study's uniform settings in series of two widths or more, one row per series and width, weights alone first.

    Columns beside those of `Study.settings`: `kind` (`weights alone`, `activations as weights`, `8-bit activations`),
    `name` (the method; where models differ, how many parameters they have), `width` (bits of the weights, int), `runs`
    (how many share the cell).
    """
    settings = study.settings[study.settings.uniform]
    weights, activations = settings.weight_bits.astype(int), settings.activation_bits.astype(int)
    kind = (activations.astype(str) + FIXED).mask(weights == activations, SAME).mask(activations == FLOAT, ALONE)
    found = settings.assign(width=weights, kind=kind, name=named(study, settings, "method"))
    eight = found[(weights == 8) & (activations == 8)]
    if ((activations == 8) & (weights != 8)).any():  # 8/8 ends both the series of equal widths and that of 8 bits
        alike = found if ((weights == activations) & (weights != 8)).any() else found.drop(eight.index)
        found = pd.concat([alike, eight.assign(kind=f"8{FIXED}")])
    found = found[found.groupby(["kind", "name"]).width.transform("nunique") > 1]  # one width is no series
    kinds = sorted(set(found.kind), key=lambda kind: (kind != ALONE, kind == SAME, kind))
    ranks = [*kinds, *order(found.name)]
    return _cells(found.sort_values(["kind", "name"], key=lambda column: column.map(ranks.index), kind="stable"))


def rows(study: Study) -> pd.DataFrame:
    """The rows of a table by width: float runs for reference, the series, and runs with few bits in the encoder."""
    floats = pd.concat([study.references, study.settings[study.settings.policy == "float"]])
    floats = _cells(floats.assign(kind="float", name=named(study, floats, "title"), width=FLOAT))
    return pd.concat([floats, series(study), _cells(_encoders(study))], ignore_index=True)


def _cells(found: pd.DataFrame) -> pd.DataFrame:
    """One setting per cell (`analysis.study.middle`): the series as they come, most bits first."""
    found = found.assign(place=found.groupby(["kind", "name"], sort=False).ngroup())
    return middle(found, ["kind", "name", "width"]).sort_values(["place", "width"], ascending=[True, False])


def _encoders(study: Study) -> pd.DataFrame:
    """Settings of `encoder_only` whose encoder is uniform, and all the rest is; `width` is the encoder's."""
    found = study.settings[study.settings.policy == "encoder_only"]
    layers = study.layers[study.layers.run.isin(found.run) & study.layers.weight.notna()]
    inside = layers.layer.str.startswith("encoder.")
    encoder, rest = (_only(layers[which]) for which in (inside, ~inside))
    found = found.assign(width=found.run.map(encoder), rest=found.run.map(rest)).dropna(subset=["width", "rest"])
    kinds = [f"{PART}; rest " + ("in float" if bits == FLOAT else f"at {bits:.0f} bits") for bits in found.rest]
    return found.assign(kind=kinds, name=named(study, found, "method"), width=found.width.astype(int)).drop(
        columns="rest"
    )


def named(study: Study, found: pd.DataFrame, column: str) -> pd.Series:
    """Methods or titles; where the study's models differ, with the parameters of each: models are no one's variants."""
    names: pd.Series = found[column]
    if study.settings.parameters.nunique() < 2:
        return names
    return names + found.parameters.map(lambda count: f" ({count / 1e6:.3g} M)", na_action="ignore").fillna("")


def _only(layers: pd.DataFrame) -> pd.Series:
    """Run -> the weight width of its layers, where they have only one."""
    found = layers.groupby("run").weight.agg(["min", "max"])
    return found["min"][found["min"] == found["max"]]
