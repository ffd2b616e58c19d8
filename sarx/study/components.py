"""Designs: arms from the components of a method (``ablation.components``).

``leave_one_out``: the whole method, and the method without each component. What a component is worth
beside all others.

``one_factor_at_a_time``: a baseline, and the baseline with one component at a time. The baseline has every
component at its last level, switched off, so that each is seen alone: the mirror image of leave_one_out.

``factorial``: all combinations of levels. ``fractional``: a part of them that keeps main effects clear of
two-factor interactions, for components of two levels (``sarx.study.fractional``).

A component's first level is the component present. Cells that cannot be built, and cells that equal another,
are left out.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sarx.config.errors import UserError
from sarx.config.schema.acting import inert_options
from sarx.study.arm import MAX_ARMS, Arm
from sarx.study.fractional import LARGEST, SMALLEST, aliases, fraction
from sarx.study.identity import canonical
from sarx.study.reading import NAME
from sarx.study.schema import Ablation, Study

Components = Mapping[str, Mapping[str, Mapping[str, Any]]]
Levels = dict[str, str]

SWITCH = ("on", "off")
"""Levels of a component that is there or not."""
MADE = ("factorial", "fractional")
"""Designs that combine components."""


def cells_of(design: str, components: Components) -> dict[str, Levels]:
    """Return the cells of a design by name, each with the level of every component; its own reference first.

    Raises:
        UserError: For components that the design cannot combine, too many cells, and names that are too long
            or equal.
    """
    if design == "explicit":
        return {}
    home = {
        name: list(levels)[-1 if design == "one_factor_at_a_time" else 0]
        for name, levels in components.items()
    }
    if design == "factorial":
        check_number(math.prod(map(len, components.values())))
        points = [
            dict(zip(components, levels, strict=True)) for levels in itertools.product(*components.values())
        ]
    elif design == "fractional":
        points = fractional_points(components)
    else:
        points = [home] + [
            home | {name: level} for name in components for level in components[name] if level != home[name]
        ]
        check_number(len(points))
    cells: dict[str, Levels] = {}
    for point in points:
        name = cell_name(components, home, point, design)
        if name in cells:
            raise UserError(
                f"two cells of the design would be called {name!r}; rename a component",
                key="ablation.components",
            )
        cells[name] = point
    return cells


def check_number(cells: int) -> None:
    """Refuse more cells than a table can hold."""
    if cells > MAX_ARMS:
        raise UserError(
            f"{cells} cells are more than a study may have ({MAX_ARMS}); take fewer components, or "
            "design: fractional or leave_one_out",
            key="ablation.components",
        )


def fractional_points(components: Components) -> list[Levels]:
    """Return the cells of the fraction; the first has every component at its first level."""
    for name, levels in components.items():
        if len(levels) != 2:
            raise UserError(
                f"fractional needs components of two levels, found {len(levels)}; remove levels, or take "
                "design: factorial",
                key=f"ablation.components.{name}",
            )
    count = len(components)
    if count < SMALLEST:
        raise UserError(
            f"{count} components have no fraction of resolution IV; a full factorial has only {2**count} "
            "cells: take design: factorial",
            key="ablation.components",
        )
    if count > LARGEST:
        raise UserError(
            f"{count} components are more than fractions are made for ({LARGEST}); take leave_one_out",
            key="ablation.components",
        )
    names = [list(levels) for levels in components.values()]
    return [{name: names[i][run[i]] for i, name in enumerate(components)} for run in fraction(count).runs]


def cell_name(components: Components, home: Levels, point: Levels, design: str) -> str:
    """Name a cell by what differs from home: ``full``, ``no_pull-distance_cosine``, ``pull``."""
    parts = []
    for name, level in point.items():
        if level != home[name]:
            switch = tuple(components[name]) == SWITCH
            parts.append({"on": name, "off": f"no_{name}"}[level] if switch else f"{name}_{level}")
    text = "-".join(parts) or ("base" if design == "one_factor_at_a_time" else "full")
    if not NAME.fullmatch(text):
        advice = "shorten the names of components and levels"
        if design in MADE:
            advice += ", or take design: leave_one_out"
        raise UserError(
            f"an arm would be called {text!r}, which has {len(text)} characters, more than 64; {advice}",
            key="ablation.components",
        )
    return text


def overrides_of(components: Components, levels: Levels) -> dict[str, Any]:
    """Return what a cell sets: what each of its levels sets.

    Raises:
        UserError: If two components set one option to different values.
    """
    found: dict[str, Any] = {}
    owner: dict[str, str] = {}
    for name, level in levels.items():
        for key, value in components[name][level].items():
            if found.setdefault(key, value) != value:
                raise UserError(
                    f"components {owner[key]} and {name} both set {key}, to {found[key]} and {value}",
                    key=f"ablation.components.{name}.{level}.{key}",
                )
            owner.setdefault(key, name)
    return found


def arm_place(ablation: Ablation, name: str, key: str = "") -> str:
    """Return the dotted key of the study file where an arm, or one of its overrides, is written."""
    tail = f".{key}" if key else ""
    if name not in ablation.cells:
        return f"ablation.arms.{name}{tail}"
    levels = ablation.cells[name]
    for component, level in levels.items():
        if key in ablation.components[component][level]:
            return f"ablation.components.{component}.{level}{tail}"
    home = next(iter(ablation.cells.values()))
    moved = [component for component in levels if levels[component] != home[component]]
    if len(moved) == 1:
        return f"ablation.components.{moved[0]}.{levels[moved[0]]}{tail}"
    return f"ablation.components{tail}"


def keep_cells(study: Study, make: Callable[[str], list[Arm]]) -> dict[str, list[Arm]]:
    """Leave out the cells that cannot be or that equal another, and return the arms of each name.

    ``study.ablation.arms`` and ``excluded`` are set. A cell is left out if it cannot be built at some level
    of the factors, or equals another cell at all of them: the same options but for those that cannot act,
    and the same search space.

    Args:
        study: The study, whose arms are those of the whole design.
        make: Gives the arms of a name, one for each level of the factors.

    Raises:
        UserError: If the first cell or the reference would be left out, or all cells with some level of a
            component; and for arms beside the design that cannot be built.
    """
    ablation = study.ablation
    made: dict[str, list[Arm]] = {}
    seen: dict[str, str] = {}
    reasons: dict[str, UserError] = {}
    overrides = {name: dict(values) for name, values in ablation.arms.items() if name not in ablation.cells}
    for name, levels in ablation.cells.items():
        try:
            ablation.arms[name] = overrides_of(ablation.components, levels)
            arms = make(name)
        except UserError as error:
            if not made:
                raise
            reasons[name] = error
            continue
        twin = seen.setdefault(repr([signature(arm) for arm in arms]), name)
        if twin != name:
            reasons[name] = UserError(f"equals {twin}{why_equal(arms[0])}", key=arm_place(ablation, name))
            continue
        made[name] = arms
    check_left_out(ablation, reasons)
    ablation.excluded = [f"{name}: {error.message}" for name, error in reasons.items()]
    ablation.arms = {name: ablation.arms[name] for name in made} | overrides
    return made | {name: make(name) for name in overrides}


def signature(arm: Arm) -> tuple[Any, ...]:
    """Return what decides an arm's numbers: options that can act, and the search space."""
    record = canonical(arm.config)
    for key in inert_of(arm):
        group, name = key.split(".")
        record[group].pop(name, None)
    return record, arm.space


def inert_of(arm: Arm) -> frozenset[str]:
    """Return the options of an arm that cannot act."""
    return inert_options(arm.config, frozenset(parameter.key for parameter in arm.space))


def why_equal(arm: Arm) -> str:
    """Say which of the options that an arm sets cannot act."""
    idle = [key for key in arm.overrides if key in inert_of(arm)]
    return f" ({', '.join(idle)} cannot act beside its other options)" if idle else ""


def check_left_out(ablation: Ablation, reasons: Mapping[str, UserError]) -> None:
    """Refuse a design without its reference, or without any cell that has some level of a component."""
    if ablation.reference in reasons:
        reason = reasons[ablation.reference].message
        raise UserError(
            f"the reference cannot be left out; {ablation.reference}: {reason}", key="ablation.reference"
        )
    kept = [levels for name, levels in ablation.cells.items() if name not in reasons]
    for component, levels in ablation.components.items():
        for level in levels:
            if any(cell[component] == level for cell in kept):
                continue
            name = next(name for name, cell in ablation.cells.items() if cell[component] == level)
            error = reasons[name]
            if error.where is not None:
                raise error
            raise UserError(
                f"no arm is left with it: {name}: {error.message}; remove it, or mend it",
                key=error.key
                if (error.key or "").startswith("ablation.components.")
                else f"ablation.components.{component}.{level}",
            )


def describe_design(ablation: Ablation) -> list[str]:
    """Return the lines of the plan about a design: cells, what was left out, aliases, warnings."""
    if ablation.design == "explicit":
        return []
    left, number = len(ablation.excluded), len(ablation.cells)
    names = list(ablation.components)
    lines = [f"  design   {ablation.design} of {len(names)} components: {number - left} of {number} cells"]
    lines += [f"    left out: {text}" for text in ablation.excluded]
    if ablation.design == "fractional":
        lines += describe_fraction(names, left)
    if ablation.design in MADE and 2 * left > number:
        lines.append(
            f"  warning: {left} of {number} cells were left out: most components do not act beside the "
            "others; leave_one_out, or fewer components, say the same with fewer arms"
        )
    return lines


def describe_fraction(names: Sequence[str], left: int) -> list[str]:
    """Return what a fraction cannot tell apart."""
    found = fraction(len(names))
    numeral = {4: "IV", 5: "V"}.get(found.resolution, str(found.resolution))
    lines = [f"    a fraction of 2^{len(names)} cells, resolution {numeral}"]
    lines += [f"    two-factor interactions aliased: {text}" for text in aliases(names)]
    if left:
        lines.append(
            "  warning: cells of the fraction were left out, so that main effects are no longer clear "
            "of each other; take design: factorial"
        )
    return lines
