"""What a study varies: run configurations in which a list means "one of these"."""

import itertools
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import optuna

from qstudy.errors import UserError

Template = Mapping[str, Any]
"""Part of a run configuration. A list stands for one of its entries; a list inside a list is a list."""

Path = tuple[str, ...]
Label = str | int | float | bool | None
FEW = 1000
BRANCH = "space"  # the parameter that says which template of several a trial is of


@dataclass(frozen=True)
class Varied:
    """One thing that varies."""

    path: Path
    """Where it stands: `("policy", "layers", "encoder.*", "weight")`."""
    values: tuple[Any, ...]

    @property
    def name(self) -> str:
        """Its name as a parameter of a trial."""
        return "/".join(self.path)

    @property
    def labels(self) -> list[Label]:
        """The values in a form that Optuna stores: mappings and lists as JSON."""
        return [_label(value) for value in self.values]


class Grid:
    """All combinations of some templates, and for each what tells it from the others, as parameters of a trial."""

    def __init__(self, templates: Sequence[Template], searched: Sequence[Template] = ()) -> None:
        """Args: the grid's templates, and those of the space, which may vary the same things among other values."""
        self.changes = expand(templates)
        flat = [{"/".join(path): _label(value) for path, value in _leaves(each, ())} for each in self.changes]
        names = list(dict.fromkeys(name for one in flat for name in one))
        taken = {choice.name for template in searched for choice in varied(template)}
        shown = {name: f"grid:{name}" if name in taken else name for name in names if _differs(name, flat)}
        self.parameters = [{shown[name]: value for name, value in one.items() if name in shown} for one in flat]
        self._choices: dict[str, dict[Label, None]] = {name: {} for name in shown.values()}
        for one in self.parameters:
            for name, value in one.items():
                self._choices[name][value] = None

    def show(self, trial: optuna.Trial, index: int) -> dict[str, Any]:
        """The changes to the base of one combination, whose parameters the trial has from here on.

        Its study's sampler must be the one that proposes them (`samplers.fixed_sampler`).
        """
        for name in self.parameters[index]:
            trial.suggest_categorical(name, list(self._choices[name]))
        return self.changes[index]


def varied(template: Template) -> list[Varied]:
    """Everything that varies in `template`, in its order.

    Raises:
        UserError: an empty list.
    """
    found = [Varied(path, tuple(value)) for path, value in _leaves(template, ()) if isinstance(value, list)]
    for choice in found:
        if not choice.values:
            raise UserError(f"space: {choice.name} is an empty list; give at least one value.")
    if len({choice.name for choice in found}) < len(found):
        raise UserError("space: two lists have the same name, because a key holds a slash; rename it.")
    return found


def substitute(template: Template, picked: Mapping[Path, Any]) -> dict[str, Any]:
    """`template` with one value in the place of every list; the order of keys, and so of globs, is kept."""
    return _substitute(template, (), picked)


def expand(templates: Iterable[Template]) -> list[dict[str, Any]]:
    """Every combination of every template: the first choice varies slowest."""
    filled = []
    for template in templates:
        places = varied(template)
        for values in itertools.product(*(choice.values for choice in places)):
            filled.append(substitute(template, dict(zip([choice.path for choice in places], values, strict=True))))
    return filled


def size(templates: Iterable[Template]) -> int:
    """How many combinations there are."""
    return sum(math.prod(len(choice.values) for choice in varied(template)) for template in templates)


def corners(templates: Iterable[Template]) -> list[dict[str, Any]]:
    """A few members of every template in which each value occurs at least once: for checks before anything runs."""
    filled = []
    for template in templates:
        places = varied(template)
        for index in range(max((len(choice.values) for choice in places), default=1)):
            picked = {choice.path: choice.values[min(index, len(choice.values) - 1)] for choice in places}
            filled.append(substitute(template, picked))
    return filled


def sample(templates: Sequence[Template]) -> list[dict[str, Any]]:
    """All members if they are few, else some in which each value occurs."""
    return expand(templates) if size(templates) <= FEW else corners(templates)


def screened_policy(templates: Sequence[Template]) -> Mapping[str, Any] | None:
    """The policy whose widths are all that varies, with lists; None: something else does, too."""
    if len(templates) != 1 or set(templates[0]) != {"policy"} or not (places := varied(templates[0])):
        return None
    policy: Mapping[str, Any] = templates[0]["policy"]
    widths = all(choice.path[:2] == ("policy", "layers") and len(choice.path) == 4 for choice in places)
    return policy if widths else None


def suggest(trial: optuna.Trial, templates: Sequence[Template]) -> dict[str, Any]:
    """Let the sampler pick a template (when there are several), then a value for everything that varies in it.

    Returns:
        Changes to the base run configuration; the same ones when asked again for the same trial.
    """
    template, prefix = templates[0], ""
    if len(templates) > 1:
        names = [f"{index} {_policy(template)}" for index, template in enumerate(templates)]
        index = names.index(trial.suggest_categorical(BRANCH, names))
        template, prefix = templates[index], f"{index}:"
    picked = {}
    for choice in varied(template):
        label = trial.suggest_categorical(prefix + choice.name, choice.labels)
        picked[choice.path] = choice.values[choice.labels.index(label)]
    return substitute(template, picked)


def _leaves(value: Any, path: Path) -> Iterator[tuple[Path, Any]]:
    if not isinstance(value, Mapping):
        yield path, value
        return
    for key, inner in value.items():
        yield from _leaves(inner, (*path, str(key)))


def _substitute(value: Any, path: Path, picked: Mapping[Path, Any]) -> Any:
    if isinstance(value, Mapping):
        return {key: _substitute(inner, (*path, str(key)), picked) for key, inner in value.items()}
    return picked[path] if isinstance(value, list) else value


def _label(value: Any) -> Label:
    return value if value is None or isinstance(value, str | int | float | bool) else json.dumps(value)


def _differs(name: str, flat: Sequence[Mapping[str, Label]]) -> bool:
    """Whether some of the combinations have another value, or none."""
    return len({one.get(name) for one in flat if name in one}) > 1 or any(name not in one for one in flat)


def _policy(template: Template) -> str:
    policy = template.get("policy")
    name = policy.get("name", "") if isinstance(policy, Mapping) else ""
    return "|".join(map(str, name)) if isinstance(name, list) else str(name)
