"""The ``ablation`` section of a study file: arms, factors, reference, and the components of a design."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sarx.config.errors import UserError, nearest
from sarx.study.components import SWITCH, cells_of
from sarx.study.reading import check_keys, read_name
from sarx.study.schema import DESIGNS, Ablation

Overrides = dict[str, Any]


def read_ablation(part: Any) -> Ablation:
    """Read arms, factors, reference and design; arms of a design are those of all its cells."""
    check_keys(part, ["design", "components", "factors", "reference", "arms"], "ablation")
    design = read_design(part)
    components = read_components(part, design)
    cells = cells_of(design, components)
    arms = {name: merged(components, levels) for name, levels in cells.items()}
    for name, overrides in read_arms(part, design).items():
        if name in cells:
            raise UserError("the design has an arm of this name", key=f"ablation.arms.{name}")
        arms[name] = overrides
    reference = part.get("reference", next(iter(arms)))
    if not isinstance(reference, str) or reference not in arms:
        raise UserError(
            f"no arm is called {reference!r}; {nearest(str(reference), arms)}", key="ablation.reference"
        )
    return Ablation(
        reference=reference,
        arms=arms,
        factors=read_factors(part),
        design=design,
        components=components,
        cells=cells,
    )


def read_design(part: Mapping[str, Any]) -> str:
    """Read the name of the design."""
    design = part.get("design", "explicit")
    if not isinstance(design, str) or design not in DESIGNS:
        raise UserError(f"{design!r} is not one of {', '.join(DESIGNS)}", key="ablation.design")
    if design == "explicit" and "components" in part:
        raise UserError(
            f"components go with a design: {', '.join(DESIGNS[1:])}; without one, write arms",
            key="ablation.components",
        )
    return design


def read_components(part: Mapping[str, Any], design: str) -> dict[str, dict[str, Overrides]]:
    """Read the components of a design: component -> level -> overrides."""
    if design == "explicit":
        return {}
    at = "ablation.components"
    raw = part.get("components")
    if not isinstance(raw, Mapping) or not raw:
        raise UserError(
            f"design: {design} needs components such as 'pull: {{off: {{regularizer.pull_weight: 0.0}}}}'",
            key=at if "components" in part else "ablation.design",
        )
    return {name: read_levels(name, levels, f"{at}.{name}") for name, levels in raw.items()}


def read_levels(name: str, raw: Any, at: str) -> dict[str, Overrides]:
    """Read the levels of one component; ``off`` alone has an empty ``on`` before it."""
    read_name(name, at)
    if not isinstance(raw, Mapping):
        raise UserError(
            f"expected levels such as {{off: {{regularizer.pull_weight: 0.0}}}}, found {raw!r}", key=at
        )
    levels = {}
    for level, overrides in raw.items():
        read_name(level, f"{at}.{level}")
        levels[level] = read_overrides(overrides, f"{at}.{level}")
    if set(levels) in ({"off"}, set(SWITCH)):
        return {"on": levels.get("on", {}), "off": levels["off"]}
    if len(levels) < 2:
        raise UserError(
            "needs two levels or more, the first being the component present, or 'off' alone", key=at
        )
    return levels


def read_arms(part: Mapping[str, Any], design: str) -> dict[str, Overrides]:
    """Read the arms that the file names."""
    raw = part.get("arms", {} if design != "explicit" else None)
    if not isinstance(raw, Mapping) or (design == "explicit" and not raw):
        raise UserError("expected arms such as 'cross_entropy: {regularizer: none}'", key="ablation.arms")
    arms = {}
    for name, overrides in raw.items():
        read_name(name, f"ablation.arms.{name}")
        arms[name] = read_overrides(overrides, f"ablation.arms.{name}")
    return arms


def read_overrides(raw: Any, at: str) -> Overrides:
    """Read what an arm or a level sets."""
    if not isinstance(raw, Mapping):
        raise UserError(f"expected overrides such as {{regularizer: none}} or {{}}, found {raw!r}", key=at)
    for key, value in raw.items():
        if isinstance(value, (list, dict)):
            raise UserError(f"expected one value, found {value!r}", key=f"{at}.{key}")
    return dict(raw)


def read_factors(part: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Read the factors: option -> levels."""
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
    return dict(factors)


def merged(components: Mapping[str, Mapping[str, Overrides]], levels: Mapping[str, str]) -> Overrides:
    """Return what the levels of a cell set; whether two of them disagree is asked when it is composed."""
    return {key: value for name, level in levels.items() for key, value in components[name][level].items()}
