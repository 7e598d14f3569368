"""Budgets: what a candidate may cost, known before a second of training is spent on it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Protocol

from annotated_types import Gt, Le

from qstudy.errors import UserError
from qstudy.fields import Text, check_fields

Limit = Annotated[int | float, Gt(0), Le(10**18)]


class Priced(Protocol):
    """What a configuration costs (`qstudy.training.price.Price`)."""

    @property
    def size_bytes(self) -> int:
        """Bytes of the packed weights."""

    @property
    def latency(self) -> Mapping[str, Any]:
        """Accelerator -> simulated report with `latency_ms`."""


@dataclass(frozen=True)
class Budgets:
    """Upper limits; None: no limit."""

    size_bytes: Limit | None = None
    """Bytes of the packed weights."""
    latency_ms: Limit | None = None
    """Simulated latency in milliseconds, on `accelerator`."""
    accelerator: Text | None = None
    """The accelerator that `latency_ms` is meant for; None: the first one of the run configuration."""

    def __post_init__(self) -> None:
        check_fields(self)

    @property
    def limits(self) -> dict[str, float]:
        """The limits that are set, by name."""
        named = {"size_bytes": self.size_bytes, "latency_ms": self.latency_ms}
        return {name: limit for name, limit in named.items() if limit is not None}

    def costs(self, price: Priced) -> dict[str, float]:
        """`size_bytes` and, if it is known, `latency_ms` on the budget's accelerator.

        Raises:
            UserError: the candidate was not simulated on the budget's accelerator; or there is a latency budget, and it
                has a layer of which nobody says how often it runs.
        """
        costs: dict[str, float] = {"size_bytes": price.size_bytes}
        accelerator = self.accelerator or next(iter(price.latency), "")
        if self.accelerator is not None and accelerator not in price.latency:
            raise UserError(self._unknown(accelerator, price.latency))
        latency = price.latency.get(accelerator, {}).get("latency_ms")
        if latency is not None:
            costs["latency_ms"] = float(latency)
        elif self.latency_ms is not None:
            raise UserError(self._unknown(accelerator, price.latency))
        return costs

    def _unknown(self, accelerator: str, simulated: Mapping[str, Any]) -> str:
        """Why there is no latency to hold against the budget."""
        if accelerator in simulated:
            return "budgets: latency_ms: no rate is set for some layer of the model; set one, or leave this budget out."
        return (
            f"budgets: accelerator: {accelerator!r} is not among those that the run configuration simulates "
            f"({', '.join(simulated) or 'none'}); add it to the base's field `accelerator`."
        )

    def constraints(self, costs: Mapping[str, float]) -> dict[str, float]:
        """Named constraints as Optuna takes them: above 0 is over budget.

        Relative to the limit, because samplers add the excesses up: bytes must not drown milliseconds.
        """
        return {name: (costs[name] - limit) / limit for name, limit in self.limits.items()}

    def excess(self, costs: Mapping[str, float]) -> str | None:
        """Why the candidate is over budget; None: it is not."""
        over = [f"{name} {costs[name]:.9g} > {limit:.9g}" for name, limit in self.limits.items() if costs[name] > limit]
        return f"over budget: {', '.join(over)}" if over else None

    def to_record(self) -> dict[str, Any]:
        """The limits as `record.json` holds them."""
        limits: dict[str, Any] = dict(self.limits)
        if self.latency_ms is not None:
            limits["latency_ms"] = {"accelerator": self.accelerator, "limit": self.latency_ms}
        return limits
