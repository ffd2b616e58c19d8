"""The ``ablation`` section of a study file: arms, factors, reference."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sarx.config.errors import UserError, nearest
from sarx.study.reading import check_keys, read_name
from sarx.study.schema import Ablation


def read_ablation(part: Any) -> Ablation:
    """Read arms, factors and reference."""
    check_keys(part, ["factors", "reference", "arms"], "ablation")
    arms = part.get("arms")
    if not isinstance(arms, Mapping) or not arms:
        raise UserError("expected arms such as 'cross_entropy: {regularizer: none}'", key="ablation.arms")
    for name, overrides in arms.items():
        at = f"ablation.arms.{name}"
        read_name(name, at)
        if not isinstance(overrides, Mapping):
            raise UserError(
                f"expected overrides such as {{regularizer: none}} or {{}}, found {overrides!r}", key=at
            )
        for key, value in overrides.items():
            if isinstance(value, (list, dict)):
                raise UserError(f"expected one value, found {value!r}", key=f"{at}.{key}")
    reference = part.get("reference", next(iter(arms)))
    if not isinstance(reference, str) or reference not in arms:
        raise UserError(
            f"no arm is called {reference!r}; {nearest(str(reference), arms)}", key="ablation.reference"
        )
    factors = part.get("factors", {})
    if not isinstance(factors, Mapping):
        raise UserError(
            "expected factors such as 'model: [fcn_test_efficientnet, fcn_test_convnext]'",
            key="ablation.factors",
        )
    for key, levels in factors.items():
        at = f"ablation.factors.{key}"
        if not isinstance(levels, list) or not levels:
            raise UserError("expected a list of levels", key=at)
        for i, level in enumerate(levels):
            if isinstance(level, (list, dict)):
                raise UserError(f"expected one value, found {level!r}", key=f"{at}.{i}")
        if len({str(level) for level in levels}) < len(levels):
            raise UserError("a level stands twice", key=at)
    return Ablation(reference=reference, arms={k: dict(v) for k, v in arms.items()}, factors=dict(factors))
