"""Options of the contrast of pixels against class prototypes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from sarx.config.schema.options import check_fields, option
from sarx.config.schema.regularizers.declare import check_ema


@dataclass(kw_only=True, slots=True)
class PixelPrototypeContrastConfig:
    """InfoNCE of every pixel against one moving-average prototype per class."""

    implementation: ClassVar[str] = "sarx.regularizers.pixel_prototype_contrast:PixelPrototypeContrast"
    name: str = "pixel_prototype_contrast"
    contrast_weight: float = option(0.1, low=0.0, high=1000.0)
    temperature: float = option(0.1, low=0.001, high=100.0)
    ema_decay: float | None = option(0.999, low=0.0, below=1.0)
    ema_half_life: float | None = option(None, above=0.0, high=10.0)

    def __post_init__(self) -> None:
        """Check every field and that one of the two ways to give the averaging time is used."""
        check_fields(self, "regularizer")
        check_ema(self.ema_decay, self.ema_half_life)

    def inert(self, searched: frozenset[str]) -> frozenset[str]:
        """Return the options that cannot act: all others when the contrast has no weight."""
        contrasts = self.contrast_weight > 0 or "regularizer.contrast_weight" in searched
        return frozenset() if contrasts else frozenset({"temperature", "ema_decay", "ema_half_life"})

    def warnings(self) -> tuple[str, ...]:
        """Say when the regularizer cannot act at all."""
        if self.contrast_weight == 0:
            return ("contrast_weight is 0: computes exactly what regularizer=none computes",)
        return ()
