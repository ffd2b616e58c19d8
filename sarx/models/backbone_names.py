"""The names of timm's models, read from its sources: importing timm takes seconds, this milliseconds."""

from __future__ import annotations

import functools
import importlib.util
import re
from pathlib import Path

from sarx.config.errors import UserError, nearest

REGISTERED = re.compile(rb"^@register_model\s*(?:#.*)?\n(?:@.*\n)*def (\w+)\(", re.MULTILINE)


@functools.cache
def backbone_names() -> frozenset[str]:
    """Return every model name that ``timm.list_models()`` would list, without importing timm or torch."""
    spec = importlib.util.find_spec("timm")
    if spec is None or not spec.submodule_search_locations:
        return frozenset()
    models = Path(spec.submodule_search_locations[0]) / "models"
    return frozenset(
        name.decode() for path in models.glob("*.py") for name in REGISTERED.findall(path.read_bytes())
    )


def check_backbone(name: str) -> None:
    """Refuse a backbone that timm does not have.

    Raises:
        UserError: Naming the nearest one.
    """
    known = backbone_names()
    if name not in known:
        raise UserError(f"timm has no backbone called {name!r}; {nearest(name, known)}", key="model.backbone")
