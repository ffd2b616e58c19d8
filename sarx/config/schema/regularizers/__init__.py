"""Options of the regularizers; the equations behind each option stand in sarx.regularizers.

``REGULARIZERS`` is the registry: name -> dataclass of options, which names its implementation.
"""

from __future__ import annotations

from sarx.config.schema.regularizers.declare import RegularizerConfig, declare
from sarx.config.schema.regularizers.prototype_ema import PrototypeEmaConfig
from sarx.config.schema.regularizers.sar import SarConfig

__all__ = ["REGULARIZERS", "PrototypeEmaConfig", "RegularizerConfig", "SarConfig"]

REGULARIZERS: dict[str, type[RegularizerConfig]] = {
    "none": declare("none", "sarx.regularizers.none:NoRegularizer"),
    "prototype_ema": PrototypeEmaConfig,
    "sar": SarConfig,
}
