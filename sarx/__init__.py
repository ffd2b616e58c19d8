"""sarx: train, search and take apart Semantic Anchor Regularization (SAR).

The public names are imported on first use, so that ``import sarx`` costs nothing and
``from sarx import SemanticAnchorRegularizer`` needs torch alone.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sarx.regularizers import PrototypeEMA, RegularizerOutput, SemanticAnchorRegularizer

__version__ = "0.1.0"
__all__ = ["PrototypeEMA", "RegularizerOutput", "SemanticAnchorRegularizer", "__version__"]


def __getattr__(name: str) -> Any:
    """Import a public name when it is asked for."""
    if name in __all__:
        return getattr(importlib.import_module("sarx.regularizers"), name)
    raise AttributeError(f"module 'sarx' has no attribute {name!r}")
