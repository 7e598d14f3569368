"""Values that someone might write, by kind of case; `!times [x, 300]` is a long text or list."""

from pathlib import Path
from typing import Any

import yaml


class _Loader(yaml.SafeLoader):
    """Reads `!times`."""


_Loader.add_constructor("!times", lambda loader, node: _times(*loader.construct_sequence(node, deep=True)))  # type: ignore[no-untyped-call]


def _times(value: Any, count: int) -> Any:
    return value * count


def values(name: str) -> dict[str, Any]:
    """What `values/NAME.yaml` holds."""
    text = Path(__file__).with_name(f"{name}.yaml").read_text("utf-8")
    return dict(yaml.load(text, _Loader))
