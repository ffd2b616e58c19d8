"""Options of the prototype baseline."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from sarx.config.schema.options import check_fields, option
from sarx.config.schema.regularizers.declare import check_ema


@dataclass(kw_only=True, slots=True)
class PrototypeEmaConfig:
    """Pull towards moving averages of the class means of the features."""

    implementation: ClassVar[str] = "sarx.regularizers.prototype_ema:PrototypeEMA"
    name: str = "prototype_ema"
    pull_weight: float = option(0.1, low=0.0, high=1000.0)
    ema_decay: float | None = option(0.999, low=0.0, below=1.0)
    ema_half_life: float | None = option(None, above=0.0, high=10.0)
    gate: str = option("none", choices=("none", "all", "per_class"))
    update_confidence: float = option(0.8, low=0.0, below=1.0)

    def __post_init__(self) -> None:
        """Check every field and that one of the two ways to give the averaging time is used."""
        check_fields(self, "regularizer")
        check_ema(self.ema_decay, self.ema_half_life)

    def inert(self, searched: frozenset[str]) -> frozenset[str]:
        """Return the options that cannot act: all others without a pull, the confidence without a gate."""
        if self.pull_weight == 0 and "regularizer.pull_weight" not in searched:
            return frozenset({"ema_decay", "ema_half_life", "gate", "update_confidence"})
        gated = self.gate != "none" or "regularizer.gate" in searched
        return frozenset() if gated else frozenset({"update_confidence"})

    def warnings(self) -> tuple[str, ...]:
        """Say when the regularizer cannot act at all."""
        if self.pull_weight == 0:
            return ("pull_weight is 0: computes exactly what regularizer=none computes",)
        return ()
