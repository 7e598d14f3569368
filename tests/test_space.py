"""Templates: lists are varied, order is kept, a trial asked twice answers the same."""

import math

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qstudy.errors import UserError
from qstudy.sweep.space import corners, expand, size, substitute, suggest, varied

LAYERS = {"*": {"activation": 8}, "encoder.lstm.0": {"weight": [2, 4]}, "joiner.*": {"weight": [4, 8]}}
WIDTHS = {"policy": {"name": ["fake_qat", "mixed"], "layers": LAYERS}}

values = st.one_of(st.integers(2, 8), st.text(max_size=3), st.booleans(), st.none())
leaves = st.one_of(values, st.lists(values, min_size=1, max_size=3))
nested = st.recursive(leaves, lambda inner: st.dictionaries(st.text(min_size=1, max_size=3), inner, max_size=3))
templates = nested.filter(lambda value: isinstance(value, dict))


@given(templates)
def test_expand_has_every_combination_once(template: dict) -> None:
    found = expand([template])
    assert len(found) == size([template]) == math.prod(len(choice.values) for choice in varied(template))
    for filled in found:
        assert list(filled) == list(template)
        assert not varied(filled)


def test_expand_varies_the_last_choice_fastest() -> None:
    found = expand([{"policy": {"name": ["ptq", "fake_qat"], "layers": {"*": [{"weight": 8}, {"weight": 4}]}}}])
    names = [(changes["policy"]["name"], changes["policy"]["layers"]["*"]["weight"]) for changes in found]
    assert names == [("ptq", 8), ("ptq", 4), ("fake_qat", 8), ("fake_qat", 4)]


def test_a_list_in_a_list_is_a_list() -> None:
    assert expand([{"accelerator": [["edge", "server"]]}]) == [{"accelerator": ["edge", "server"]}]


def test_globs_keep_their_order() -> None:
    changes = substitute(WIDTHS, {choice.path: choice.values[0] for choice in varied(WIDTHS)})
    assert list(changes["policy"]["layers"]) == ["*", "encoder.lstm.0", "joiner.*"]


def test_corners_show_every_value() -> None:
    found = corners([WIDTHS])
    for choice in varied(WIDTHS):
        seen = []
        for changes in found:
            for key in choice.path:
                changes = changes[key]
            seen.append(changes)
        assert set(seen) == set(choice.values)


def test_an_empty_list_is_refused() -> None:
    with pytest.raises(UserError, match="policy/layers/joiner is an empty list"):
        varied({"policy": {"layers": {"joiner": []}}})


def test_suggest_repeats_itself_for_the_same_trial() -> None:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=3))
    trial = study.ask()
    first = suggest(trial, [WIDTHS])
    study.sampler = optuna.samplers.RandomSampler(seed=4)
    assert suggest(optuna.Trial(study, trial._trial_id), [WIDTHS]) == first
    assert set(trial.params) == {
        "policy/name",
        "policy/layers/encoder.lstm.0/weight",
        "policy/layers/joiner.*/weight",
    }


def test_suggest_reaches_every_member_of_every_template() -> None:
    other = {"policy": {"name": "encoder_only", "encoder": [{"weight": 2}, {"weight": 3, "activation": 8}]}}
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    found = [suggest(study.ask(), [WIDTHS, other]) for _ in range(120)]
    for expected in expand([WIDTHS, other]):
        assert expected in found
