"""One way to change a configuration by another."""

from typing import Any

import pytest

from qstudy.fields import merged, with_order

DATA: dict[str, Any] = {"train": "a", "test": {"test": "b"}, "make": {"corpus": "commands", "train": 20000}}
BASE = {
    "policy": {"name": "ptq", "layers": {"*": {"weight": 4}}},
    "finetune": {"steps": 10, "clip": 2.0},
    "data": DATA,
    "seed": 0,
}


@pytest.mark.parametrize(
    ("changes", "field", "expected"),
    [
        ({"seed": 1}, "seed", 1),
        ({"finetune": {"steps": 20}}, "finetune", {"steps": 20, "clip": 2.0}),
        ({"finetune": None}, "finetune", None),
        ({"new": {"a": [1]}}, "new", {"a": [1]}),
        ({"policy": {"name": "float"}}, "policy", {"name": "float"}),
        ({"policy": {"rounding": "gptq"}}, "policy", {**BASE["policy"], "rounding": "gptq"}),
        (
            {"policy": {"name": "ptq", "layers": {"*": {"activation": 8}}}},
            "policy",
            {"name": "ptq", "layers": {"*": {"weight": 4, "activation": 8}}},
        ),
        (
            {"policy": {"layers": {"joiner.*": {"weight": 8}}}},
            "policy",
            {"name": "ptq", "layers": {"*": {"weight": 4}, "joiner.*": {"weight": 8}}},
        ),
        ({"data": {"make": {"train": 5}}}, "data", {**DATA, "make": {**DATA["make"], "train": 5}}),
        ({"data": {"make": {"corpus": "mine"}}}, "data", {**DATA, "make": {"corpus": "mine"}}),
        ({"data": {"test": {"mine": "c"}}}, "data", {**DATA, "test": {"mine": "c"}}),
        ({"data": {"test": {}}}, "data", {**DATA, "test": {}}),
    ],
    ids=str,
)
def test_merged(changes: dict[str, Any], field: str, expected: Any) -> None:
    found = merged(BASE, changes)
    assert found[field] == expected
    assert {name: value for name, value in found.items() if name != field} == {
        name: value for name, value in BASE.items() if name != field
    }


def test_nothing_is_changed_in_place() -> None:
    found = merged(BASE, {"policy": {"layers": {"*": {"weight": 2}}}})
    assert found["policy"]["layers"]["*"] == {"weight": 2}
    assert BASE["policy"] == {"name": "ptq", "layers": {"*": {"weight": 4}}}


def test_other_orders_of_patterns_are_other_values() -> None:
    one: dict[str, Any] = {"policy": {"layers": {"*": {"weight": 8}, "encoder.*": {"weight": 4}}}, "steps": (1, 2)}
    other = {"steps": [1, 2], "policy": {"layers": dict(reversed(one["policy"]["layers"].items()))}}
    grids = [{"grid": [{"policy": {"layers": [each["policy"]["layers"], {}]}}]} for each in (one, other)]
    assert with_order(one) == {**one, "steps": [1, 2]}
    assert with_order(one) != with_order(other) == with_order(with_order(other))
    assert with_order(grids[0]) != with_order(grids[1])
    assert with_order({"layers": 3}) == {"layers": 3}
