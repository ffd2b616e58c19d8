"""The names of backbones, timm's read from its sources: importing timm takes seconds, this milliseconds."""

from __future__ import annotations

import functools
import importlib.util
import re
from pathlib import Path

from sarx.config.errors import UserError, nearest

REGISTERED = re.compile(rb"^@register_model\s*(?:#.*)?\n(?:@.*\n)*def (\w+)\(", re.MULTILINE)

MIX_TRANSFORMERS = frozenset(f"mit_b{size}" for size in range(6))
"""Mix Transformers (SegFormer, Xie et al. 2021), which timm lacks and segmentation-models-pytorch has."""

CIFAR_RESNETS = frozenset({"cifar_resnet32"})
"""ResNets for images of 32 x 32 pixels, which neither has: see ``sarx.models.cifar_resnet``."""


@functools.cache
def backbone_names() -> frozenset[str]:
    """Return every backbone, without importing timm or torch.

    They are what ``timm.list_models()`` would list, ``MIX_TRANSFORMERS`` and ``CIFAR_RESNETS``.
    """
    spec = importlib.util.find_spec("timm")
    if spec is None or not spec.submodule_search_locations:
        return frozenset()
    models = Path(spec.submodule_search_locations[0]) / "models"
    names = (name.decode() for path in models.glob("*.py") for name in REGISTERED.findall(path.read_bytes()))
    return frozenset(names) | MIX_TRANSFORMERS | CIFAR_RESNETS


def check_backbone(name: str) -> None:
    """Refuse a backbone that there is not.

    Raises:
        UserError: Naming the nearest one.
    """
    known = backbone_names()
    if name not in known:
        raise UserError(f"there is no backbone called {name!r}; {nearest(name, known)}", key="model.backbone")
