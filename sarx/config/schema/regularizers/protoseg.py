"""Options of ProtoSeg's losses and of how its prototypes move."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from sarx.config.schema.options import check_fields, option
from sarx.config.schema.regularizers.declare import check_ema


@dataclass(kw_only=True, slots=True)
class ProtoSegConfig:
    """What ``model.classifier: prototypes`` is trained with; the defaults are the published constants."""

    implementation: ClassVar[str] = "sarx.regularizers.protoseg:ProtoSeg"
    classifier: ClassVar[str] = "prototypes"  # the model.classifier that it moves and needs
    name: str = "protoseg"
    contrast_weight: float = option(0.01, low=0.0, high=1000.0)
    distance_weight: float = option(0.001, low=0.0, high=1000.0)
    temperature: float = option(0.1, low=0.001, high=100.0)
    ema_decay: float | None = option(0.999, low=0.0, below=1.0)
    ema_half_life: float | None = option(None, above=0.0, high=10.0)

    def __post_init__(self) -> None:
        """Check every field and that one of the two ways to give the averaging time is used."""
        check_fields(self, "regularizer")
        check_ema(self.ema_decay, self.ema_half_life)

    def inert(self, searched: frozenset[str]) -> frozenset[str]:
        """Return the options that cannot act: the temperature of a contrast without weight."""
        contrasts = self.contrast_weight > 0 or "regularizer.contrast_weight" in searched
        return frozenset() if contrasts else frozenset({"temperature"})

    def warnings(self) -> tuple[str, ...]:
        """Say nothing: the prototypes move and classify whatever the weights are."""
        return ()
