"""Options of the regularizers; the equations behind each option stand in sarx.regularizers.

``REGULARIZERS`` is the registry: name -> dataclass of options, which names its implementation.
"""

from __future__ import annotations

from sarx.config.schema.options import option
from sarx.config.schema.regularizers.car import CarConfig
from sarx.config.schema.regularizers.center_loss import CenterLossConfig
from sarx.config.schema.regularizers.declare import RegularizerConfig, declare
from sarx.config.schema.regularizers.pixel_prototype_contrast import PixelPrototypeContrastConfig
from sarx.config.schema.regularizers.protoseg import ProtoSegConfig
from sarx.config.schema.regularizers.prototype_ema import PrototypeEmaConfig
from sarx.config.schema.regularizers.sar import SarConfig

__all__ = [
    "REGULARIZERS",
    "CarConfig",
    "CenterLossConfig",
    "PixelPrototypeContrastConfig",
    "ProtoSegConfig",
    "PrototypeEmaConfig",
    "RegularizerConfig",
    "SarConfig",
    "declare",
    "option",
]

REGULARIZERS: dict[str, type[RegularizerConfig]] = {
    "car": CarConfig,
    "center_loss": CenterLossConfig,
    "none": declare("none", "sarx.regularizers.none:NoRegularizer"),
    "pixel_prototype_contrast": PixelPrototypeContrastConfig,
    "prototype_ema": PrototypeEmaConfig,
    "protoseg": ProtoSegConfig,
    "sar": SarConfig,
}
