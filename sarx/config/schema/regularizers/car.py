"""Options of Class-Aware Regularization."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from sarx.config.schema.options import check_fields, option


@dataclass(kw_only=True, slots=True)
class CarConfig:
    """Class-Aware Regularization: three terms, each switched off by a weight of 0."""

    implementation: ClassVar[str] = "sarx.regularizers.car:ClassAwareRegularization"
    name: str = "car"
    intra_weight: float = option(1.0, low=0.0, high=1000.0)
    inter_centre_weight: float = option(1.0, low=0.0, high=1000.0)
    inter_pixel_weight: float = option(1.0, low=0.0, high=1000.0)

    def __post_init__(self) -> None:
        """Check every field."""
        check_fields(self, "regularizer")

    def inert(self, searched: frozenset[str]) -> frozenset[str]:
        """Return the options that cannot act: none, each weighs a term of its own."""
        return frozenset()

    def warnings(self) -> tuple[str, ...]:
        """Say when the regularizer cannot act at all."""
        if self.intra_weight == self.inter_centre_weight == self.inter_pixel_weight == 0:
            return ("all three weights are 0: computes exactly what regularizer=none computes",)
        return ()
