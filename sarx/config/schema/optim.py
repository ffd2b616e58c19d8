"""Options of the optimizer and its schedule."""

from __future__ import annotations

from dataclasses import dataclass

from sarx.config.schema.options import check_fields, option


@dataclass(kw_only=True, slots=True)
class OptimConfig:
    """Optimizer with a polynomial schedule: lr * ((1 - t/T)^power * (1 - floor) + floor)."""

    name: str = option("adamw", choices=("adamw", "sgd"))
    lr: float = option(0.003, above=0.0, high=10.0)
    weight_decay: float = option(1e-4, low=0.0, high=1.0)
    momentum: float = option(0.9, low=0.0, below=1.0)
    power: float = option(0.9, low=0.0, high=10.0)
    floor: float = option(0.01, low=0.0, high=1.0)

    def __post_init__(self) -> None:
        """Check every field."""
        check_fields(self, "optim")
