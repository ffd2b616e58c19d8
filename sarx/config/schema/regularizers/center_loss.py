"""Options of the centre loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from sarx.config.schema.options import check_fields, option


@dataclass(kw_only=True, slots=True)
class CenterLossConfig:
    """Pull towards class centres that follow an update rule of their own."""

    implementation: ClassVar[str] = "sarx.regularizers.center_loss:CenterLoss"
    name: str = "center_loss"
    pull_weight: float = option(1.536, low=0.0, high=1000.0)
    alpha: float = option(0.5, low=0.0, high=1.0)

    def __post_init__(self) -> None:
        """Check every field."""
        check_fields(self, "regularizer")

    def inert(self, searched: frozenset[str]) -> frozenset[str]:
        """Return the options that cannot act: the rate of the centres when nothing is pulled."""
        pulls = self.pull_weight > 0 or "regularizer.pull_weight" in searched
        return frozenset() if pulls else frozenset({"alpha"})

    def warnings(self) -> tuple[str, ...]:
        """Say when the regularizer cannot act at all, or pulls everything to the origin."""
        if self.pull_weight == 0:
            return ("pull_weight is 0: computes exactly what regularizer=none computes",)
        if self.alpha == 0:
            return ("alpha is 0: the centres stay at the origin, and every feature is pulled there",)
        return ()
